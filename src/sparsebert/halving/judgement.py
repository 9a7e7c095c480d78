"""What a halved model keeps: its score compared with the dense model's, or how far the two agree.

Both run on the engine: the dense model in fp32, the halved one packed to int8, as it is served.
`sparsebert.halving.comparison` compares the two row by row, and
`sparsebert.halving.embedding_judgement` compares embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import Head, resolve_model
from sparsebert.checkpoint.score_function import read_number_function
from sparsebert.evaluation.evaluator import match_labels, task_of_model
from sparsebert.evaluation.predictors import EnginePredictor
from sparsebert.evaluation.results import main_score
from sparsebert.evaluation.scored_rows import example_length, scored_examples, trained_options
from sparsebert.evaluation.scoring import Judged, PreparedSplit
from sparsebert.halving.comparison import (
    Changed,
    bootstrap,
    changed_answers,
    compared,
)
from sparsebert.halving.label_comparison import (
    changed_labels,
    changed_rows,
    changed_tokens,
    f1_interval,
    label_counts,
    shared_labels,
)
from sparsebert.halving.subject import Subject
from sparsebert.inference import Model, load
from sparsebert.progress import Progress
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind
from sparsebert.tasks.texts import Text, single_texts, texts_of
from sparsebert.tasks.tokens import load_tokenizer

# Points. One wrong label, or one wrong span, may take another's place at no cost to a score.
OF_SCORE = 0.5
_OF_ANSWERS, _OF_SPANS = 5.0, 20.0
SHOWN = 12  # of the texts that changed most


@dataclass(frozen=True)
class Judgement:
    """What was kept.

    ``metric`` is what is compared, in percent: ``dense`` and ``halved`` are the two models' values,
    and ``drop`` is their difference in points. ``interval`` is the 95 % bootstrap interval of
    ``halved`` minus ``dense`` over the ``rows``. If the answers are compared with the dense model's
    own (``agreement``), ``dense`` is 100. ``allowed`` is how many points may be lost by default.
    ``more`` are further figures by name.
    """

    metric: str
    agreement: bool
    dense: float
    halved: float
    rows: int
    allowed: float
    interval: tuple[float, float] | None = None
    more: dict[str, float] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)

    @property
    def drop(self) -> float:
        """Points lost; negative where the halved model is better."""
        return self.dense - self.halved

    @property
    def kept(self) -> float:
        """The halved model's score in percent of the dense one's."""
        return 100 * self.halved / self.dense if self.dense else 100.0

    @property
    def span(self) -> str:
        """The interval in words: of the agreement, or of the difference."""
        if self.interval is None:
            return ""
        low, high = self.interval
        if self.agreement:
            return f"{self.dense + low:.1f} to {self.dense + high:.1f}"
        return f"{low:+.1f} to {high:+.1f}"

    def sentence(self) -> str:
        """One line for people."""
        if self.agreement:
            span = f"{self.span}; " if self.span else ""
            return (
                f"{self.metric}: {self.halved:.1f} % with the dense model "
                f"({span}{self.rows:,} texts)"
            )
        span = f", {self.span}" if self.span else ""
        return (
            f"{self.metric}: {self.halved:.1f}, dense {self.dense:.1f} "
            f"(kept {self.kept:.1f} %; difference {-self.drop:+.1f}{span}; {self.rows:,} rows)"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**asdict(self), "drop": self.drop, "kept": self.kept}


@dataclass(frozen=True)
class _Scored:
    """One model on all validation splits: their scores, and what it said on the first one."""

    model: Model
    examples: Examples
    logits: Any
    judged: Judged
    scores: dict[str, dict[str, float]]


def judge_task(
    subject: Subject,
    task: str,
    data: Any,
    dense: Any,
    halved: Any,
    *,
    columns: DataOptions,
    threads: int | None,
    progress: Progress,
) -> Judgement:
    """Score both models on the validation split of ``data``, read with ``columns``.

    If there are several splits, all but the first are further figures.
    """
    if columns.threshold is None:  # the one that the dense model was trained with
        known = trained_options(resolve_model(dense), task, columns).threshold
        columns = replace(columns, threshold=known)
    both = [_score(model, task, data, columns, threads, progress) for model in (dense, halved)]
    first, examples = both[0], both[0].examples
    mine, other = (each.judged for each in both)
    values = [main_score(each.examples.task, each.scores) for each in both]
    metric, kind = examples.task.main_metric, examples.task.kind
    unscored = _OF_SPANS if kind is Kind.QUESTION else _OF_ANSWERS
    interval: tuple[float, float] | None
    if kind in (Kind.TOKENS, Kind.LABEL_SETS):
        interval = f1_interval(mine, other, examples.task)
        changed = changed_rows(examples, mine, other)
    else:
        rows = compared(examples, (mine, other), [each.logits for each in both])
        interval = rows.interval()
        changed = changed_answers(rows, texts_of(examples), first.model.config.labels)
    return Judgement(
        "agreement" if not subject.labelled and metric == "accuracy" else metric,
        not subject.labelled,
        values[0],
        values[1],
        len(examples),
        OF_SCORE if subject.labelled else unscored,
        interval,
        {
            f"{split}, {name}, {which}": score
            for which, each in zip(("dense", "halved"), both, strict=True)
            for split, metrics in each.scores.items()
            for name, score in metrics.items()
        },
        changed[:SHOWN],
    )


def _score(
    folder: Any,
    name: str,
    data: Any,
    columns: DataOptions,
    threads: int | None,
    progress: Progress,
) -> _Scored:
    """Score a model as `evaluate` does."""
    model = load(folder, threads=threads)
    task = task_of_model(str(folder), model.config, name, data, columns=columns)
    order, _ = match_labels(task, model.config, str(folder))
    tokenizer = load_tokenizer(model.path)
    length = example_length(task, model.config, model.max_length)
    function = read_number_function(model.path, model.config)
    splits = [
        PreparedSplit.make(examples, tokenizer, length, progress, function=function)
        for examples in scored_examples(model.path, task, data, None)
    ]
    predictor = EnginePredictor(model, 32)
    logits = [split.logits(predictor, progress) for split in splits]
    judged = [split.judge(found, order) for split, found in zip(splits, logits, strict=True)]
    scores = {
        split.examples.split: found.scores.values
        for split, found in zip(splits, judged, strict=True)
    }
    return _Scored(model, splits[0].examples, logits[0], judged[0], scores)


def judge_labels(
    held: Sequence[Text],
    dense: str | Path,
    halved: str | Path,
    *,
    threads: int | None,
    progress: Progress,
) -> Judgement:
    """Compare the labels that both models give to the ``held`` texts, or to their tokens.

    The figure that counts is the F1 of the halved model's labels against the dense one's, over all
    texts. Of several labels, a text has those that are likelier than not; of the tokens' labels,
    "O", which most tokens have, does not count.
    """
    texts = single_texts(held)
    models = [load(model, threads=threads) for model in (dense, halved)]
    progress("comparing labels", 0, 2)
    logits = []
    for place, model in enumerate(models):
        logits.append(model.logits(texts))
        progress("comparing labels", place + 1, 2)
    tokens = models[0].config.head is Head.TOKEN
    labels = models[0].config.labels
    outside = labels.index("O") if tokens and "O" in labels else None
    counts = label_counts(*logits, tokens=tokens, outside=outside)
    score = shared_labels(counts.sum(axis=0))
    interval = bootstrap(len(counts), lambda rows: shared_labels(counts[rows].sum(axis=0)) - 100)
    if tokens:
        found = [model.tag(texts) for model in models]
        changed = changed_tokens(texts, *found)
    else:
        changed = changed_labels(texts, logits[0], logits[1], labels)
    metric = "F1 of the tokens' labels" if tokens else "F1 of the labels"
    shared, given, others = (float(count) for count in counts.sum(axis=0))
    more = {"labels of the dense model": given, "of the halved one": others, "of both": shared}
    return Judgement(
        f"{metric}, agreement",
        True,
        100.0,
        score,
        len(texts),
        _OF_ANSWERS,
        interval,
        more,
        changed[:SHOWN],
    )
