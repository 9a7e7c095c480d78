"""Tokenised texts: how many are truncated, and how many tokens are unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsebert.checkpoint import transformer_folder
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, Split
from sparsebert.errors import CheckpointError
from sparsebert.progress import Progress
from sparsebert.tasks.columns import show
from sparsebert.tasks.examples import selection
from sparsebert.tasks.table import Kind, Task

MOST_ROWS = 10_000  # of a split are tokenised: more would hardly change the shares
_CHUNK = 1000
_MANY_CUT = 0.05  # share of rows
_MANY_UNKNOWN = 0.01  # share of tokens

TRUNCATED_TEXTS = Problem(
    "truncated-texts",
    Severity.WARNING,
    "use a larger --max-length in `finetune` and `evaluate` (which takes more time and memory), or "
    "shorten the texts to what matters.",
)
UNKNOWN_TOKENS = Problem(
    "unknown-tokens",
    Severity.WARNING,
    "use a model whose vocabulary was made for this language, or clean the texts of characters "
    "that the vocabulary lacks.",
)
NO_TOKENIZER = Problem(
    "no-tokenizer",
    Severity.ERROR,
    "copy tokenizer.json (or the vocabulary) and tokenizer_config.json from the model that this "
    "one was made from.",
)


def check_tokenizer(folder: Path) -> Check:
    """Whether the model has a tokenizer."""
    try:
        tokenizer = read_tokenizer(transformer_folder(folder))
    except CheckpointError as error:
        found = NO_TOKENIZER.at(folder, str(error))
        return Check.of("weights", "tokenizer", "not read", [found])
    if tokenizer is None:
        found = NO_TOKENIZER.at(folder, "it has no tokenizer.json and no vocabulary.")
        return Check.of("weights", "tokenizer", "none", [found])
    seen = f"{tokenizer.backend.get_vocab_size():,} tokens"
    return Check.of("weights", "tokenizer", seen, [])


def check_lengths(
    folder: Path, task: Task, splits: list[Split], max_length: int, progress: Progress
) -> Iterator[Check]:
    """A check of each split, on a fixed selection of at most 10,000 examples.

    SQuAD contexts are cut into windows rather than truncated (see `answers`), so only unknown
    tokens are counted for them. An embedding model reads each text by itself, so the longest text
    of a row counts.
    """
    files = transformer_folder(folder)
    try:
        tokenizer = read_tokenizer(files)
    except CheckpointError:
        tokenizer = None
    if tokenizer is None:
        yield Check.skip(GROUP, "lengths", "the model has no usable tokenizer")
        return
    backend = tokenizer.backend
    unknown_id = backend.token_to_id(tokenizer.special_tokens["unk_token"])
    together = len(task.text_columns) == 2 and not task.embeds
    specials = backend.num_special_tokens_to_add(together)
    for split in splits:
        chosen = selection(len(split), MOST_ROWS)
        rows = np.arange(len(split)) if chosen is None else chosen
        lengths = np.full(len(rows), specials)
        unknown: dict[int, int] = {}
        tokens = 0
        for start in range(0, len(rows), _CHUNK):
            progress(f"tokenising {split.name}", start, len(rows))
            part = rows[start : start + _CHUNK]
            for column in split.columns:
                texts = [column[row] or "" for row in part]
                for index, found in enumerate(
                    backend.encode_batch(texts, add_special_tokens=False), start
                ):
                    if task.embeds:
                        lengths[index] = max(lengths[index], specials + len(found.ids))
                    else:
                        lengths[index] += len(found.ids)
                    tokens += len(found.ids)
                    count = 0 if unknown_id is None else found.ids.count(unknown_id)
                    if count:
                        unknown[index] = unknown.get(index, 0) + count
        progress(f"tokenising {split.name}", len(rows), len(rows))
        findings = [_unknown(split, rows, unknown, tokens)]
        seen = f"median {int(np.median(lengths))} tokens, 99 % have at most {_percentile(lengths)}"
        if task.kind is not Kind.QUESTION:
            findings.append(_truncated(split, rows, lengths, max_length))
            seen += f", the limit is {max_length}"
        if chosen is not None:
            seen += f" ({plural(len(rows), 'row')}, chosen by a fixed rule)"
        yield Check.of(GROUP, f"lengths of {split.name}", seen, findings)


def _percentile(lengths: np.ndarray) -> int:
    return int(np.ceil(np.percentile(lengths, 99)))


def _truncated(
    split: Split, rows: np.ndarray, lengths: np.ndarray, max_length: int
) -> Finding | None:
    cut = np.flatnonzero(lengths > max_length)
    longest = cut[np.argsort(-lengths[cut], kind="stable")]
    most = _percentile(lengths)
    return TRUNCATED_TEXTS.among(
        split.name,
        longest,
        len(rows),
        f"rows are longer than {max_length} tokens and are truncated"
        + (f"; --max-length {most} would keep 99 % whole." if most > max_length else "."),
        lambda index: f"row {rows[index] + 1}: {lengths[index]} tokens",
        minor=_MANY_CUT,
    )


def _unknown(
    split: Split, rows: np.ndarray, unknown: dict[int, int], tokens: int
) -> Finding | None:
    count = sum(unknown.values())
    if not count or count < _MANY_UNKNOWN * tokens:
        return None
    return UNKNOWN_TOKENS.at(
        split.name,
        f"{share(count, tokens)} tokens are unknown to the model.",
        count=count,
        total=tokens,
        examples=(
            f"row {rows[index] + 1}: {number} in {show(split.texts(int(rows[index]))[0])}"
            for index, number in sorted(unknown.items(), key=lambda item: -item[1])
        ),
    )
