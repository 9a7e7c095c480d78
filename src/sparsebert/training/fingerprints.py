"""Fingerprints of a run's inputs, which distinguish different contents with the same names.

A resumed run, or a further seed beside others, must have the same inputs, or its result belongs to
neither. A fingerprint is the SHA-256 of one input, under the name that messages use for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.model_files import model_fingerprint
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.own import reading_task
from sparsebert.tasks.texts import Text, read_texts, single_texts
from sparsebert.training.data import RunData


def run_fingerprints(
    checkpoint: Checkpoint, data: RunData, teacher: Checkpoint | None
) -> dict[str, str]:
    """Those of a fine-tuning run: model, labels and rows; unlabelled texts and teacher, if any."""
    found = {
        "the model": model_fingerprint(checkpoint.path),
        "the labels": text_fingerprint(data.task.labels),
        "the training rows": _of_examples([data.train]),
        "the validation rows": _of_examples(data.held_out),
    }
    if data.unlabelled is not None:
        found["the unlabelled texts"] = _of_examples([data.unlabelled])
    if teacher is not None:
        found["the teacher"] = model_fingerprint(teacher.path)
    return found


def upstream_fingerprints(
    checkpoint: Checkpoint,
    corpus: Iterable[str],
    calibration: str | Path | None,
    task: str | None,
    columns: DataOptions,
    teacher: Checkpoint | None,
) -> dict[str, str]:
    """Those of upstream pruning: model and corpus; calibration texts and teacher, if any."""
    found = {
        "the model": model_fingerprint(checkpoint.path),
        "the corpus": text_fingerprint(corpus),
    }
    if calibration is not None:
        texts = read_texts(calibration, reading_task(task), columns)
        found["the calibration texts"] = text_fingerprint(texts)
    if teacher is not None:
        found["the teacher"] = model_fingerprint(teacher.path)
    return found


def text_fingerprint(texts: Iterable[Text]) -> str:
    """The fingerprint of texts or pairs, in their order."""
    digest = hashlib.sha256()
    for text in single_texts(texts):
        coded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(coded) + coded)
    return digest.hexdigest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """``the training rows changed`` and so on: one for each fingerprint that differs.

    Fingerprints that only one side has are ignored.
    """
    return [f"{name} changed" for name in now if before.get(name, now[name]) != now[name]]


def _of_examples(splits: Iterable[Examples]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        answers = (f"{each.texts}{each.starts}" for each in split.answers)
        for texts in (split.texts, split.pairs or (), answers):
            digest.update(text_fingerprint(texts).encode())
        for words in split.words:
            digest.update(words.spans.tobytes() + words.labels.tobytes())
        digest.update(np.ascontiguousarray(split.labels).data)
        if more := [*(text for row in split.negatives for text in row), *split.corpus]:
            digest.update(text_fingerprint(more).encode())
    return digest.hexdigest()
