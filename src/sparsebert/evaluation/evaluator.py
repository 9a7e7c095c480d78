"""`evaluate`: a model's scores on a task, by our engine or by torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import open_checkpoint, resolve_model, transformer_folder
from sparsebert.checkpoint.config import EncoderConfig, Head
from sparsebert.errors import CheckpointError, DataError, EngineError
from sparsebert.evaluation.predictors import EnginePredictor, Predictor, TorchPredictor
from sparsebert.evaluation.result import Evaluation
from sparsebert.evaluation.scoring import PreparedSplit
from sparsebert.packing import is_packed
from sparsebert.progress import Progress, silent
from sparsebert.tasks.custom import custom_task
from sparsebert.tasks.examples import load_split, validation_splits
from sparsebert.tasks.extras import need_extra
from sparsebert.tasks.labels import label_order
from sparsebert.tasks.table import CUSTOM, Kind, Task, get_task
from sparsebert.tasks.tokens import load_tokenizer

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
    max_rows: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a fine-tuned model on a task's validation split, or splits (MNLI has two).

    ``model`` is a dense, sparse or packed folder or a hub id; ``data`` a folder, a single file (it
    is taken for the validation split), or None to fetch the task from the hub. ``engine`` is
    ``sparsebert`` (``auto`` means it) or ``torch``; packed folders need ours. ``max_length`` in
    tokens defaults to the task's (128; 384 for SQuAD). ``max_rows`` scores a fixed selection of
    each split. Raises CheckpointError for a model without the task's head, DataError for data that
    cannot be used.
    """
    need_extra("evaluation", "pyarrow", "transformers", "sklearn", "scipy")
    report = progress or silent
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
    if is_packed(folder) and engine == "torch":
        raise EngineError(
            f"{model} is packed, which torch cannot read: unpack it, or use our engine."
        )
    config, predictor, used = _open(folder, engine, batch_size, threads)
    chosen = _task_for(task, data, config, str(model))
    order, notes = match_labels(chosen, config, str(model))
    splits = validation_splits(chosen, data)
    if not splits:
        raise DataError(f"{data} holds no file for the split {chosen.validation_splits[0]}.")
    tokenizer = load_tokenizer(transformer_folder(folder))
    length = token_limit(chosen, config, max_length)
    prepared = [
        PreparedSplit.make(
            load_split(chosen, data, split, max_rows=max_rows), tokenizer, length, report
        )
        for split in splits
    ]
    scores: dict[str, dict[str, float]] = {}
    started = time.perf_counter()
    with torch_threads(threads) if predictor.name == "torch" else nullcontext():
        for each in prepared:
            found = each.score(predictor, order, report)
            scores[each.examples.split] = found.values
            notes += [f"{each.examples.split}: {note}" for note in found.notes]
    return Evaluation(
        model=str(model),
        task=chosen.name,
        title=chosen.title,
        engine=predictor.name,
        scores=scores,
        rows={each.examples.split: len(each.examples) for each in prepared},
        seconds=time.perf_counter() - started,
        threads=used,
        notes=notes,
    )


def _open(
    folder: Path, engine: str, batch_size: int, threads: int | None
) -> tuple[EncoderConfig, Predictor, int]:
    if engine == "torch":
        need_extra("evaluation on torch", "torch", "transformers")
        import torch

        checkpoint = open_checkpoint(folder)
        config = checkpoint.config
        require_head(config, str(folder), (Head.SEQUENCE, Head.QUESTION))
        predictor = TorchPredictor.load(checkpoint.transformer, config.head, batch_size)
        return config, predictor, threads or torch.get_num_threads()
    from sparsebert.inference import load

    model = load(folder, threads=threads)
    return model.config, EnginePredictor(model, batch_size), model.threads


def require_head(config: EncoderConfig, model: str, heads: tuple[Head, ...]) -> None:
    """CheckpointError unless the model has one of these heads."""
    if config.head not in heads:
        wanted = " or ".join(head.value for head in heads)
        raise CheckpointError(
            f"{model} has no {wanted} head (its head is: {config.head.value}): fine-tune it on the "
            "task first."
        )


def _task_for(name: str, data: str | Path | None, config: EncoderConfig, model: str) -> Task:
    if name.lower() != CUSTOM:
        return get_task(name)
    require_head(config, model, (Head.SEQUENCE,))
    labels = () if config.problem_type == "regression" else config.labels
    return custom_task(data, split="validation", labels=labels)


def match_labels(
    task: Task, config: EncoderConfig, model: str
) -> tuple[npt.NDArray[np.int64] | None, list[str]]:
    """Check that a model's head answers ``task``; where each label stands in it, and notes.

    Raises CheckpointError for a head of another kind, DataError if the number of labels differs.
    """
    require_head(config, model, (task.head,))
    if task.kind is Kind.QUESTION:
        return None, []
    if config.problem_type == "multi_label_classification":
        raise CheckpointError(f"{model} is a multi-label model, which no task here scores.")
    regression = config.problem_type == "regression"
    if task.kind is Kind.REGRESSION:
        if not regression or len(config.labels) != 1:
            raise CheckpointError(
                f"{model} tells {len(config.labels)} classes apart and {task.name} asks for a "
                "number: fine-tune it on the task first."
            )
        return None, []
    if regression:
        raise CheckpointError(
            f"{model} gives a number and {task.name} asks for a class: fine-tune it on the task "
            "first."
        )
    order, note = label_order(task, config.labels)
    return order, [note] if note else []


def token_limit(task: Task, config: EncoderConfig, max_length: int | None) -> int:
    """Tokens in a row: as asked or the task's own, never more than the model has positions."""
    return min(max_length or task.max_length, config.max_position_embeddings)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Give torch this many threads inside (its own choice for None)."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
