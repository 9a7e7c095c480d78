"""`evaluate`: a model's scores on a task, with our engine or with torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import open_checkpoint, read_prompts, resolve_model
from sparsebert.checkpoint.config import EncoderConfig, Head
from sparsebert.checkpoint.embedding_kinds import (
    EmbeddingKind,
    embedding_kinds,
    kind_without_dense,
)
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.checkpoint.score_function import read_number_function
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.errors import CheckpointError, DataError, EngineError
from sparsebert.evaluation.embedding_scores import (
    Embed,
    embedding_scores,
    find_documents_by_engine,
    search_scores,
)
from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.evaluation.predictors import EnginePredictor, Predictor, TorchPredictor
from sparsebert.evaluation.results import Evaluation
from sparsebert.evaluation.scored_rows import (
    check_positions,
    example_length,
    scored_examples,
    text_limit,
    trained_options,
)
from sparsebert.evaluation.scoring import PreparedSplit, f1_note
from sparsebert.evaluation.torch_embedding import TorchEmbedder
from sparsebert.evaluation.user_metric import Metric, UserMetric, user_metric
from sparsebert.extras import need_extra
from sparsebert.inference import load
from sparsebert.packing import is_packed
from sparsebert.progress import Progress, shown
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.files import undivided_file
from sparsebert.tasks.labels import label_order
from sparsebert.tasks.own import find_task, own_task, unread_task
from sparsebert.tasks.table import CUSTOM, RETRIEVAL, Kind, Task, is_own
from sparsebert.tasks.tokens import load_tokenizer

if TYPE_CHECKING:
    from sparsebert.inference import Model

ENGINES = ("auto", "sparsebert", "torch")


def evaluate(
    model: str | Path,
    *,
    task: str,
    data: str | Path | None = None,
    engine: str = "auto",
    batch_size: int = 32,
    max_length: int | None = None,
    threads: int | None = None,
    compute: str | None = None,
    max_rows: int | None = None,
    zero_shot: bool = False,
    split: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    label_columns: str | None = None,
    threshold: float | None = None,
    label_names: str | None = None,
    positive_label: str | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a fine-tuned model on a task's validation split, or splits (MNLI has two).

    ``model`` is a dense, sparse or packed folder or a hub id. ``data`` is a folder, a single file
    (which is taken as the validation split), or None to fetch the task from the hub; of a file that
    the model was trained on, only the rows that were held out are scored, and if none were, a note
    says so. ``split`` names another split to score, such as "train", for choices that should not be
    made on the validation split.
    ``max_rows`` scores a fixed selection of each split.

    ``engine`` is "sparsebert" ("auto" means the same) or "torch", which cannot read packed folders.
    ``max_length``, in tokens, defaults to the length at which the model truncates texts when
    served; for a model made by `finetune`, that is the length it was trained with. ``compute`` is
    as in `sparsebert.load`.

    The names of columns, ``label_names``, ``threshold`` and ``positive_label`` (the class of a
    custom task for which F1 is computed) are as in `sparsebert.tasks.data_options.DataOptions`, and
    default to those used in training.

    ``zero_shot`` correlates the cosine of two texts' embeddings with the label, for any model and
    tasks such as stsb; the tasks pairs and retrieval always score embeddings
    (`sparsebert.evaluation.embedding_scores`). ``metric`` is a function of your own,
    ``metric(expected, predicted)``, whose value is added to the scores under its name
    (`sparsebert.evaluation.user_metric`).

    Raises CheckpointError for a model without the task's head, DataError for data that cannot be
    used or a ``max_length`` beyond the model's positions, and EngineError for an engine that cannot
    run the model as requested.
    """
    need_extra("evaluation", "pyarrow", "transformers", "sklearn", "scipy")
    report = shown(progress)
    if engine not in ENGINES:
        raise EngineError(f"'{engine}' is not an engine: choose {', '.join(ENGINES)}.")
    for name, count, least in (
        ("batch_size", batch_size, 1),
        ("threads", threads, 1),
        ("max_length", max_length, 8),
    ):
        if count is not None and count < least:
            raise DataError(f"{name} must be at least {least}, not {count}.")
    folder = resolve_model(model)
    if engine == "torch":
        need_extra("evaluation on torch", "torch", "transformers")
    if is_packed(folder) and engine == "torch":
        raise EngineError(
            f"{model} is packed, which torch cannot read: unpack it, or use the engine sparsebert."
        )
    if compute and engine == "torch":
        raise EngineError(
            "compute is for the engine sparsebert; with the engine torch, evaluation is in fp32."
        )
    columns = DataOptions(
        text_column,
        pair_column,
        label_column,
        label_columns,
        threshold,
        label_names,
        positive_label=positive_label,
    )
    if not zero_shot:
        columns = trained_options(folder, task, columns)
    options = _Options(
        str(model),
        folder,
        engine,
        batch_size,
        max_length,
        threads,
        compute,
        max_rows,
        columns,
        metric,
    )
    embeds = zero_shot or unread_task(task).embeds
    ready = (_embeddings if embeds else _with_head)(options, task, data, split, report)
    scores: dict[str, dict[str, float]] = {}
    by_class: dict[str, ByClass] = {}
    notes = [*ready.notes, *(note for examples, _ in ready.splits for note in examples.notes)]
    started = time.perf_counter()
    with torch_threads(threads) if ready.engine == "torch" else nullcontext():
        for examples, score in ready.splits:
            found = score()
            scores[examples.split] = found.values
            if found.by_class:
                by_class[examples.split] = found.by_class
            notes += [f"{examples.split}: {note}" for note in found.notes]
    return Evaluation(
        model=str(model),
        task=ready.task.name,
        title=ready.title,
        engine=ready.engine,
        scores=scores,
        rows={examples.split: len(examples) for examples, _ in ready.splits},
        seconds=time.perf_counter() - started,
        threads=ready.threads,
        notes=notes,
        by_class=by_class,
    )


@dataclass(frozen=True)
class _Options:
    model: str
    folder: Path
    engine: str
    batch_size: int
    max_length: int | None
    threads: int | None
    compute: str | None
    max_rows: int | None
    columns: DataOptions
    metric: Metric | None


@dataclass(frozen=True)
class _Ready:
    """A loaded model and its data: each split with the function that scores it."""

    task: Task
    title: str
    engine: str
    threads: int
    splits: Sequence[tuple[Examples, Callable[[], Scores]]]
    notes: list[str]


def _with_head(
    options: _Options, name: str, data: str | Path | None, split: str | None, report: Progress
) -> _Ready:
    config, predictor, used, limit = _open(options)
    task = task_of_model(options.model, config, name, data, split, options.columns)
    order, notes = match_labels(task, config, options.model)
    metric = user_metric(options.metric, task.metrics)
    tokenizer = load_tokenizer(options.folder)
    check_positions(options.max_length, config, options.model)
    length = options.max_length or example_length(task, config, limit)
    function = read_number_function(options.folder, config)
    prepared = [
        PreparedSplit.make(examples, tokenizer, length, report, metric=metric, function=function)
        for examples in scored_examples(options.folder, task, data, split, options.max_rows)
    ]
    for each in prepared:
        check_ids(options.model, config, each.rows.ids, each.rows.type_ids)
    return _Ready(
        task,
        task.title,
        predictor.name,
        used,
        [(each.examples, partial(each.score, predictor, order, report)) for each in prepared],
        [*notes, *f1_note(task)],
    )


def _embeddings(
    options: _Options, name: str, data: str | Path | None, split: str | None, report: Progress
) -> _Ready:
    columns = options.columns
    if name.lower() == CUSTOM:
        columns = replace(columns, regression=True)
    task = find_task(
        name, _scored_file(data, unread_task(name)), split=split or "validation", options=columns
    )
    check_embeds(task)
    metric = user_metric(options.metric, task.metrics)
    read = scored_examples(options.folder, task, data, split, options.max_rows)
    title = task.title if task.embeds else f"{task.title} zero-shot"
    if options.engine == "torch":
        import torch

        checkpoint = open_checkpoint(options.folder)
        check_positions(options.max_length, checkpoint.config, options.model)
        if embedding_kinds(checkpoint)[:1] in (("sparse",), ("tokens",)):
            raise EngineError(
                f"{options.model} is {kind_without_dense(checkpoint)}, which only the engine "
                "sparsebert can score: leave the engine out."
            )
        embed: Embed = TorchEmbedder.load(
            options.folder, batch_size=options.batch_size, max_length=options.max_length
        )
        engine, used = "torch", options.threads or torch.get_num_threads()
    else:
        model = load(
            options.folder,
            threads=options.threads,
            max_length=options.max_length,
            compute=options.compute,
        )
        check_positions(options.max_length, model.config, options.model)
        engine, used = "sparsebert", model.threads
        if model.embedding_kind != "dense":
            _check_searches(options, task, model.embedding_kind)
            scored = [(each, partial(_searched, each, model, options, metric)) for each in read]
            return _Ready(task, title, engine, used, scored, [])
        embed = partial(model.embed, batch_size=options.batch_size)
    similarity = read_similarity(options.folder) if task.kind is Kind.RETRIEVAL else "cosine"
    prompts = read_prompts(options.folder)
    splits = [
        (
            examples,
            partial(
                embedding_scores,
                examples,
                embed,
                prompts,
                similarity=similarity,
                metric=metric,
                progress=report,
            ),
        )
        for examples in read
    ]
    return _Ready(task, title, engine, used, splits, [])


def _check_searches(options: _Options, task: Task, kind: EmbeddingKind) -> None:
    """DataError for what cannot be scored with sparse embeddings or a vector for each token."""
    if task.kind is not Kind.RETRIEVAL:
        made = "sparse embeddings" if kind == "sparse" else "a vector for each token"
        raise DataError(
            f"{options.model} makes {made}, which can only be scored by searching documents: use "
            f"--task {RETRIEVAL}."
        )
    if kind == "tokens" and options.max_length is not None:
        raise DataError(
            f"the folder of {options.model} sets the lengths of queries and documents: leave "
            "max_length out."
        )


def _searched(
    examples: Examples, model: Model, options: _Options, metric: UserMetric | None
) -> Scores:
    """Scores of a search with sparse embeddings, or with a vector for each token."""
    found = find_documents_by_engine(
        examples, model, model.embedding_kind, batch_size=options.batch_size
    )
    return search_scores(examples, found, metric)


def check_embeds(task: Task) -> None:
    """DataError unless embeddings can be scored on the task's rows."""
    if not task.embeds and (task.kind is not Kind.REGRESSION or len(task.text_columns) != 2):
        raise DataError(
            f"zero-shot similarity needs pairs of texts with a number as their label, as in stsb; "
            f"{task.name} has none."
        )


def _open(options: _Options) -> tuple[EncoderConfig, Predictor, int, int]:
    """Config, predictor, threads, and the length in tokens at which the model truncates texts."""
    if options.engine == "torch":
        import torch

        checkpoint = open_checkpoint(options.folder)
        config = checkpoint.config
        require_head(config, str(options.folder), (Head.SEQUENCE, Head.TOKEN, Head.QUESTION))
        predictor = TorchPredictor.load(checkpoint.path, options.batch_size)
        used = options.threads or torch.get_num_threads()
        return config, predictor, used, text_limit(checkpoint)
    model = load(options.folder, threads=options.threads, compute=options.compute)
    predicting = EnginePredictor(model, options.batch_size)
    return model.config, predicting, model.threads, model.max_length


def require_head(config: EncoderConfig, model: str, heads: tuple[Head, ...]) -> None:
    """CheckpointError unless the model has one of these heads."""
    if config.head not in heads:
        wanted = " or ".join(head.value for head in heads)
        raise CheckpointError(
            f"{model} has no {wanted} head (its head is: {config.head.value}): fine-tune it on the "
            "task first."
        )


def task_of_model(
    model: str,
    config: EncoderConfig,
    name: str,
    data: str | Path | None,
    split: str | None = None,
    columns: DataOptions | None = None,
) -> Task:
    """The task of this name, with the labels of the model if the task is defined by ``data``.

    Raises CheckpointError for a model without the task's head, and DataError.
    """
    if not is_own(name):
        return find_task(name, data, options=columns)
    require_head(config, model, (unread_task(name).head,))
    labels = () if config.problem_type == "regression" else config.labels
    return own_task(
        name,
        _scored_file(data, unread_task(name)),
        split=split or "validation",
        labels=labels,
        options=columns,
    )


def _scored_file(data: str | Path | None, task: Task) -> str | Path | None:
    """The single file in ``data`` if that is not divided into splits; else ``data``."""
    return undivided_file(data, task.file_types) or data


def match_labels(
    task: Task, config: EncoderConfig, model: str
) -> tuple[npt.NDArray[np.int64] | None, list[str]]:
    """Check that a model's head fits ``task``; the index in the head of each task label, and notes.

    Raises CheckpointError for a head of another kind, and DataError for labels that do not match.
    """
    require_head(config, model, (task.head,))
    if task.kind is Kind.QUESTION:
        return None, []
    if task.kind is Kind.TOKENS:
        order, note = label_order(task, config.labels)
        return order, [note] if note else []
    several = config.problem_type == "multi_label_classification"
    if several is not (task.kind is Kind.LABEL_SETS):
        has, asks = ("several labels", "one") if several else ("one label", "several")
        raise CheckpointError(
            f"{model} gives a text {has}, but the rows have {asks}: fine-tune it on the task first."
        )
    regression = config.problem_type == "regression"
    if task.kind is Kind.REGRESSION:
        if not regression or len(config.labels) != 1:
            raise CheckpointError(
                f"{model} predicts one of {len(config.labels)} classes, but {task.name} needs a "
                "number: fine-tune it on the task first."
            )
        return None, []
    if regression:
        raise CheckpointError(
            f"{model} predicts a number, but {task.name} needs a class: fine-tune it on the task "
            "first."
        )
    order, note = label_order(task, config.labels)
    return order, [note] if note else []


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """A context in which torch uses this many threads; None leaves the number unchanged."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
