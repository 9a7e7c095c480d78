"""A fine-tuning run from its record: loss curve, learning rate, gradient norms and scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from sparsebert.diagnosis.records import Point, TrainingRecord
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share

GROUP = "training"
_FEWEST_POINTS = 10  # of a loss curve that is judged
_PARTS = 5  # the curve is judged by the means of its fifths, because single points are noise
_RISE = 0.2  # the last fifth's mean above the lowest fifth's, as a share of the first fifth's
_FALL = 0.95  # the last fifth's mean as a share of the first fifth's
_LEFT = 0.6  # the same for a run that ended too early, ...
_STILL = 0.15  # ... if this share of the total decrease happened in the last fifth
_SPIKE = 10.0  # times the median gradient norm
_SPIKES = 0.05  # share of points

# Peak rates at which BERTs are trained, by optimiser. AdamW: 2e-5 to 5e-5 for BERT-base (Devlin et
# al. 2019), 3e-5 to 3e-4 for small models (Turc et al. 2019), 5e-4 for distilling MiniLM (Wang et
# al. 2020); the limits leave a margin on either side.
_RATES = {"adamw": (1e-6, 1e-3), "adafactor": (1e-6, 1e-2), "sgd": (1e-4, 1.0)}
_WIDE, _WIDE_LIMIT = 768, 3e-4  # from BERT-base upwards, higher AdamW rates diverge or forget

LOSS_NOT_FINITE = Problem(
    "loss-not-finite",
    Severity.ERROR,
    "the training diverged: lower --learning-rate by a factor of ten, increase --warmup-ratio, "
    "keep --max-grad-norm at 1, and look for weights or targets that are not finite.",
)
LOSS_RISING = Problem(
    "loss-rising",
    Severity.WARNING,
    "lower --learning-rate or increase --warmup-ratio. The model was better before the rise "
    "(--early-stopping keeps the best epoch).",
)
LOSS_NOT_FALLING = Problem(
    "loss-not-falling",
    Severity.WARNING,
    "the model learned almost nothing: raise --learning-rate or --epochs, check that the labels "
    "belong to their texts (doctor --data), or start from a model that was pruned more gently.",
)
LOSS_STILL_FALLING = Problem(
    "loss-still-falling",
    Severity.WARNING,
    "the training ended before the model had learned what it could: raise --learning-rate (up to "
    "5e-4 for small models) or --epochs, and leave --dropout at 0 for a small or sparse model.",
)
UNUSUAL_RATE = Problem(
    "unusual-learning-rate",
    Severity.WARNING,
    "usual rates are 2e-5 to 5e-5 for BERT-base and 5e-5 to 5e-4 for small models; choose one on "
    "rows held out from the training split.",
)
GRADIENT_SPIKES = Problem(
    "gradient-spikes",
    Severity.WARNING,
    "lower --learning-rate, increase --warmup-ratio, and keep --max-grad-norm at 1, which clips "
    "them.",
)
CHOSEN_ON_VALIDATION = Problem(
    "chosen-on-validation",
    Severity.NOTE,
    "the score flatters the model: report one on rows that were not used to choose anything, or "
    "train for a fixed number of epochs.",
)
CONSTANT_PREDICTIONS = Problem(
    "constant-predictions",
    Severity.ERROR,
    "the training collapsed: lower --learning-rate, increase --warmup-ratio, try another --seed, "
    "and check the labels (doctor --data).",
)
MAJORITY_SCORE = Problem(
    "majority-score",
    Severity.ERROR,
    "the model learned nothing: train longer or with another --learning-rate, try another --seed, "
    "and check the labels (doctor --data).",
)
NEAR_MAJORITY = Problem(
    "near-majority-score",
    Severity.WARNING,
    "on so few rows this may be chance: score several seeds, train longer, and look at F1 or "
    "Matthews' correlation.",
)

# What the notes of an evaluation say about constant predictions.
CONSTANT_NOTES = ("every row got the same label", "all predictions are the same")

Majorities = Mapping[str, tuple[str, int, int]]
"""For each split: its most frequent label, the count of that label and of all examples."""


def check_run(record: TrainingRecord, hidden_size: int | None) -> Iterator[Check]:
    """The checks of one run. The usual learning rates depend on ``hidden_size``."""
    where = record.path.parent
    losses = [point for point in record.history if point.loss is not None]
    values = [point.loss for point in losses if point.loss is not None]
    yield Check.of(
        GROUP,
        "loss",
        _curve(values),
        [_not_finite(where, losses), _shape(where, values)],
    )
    rate = record.number("learning_rate")
    optimizer = record.word("optimizer") or "adamw"
    seen = "none is recorded" if rate is None else f"{rate:g} ({optimizer})"
    yield Check.of(GROUP, "learning rate", seen, [_rate(where, rate, optimizer, hidden_size)])
    norms = [point for point in record.history if point.grad_norm is not None]
    yield Check.of(GROUP, "gradients", _norms(norms), [_spikes(where, record, norms)])
    patience = record.number("early_stopping") or 0
    finding = None
    if patience and record.trained_scores:
        finding = CHOSEN_ON_VALIDATION.at(
            where,
            f"the best epoch was chosen on {next(iter(record.trained_scores))}, which is also the "
            "split that is scored.",
        )
    seen = f"after {patience:g} epochs without a better score" if patience else "not used"
    yield Check.of(GROUP, "early stopping", seen, [finding])


def _curve(losses: Sequence[float]) -> str:
    if len(losses) < _FEWEST_POINTS:
        return f"{plural(len(losses), 'point')}: too few to judge"
    means = _fifths(losses)
    return (
        f"{len(losses)} points, mean {means[0]:.3g} in the first fifth and {means[-1]:.3g} in the "
        "last"
    )


def _fifths(values: Sequence[float]) -> list[float]:
    cuts = [len(values) * part // _PARTS for part in range(_PARTS + 1)]
    return [sum(values[start:stop]) / (stop - start) for start, stop in pairwise(cuts)]


def _not_finite(where: object, losses: Sequence[Point]) -> Finding | None:
    wrong = [point for point in losses if not math.isfinite(point.loss or 0.0)]
    if not wrong:
        return None
    return LOSS_NOT_FINITE.at(
        where,
        f"the loss is not finite at {share(len(wrong), len(losses))} logged steps, the first of "
        f"them {wrong[0].step:,}.",
        count=len(wrong),
        total=len(losses),
        examples=(f"step {point.step:,}: {point.loss}" for point in wrong),
    )


def _shape(where: object, losses: Sequence[float]) -> Finding | None:
    if len(losses) < _FEWEST_POINTS or not all(map(math.isfinite, losses)):
        return None
    means = _fifths(losses)
    said = f"its mean in each fifth of the run is {', '.join(f'{mean:.3g}' for mean in means)}"
    if means[-1] > min(means) + _RISE * means[0]:
        return LOSS_RISING.at(where, f"the loss rises towards the end: {said}.")
    if means[-1] > _FALL * means[0]:
        return LOSS_NOT_FALLING.at(where, f"the loss hardly falls: {said}.")
    if means[-1] > _LEFT * means[0] and means[-2] - means[-1] > _STILL * (means[0] - means[-1]):
        return LOSS_STILL_FALLING.at(
            where, f"the loss is still high, and was falling when the run ended: {said}."
        )
    return None


def _rate(
    where: object, rate: float | None, optimizer: str, hidden_size: int | None
) -> Finding | None:
    if rate is None or optimizer not in _RATES:
        return None
    low, high = _RATES[optimizer]
    of = ""
    if optimizer == "adamw" and hidden_size is not None and hidden_size >= _WIDE:
        high, of = _WIDE_LIMIT, f" for a model of width {hidden_size}"
    if low <= rate <= high:
        return None
    return UNUSUAL_RATE.at(
        where,
        f"the learning rate {rate:g} is outside the usual range for {optimizer}{of}, {low:g} to "
        f"{high:g}.",
    )


def _norms(points: Sequence[Point]) -> str:
    norms = [point.grad_norm for point in points if point.grad_norm is not None]
    if not norms:
        return "no norms are recorded"
    return f"{len(norms)} norms, median {statistics.median(norms):.3g}, largest {max(norms):.3g}"


def _spikes(where: object, record: TrainingRecord, points: Sequence[Point]) -> Finding | None:
    """Norms far above the median after the warm-up; a few are harmless if they are clipped."""
    warm = record.steps * (record.number("warmup_ratio") or 0.0)
    norms = {point.step: point.grad_norm or 0.0 for point in points if point.step > warm}
    if len(norms) < _FEWEST_POINTS:
        return None
    limit = _SPIKE * statistics.median(norms.values())
    spikes = {step: norm for step, norm in norms.items() if not norm <= limit}
    clipped = (record.number("max_grad_norm") or 0.0) > 0
    if not spikes or (clipped and len(spikes) < _SPIKES * len(norms)):
        return None
    return GRADIENT_SPIKES.at(
        where,
        f"{share(len(spikes), len(norms))} logged gradient norms are more than ten times the "
        f"median{'' if clipped else ', and none was clipped'}.",
        count=len(spikes),
        total=len(norms),
        examples=(f"step {step:,}: {norm:.3g}" for step, norm in spikes.items()),
    )


def check_scores(record: TrainingRecord, majorities: Majorities | None) -> Iterator[Check]:
    """Whether the model scores better than always predicting one class.

    ``majorities`` is None if no data was given.
    """
    if not record.scores:
        reason = (
            "not scored since it was packed or pruned: use `sparsebert evaluate --save`"
            if record.trained_scores
            else "the model was not scored: there was no validation split"
        )
        yield Check.skip(GROUP, "scores", reason)
        return
    findings = [_constant(record)]
    largest = majorities or {}
    findings += [
        _majority(record, split, metrics["accuracy"], largest[split])
        for split, metrics in record.scores.items()
        if "accuracy" in metrics and split in largest
    ]
    seen = "; ".join(
        f"{split} {', '.join(f'{name} {score:.1f}' for name, score in metrics.items())}"
        for split, metrics in record.scores.items()
    )
    known = ", ".join(
        f"{100 * count / total:.1f} by always answering '{label}'"
        for split, (label, count, total) in largest.items()
        if split in record.scores
    )
    classes = majorities is None and any("accuracy" in each for each in record.scores.values())
    hint = " (pass --data to compare with the largest class)" if classes else ""
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
    """Accuracy within two standard errors of the majority class's share may be chance."""
    label, count, total = majority
    if record.rows.get(split, total) != total or not total:  # scored on different rows
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
            f"{said}: on {total:,} rows, that may be chance "
            f"(2 standard errors are {200 * error:.1f}).",
        )
    return None
