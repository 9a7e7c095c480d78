"""Several seeds: collapsed ones, and whether models differ by more than the spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.seeds import SEEDS_NAME
from sparsebert.diagnosis.records import Scores, TrainingRecord
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.errors import CheckpointError
from sparsebert.evaluation.results import within_spread

GROUP = "seeds"
_COLLAPSE = 10.0  # points below the median of the seeds

COLLAPSED_SEED = Problem(
    "collapsed-seed",
    Severity.WARNING,
    "its training failed, as fine-tuning a BERT does now and then: say so beside the mean, or "
    "train all seeds again with a lower --learning-rate and a higher --warmup-ratio. Do not leave "
    "it out silently.",
)
STALE_SUMMARY = Problem(
    "stale-seeds-summary",
    Severity.ERROR,
    "run `sparsebert finetune --seeds` again: it leaves finished seeds unchanged and rewrites "
    f"{SEEDS_NAME}.",
)
UNLIKE_SEEDS = Problem(
    "unlike-seeds",
    Severity.ERROR,
    "their mean is meaningless: train them with the same options, on the same rows.",
)
WITHIN_SPREAD = Problem(
    "difference-within-spread",
    Severity.WARNING,
    "these seeds show neither a difference nor that there is none: train more of them, and report "
    "mean and standard deviation.",
)
SINGLE_SEED = Problem(
    "single-seed",
    Severity.WARNING,
    "one seed shows no spread, and fine-tuned BERTs differ by a point or more from seed to seed: "
    "train five (`finetune --seeds 5`).",
)
UNEQUAL_TRAINING = Problem(
    "unequal-training",
    Severity.WARNING,
    "compare models that were trained on the same rows, for the same number of epochs.",
)


@dataclass(frozen=True)
class Runs:
    """Runs that differ only in their seed: ``records`` by folder name."""

    path: Path
    records: Mapping[str, TrainingRecord]

    def scores(self, split: str, metric: str) -> dict[str, float]:
        """The score of each run that has it."""
        return {
            name: record.scores[split][metric]
            for name, record in self.records.items()
            if metric in record.scores.get(split, {})
            and math.isfinite(record.scores[split][metric])
        }

    def measures(self) -> list[tuple[str, str]]:
        """Split and metric of every score that any of the runs has."""
        found = {
            (split, metric): None
            for record in self.records.values()
            for split, metrics in record.scores.items()
            for metric in metrics
        }
        return list(found)


def check_seeds(runs: Runs) -> Iterator[Check]:
    """The checks of a folder of several seeds."""
    spreads = []
    for split, metric in runs.measures():
        values = list(runs.scores(split, metric).values())
        if len(values) > 1:
            spreads.append(
                f"{split} {metric} {statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
            )
    seen = f"{plural(len(runs.records), 'seed')}: {'; '.join(spreads) or 'no scores'}"
    yield Check.of(GROUP, "spread", seen, [_collapsed(runs), _unlike(runs)])
    yield _summary(runs)


def check_difference(runs: Runs, other: Runs) -> Check:
    """Whether two models differ by more than the spread over seeds, in each score of both."""
    findings: list[Finding | None] = [_unequal(runs, other)]
    said = []
    for split, metric in runs.measures():
        first, second = (list(each.scores(split, metric).values()) for each in (runs, other))
        if not first or not second:
            continue
        difference = statistics.fmean(first) - statistics.fmean(second)
        said.append(f"{split} {metric} {difference:+.2f}")
        if min(len(first), len(second)) == 1:
            continue
        if within_spread(difference, first, second):
            spread = max(statistics.stdev(first), statistics.stdev(second))
            findings.append(
                WITHIN_SPREAD.at(
                    f"{split} {metric}",
                    f"{runs.path} has {statistics.fmean(first):.2f} and {other.path} "
                    f"{statistics.fmean(second):.2f}: {abs(difference):.2f} points apart, no more "
                    f"than the standard deviation of {spread:.2f} between seeds.",
                )
            )
    few = [each for each in (runs, other) if len(each.records) == 1]
    if said and few:
        named = " and ".join(str(each.path) for each in few)
        findings.append(
            SINGLE_SEED.at(
                runs.path, f"{named} {'has' if len(few) == 1 else 'each have'} only one seed."
            )
        )
    seen = f"against {other.path}: {'; '.join(said) or 'no score in common'}"
    return Check.of(GROUP, "difference", seen, findings)


def _collapsed(runs: Runs) -> Finding | None:
    found: dict[str, str] = {}
    for split, metric in runs.measures():
        scores = runs.scores(split, metric)
        if len(scores) < 3:
            continue
        middle = statistics.median(scores.values())
        for name, score in scores.items():
            if score < middle - _COLLAPSE:
                found.setdefault(
                    name, f"{name}: {split} {metric} {score:.1f}, the median is {middle:.1f}"
                )
    if not found:
        return None
    return COLLAPSED_SEED.at(
        runs.path,
        f"{plural(len(found), 'seed')} of {len(runs.records)} scored more than {_COLLAPSE:g} "
        "points below the median.",
        count=len(found),
        total=len(runs.records),
        examples=found.values(),
    )


def _unlike(runs: Runs) -> Finding | None:
    """Arguments, or training rows, in which the seeds differ."""
    values: dict[str, set[str]] = {}
    for record in runs.records.values():
        facts = {**record.arguments, "training rows": record.rows.get("train")}
        for name, value in facts.items():
            if name not in ("seed", "teacher"):
                values.setdefault(name, set()).add(repr(value))
    different = {name: each for name, each in values.items() if len(each) > 1}
    if not different:
        return None
    return UNLIKE_SEEDS.at(
        runs.path,
        "the seeds were not trained alike.",
        examples=(f"{name}: {', '.join(sorted(each))}" for name, each in different.items()),
    )


def _summary(runs: Runs) -> Check:
    """Whether seeds.json agrees with the records of the seeds."""
    path = runs.path / SEEDS_NAME
    if not path.is_file():
        return Check.skip(GROUP, SEEDS_NAME, "there is none")
    finding = None
    try:
        listed = read_object(path).get("seeds")
    except CheckpointError as error:
        listed, finding = None, STALE_SUMMARY.at(path, str(error))
    if finding is None and _listed(listed) != _own(runs):
        finding = STALE_SUMMARY.at(path, "its scores differ from those of the seeds beside it.")
    return Check.of(GROUP, SEEDS_NAME, "compared with the seeds beside it", [finding])


def _listed(value: object) -> dict[str, Scores] | None:
    return (
        {f"seed-{seed}": scores for seed, scores in value.items()}
        if isinstance(value, dict)
        else None
    )


def _own(runs: Runs) -> dict[str, Scores]:
    return {name: record.trained_scores for name, record in runs.records.items()}


def _unequal(runs: Runs, other: Runs) -> Finding | None:
    first, second = (next(iter(each.records.values())) for each in (runs, other))
    facts = {
        "training rows": (first.rows.get("train"), second.rows.get("train")),
        **{
            name: (first.arguments.get(name), second.arguments.get(name))
            for name in ("task", "epochs", "max_rows")
        },
    }
    different = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}
    if not different:
        return None
    return UNEQUAL_TRAINING.at(
        runs.path,
        f"it and {other.path} were not trained alike.",
        examples=(f"{name}: {one} and {two}" for name, (one, two) in different.items()),
    )
