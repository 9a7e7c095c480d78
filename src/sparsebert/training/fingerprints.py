"""Fingerprints of what a run is made of: they tell contents apart that have the same names.

A run that goes on, and a seed beside others, must be of the same contents, or its result is of
neither. SHA-256 of each thing that a run is made of, under the name that a message gives it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.folder import model_fingerprint
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.own import reading_task
from sparsebert.tasks.texts import Text, read_texts, single_texts
from sparsebert.training.data import RunData


def run_fingerprints(
    checkpoint: Checkpoint, data: RunData, teacher: Checkpoint | None
) -> dict[str, str]:
    """Of a fine-tuning run: model, labels, rows, and what else there is."""
    found = {
        "the model": model_fingerprint(checkpoint),
        "the labels": text_fingerprint(data.task.labels),
        "the training rows": _of_examples([data.train]),
        "the validation rows": _of_examples(data.held_out),
    }
    if data.unlabelled is not None:
        found["the unlabelled texts"] = _of_examples([data.unlabelled])
    if teacher is not None:
        found["the teacher"] = model_fingerprint(teacher)
    return found


def upstream_fingerprints(
    checkpoint: Checkpoint,
    corpus: Iterable[str],
    calibration: str | Path | None,
    task: str | None,
    teacher: Checkpoint | None,
) -> dict[str, str]:
    """Of upstream pruning: model, corpus, and where they differ what it calibrates on or learns
    from.
    """
    found = {"the model": model_fingerprint(checkpoint), "the corpus": text_fingerprint(corpus)}
    if calibration is not None:
        texts = read_texts(calibration, reading_task(task))
        found["the calibration texts"] = text_fingerprint(texts)
    if teacher is not None:
        found["the teacher"] = model_fingerprint(teacher)
    return found


def text_fingerprint(texts: Iterable[Text]) -> str:
    """Of some texts or pairs in their order."""
    digest = hashlib.sha256()
    for text in single_texts(texts):
        coded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(coded) + coded)
    return digest.hexdigest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """``the training rows changed`` for each fingerprint that both have and that differs."""
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
