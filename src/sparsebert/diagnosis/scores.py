"""Scores that say the model learnt nothing: those of always giving the same answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from sparsebert.diagnosis.finding import Check, Finding, Kind, Severity
from sparsebert.diagnosis.records import TrainingRecord

GROUP = "training"
CONSTANT_NOTES = (
    "every row got the same label",
    "all predictions are the same",
)  # evaluation's notes

CONSTANT_PREDICTIONS = Kind(
    "constant-predictions",
    Severity.ERROR,
    "the training collapsed: lower --learning-rate, lengthen --warmup-ratio, try another --seed, "
    "and look at the labels (doctor --data).",
)
MAJORITY_SCORE = Kind(
    "majority-score",
    Severity.ERROR,
    "the model learnt nothing: train longer or with another --learning-rate, try another --seed, "
    "and look at the labels (doctor --data).",
)
NEAR_MAJORITY = Kind(
    "near-majority-score",
    Severity.WARNING,
    "on so few rows this may be chance: score several seeds, train longer, and look at F1 or "
    "Matthews' correlation.",
)

Majorities = Mapping[str, tuple[str, int, int]]
"""Split to its most frequent label, that label's rows and all rows."""


def check_scores(record: TrainingRecord, majorities: Majorities) -> Iterator[Check]:
    """The check of a run's scores; ``majorities`` are known where the data was given."""
    if not record.scores:
        yield Check.skip(GROUP, "scores", "it was not scored: it had no validation split")
        return
    findings = [_constant(record)]
    findings += [
        _majority(record, split, metrics["accuracy"], majorities[split])
        for split, metrics in record.scores.items()
        if "accuracy" in metrics and split in majorities
    ]
    seen = "; ".join(
        f"{split} {', '.join(f'{name} {score:.1f}' for name, score in metrics.items())}"
        for split, metrics in record.scores.items()
    )
    known = ", ".join(
        f"{100 * count / total:.1f} always answering '{label}'"
        for split, (label, count, total) in majorities.items()
        if split in record.scores
    )
    classes = any("accuracy" in metrics for metrics in record.scores.values())
    hint = " (give --data to compare with the largest class)" if classes else ""
    yield Check.of(GROUP, "scores", seen + (f" ({known})" if known else hint), findings)


def _constant(record: TrainingRecord) -> Finding | None:
    said = [note for note in record.notes if any(sign in note for sign in CONSTANT_NOTES)]
    if not said:
        return None
    return CONSTANT_PREDICTIONS.at(
        record.path.parent, "the model gives the same answer to every row.", examples=said
    )


def _majority(
    record: TrainingRecord, split: str, accuracy: float, majority: tuple[str, int, int]
) -> Finding | None:
    """Accuracy held against the largest class's share; two standard errors of that are chance."""
    label, count, total = majority
    if record.rows.get(split, total) != total or not total:  # scored on other rows than these
        return None
    chance = count / total
    error = math.sqrt(chance * (1 - chance) / total)
    said = (
        f"accuracy {accuracy:.1f} on {split}, where always answering '{label}' scores "
        f"{100 * chance:.1f}"
    )
    if accuracy <= 100 * chance + 1e-6:
        return MAJORITY_SCORE.at(record.path.parent, said + ".")
    if accuracy < 100 * (chance + 2 * error):
        return NEAR_MAJORITY.at(
            record.path.parent,
            f"{said}: no more above it than chance is on {total:,} rows "
            f"(2 standard errors are {200 * error:.1f}).",
        )
    return None
