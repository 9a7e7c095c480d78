"""The result of fine-tuning, and its model as an ordinary Hugging Face folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import (
    WEIGHTS_NAME,
    TensorSpec,
    write_auxiliary_files,
    write_masks,
    write_tensors,
)
from sparsebert.checkpoint.bge_m3 import HEADS, head_file
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.json_files import write_json
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.checkpoint.pooling import write_mean_pooling
from sparsebert.checkpoint.sparsity import with_step
from sparsebert.evaluation.metrics import ByClass
from sparsebert.evaluation.results import cells, hub_results, scores_table, table_row
from sparsebert.extras import data_frame
from sparsebert.tasks.division import SPLIT_NAME
from sparsebert.training.recipe import write_recipe
from sparsebert.training.task_model import sparsity_record

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from sparsebert.training.job import Job
    from sparsebert.training.run import Outcome


def save_result(
    folder: Path,
    job: Job,
    outcome: Outcome,
    *,
    model: str,
    out: str,
    arguments: dict[str, Any],
    fingerprints: dict[str, str],
) -> FinetuneResult:
    """Write model, masks, tokenizer, card and training.json into an empty folder.

    ``arguments`` are the run's, as recorded in the lineage: without local paths.
    """
    result = FinetuneResult(
        model=model,
        out=out,
        task=job.task.name,
        title=job.task.title,
        rows=job.labelled,
        steps=outcome.trained.steps,
        resumed_from=outcome.trained.resumed_from,
        seconds=outcome.trained.seconds,
        examples_per_second=outcome.trained.examples_per_second,
        batch_size=outcome.plan.batch_size,
        gradient_accumulation=outcome.plan.accumulation,
        scores=outcome.scores,
        notes=outcome.notes,
        by_class=outcome.by_class,
    )
    _write_weights(folder, outcome.model)
    config = sparsity_record(job.config, job.checkpoint, outcome.masks, job.options)
    write_auxiliary_files(
        folder,
        with_step(config, "finetune", job.checkpoint.source, arguments),
        source=job.checkpoint.path,
        trained_length=job.options.max_length,
    )
    for name in HEADS:  # they do not fit the trained encoder
        (folder / head_file(name)).unlink(missing_ok=True)
    if job.task.embeds and job.checkpoint.pooling is None:
        write_mean_pooling(folder, job.checkpoint.config.hidden_size, job.options.max_length)
    if outcome.masks:
        write_masks(folder, outcome.masks)
    write_recipe(folder, job.options)
    if job.data.division is not None:
        job.data.division.write(folder)
    else:  # a division that came with the model may list rows that it was now trained on
        (folder / SPLIT_NAME).unlink(missing_ok=True)
    write_json(
        folder / TRAINING_NAME,
        {
            **_training_record(job, outcome, result),
            "arguments": arguments,
            "fingerprints": fingerprints,
        },
    )
    write_card(
        folder,
        source=job.checkpoint.path,
        results=_results(result, arguments),
        evaluations=hub_results(job.task, result.scores),
    )
    return result


def _write_weights(folder: Path, model: PreTrainedModel) -> None:
    state = model.state_dict()
    write_tensors(
        folder / WEIGHTS_NAME,
        [TensorSpec(name, "F32", tuple(tensor.shape)) for name, tensor in state.items()],
        (tensor.float().cpu().numpy() for tensor in state.values()),
        {"format": "pt"},  # without it, transformers expects another framework
    )


def _training_record(job: Job, outcome: Outcome, result: FinetuneResult) -> dict[str, Any]:
    return {
        "max_length": job.options.max_length,
        "batch_size": result.batch_size,
        "gradient_accumulation": result.gradient_accumulation,
        "processes": outcome.plan.processes,
        "rows": {
            "train": result.rows,
            **{each.examples.split: len(each.examples) for each in job.validation},
        },
        "training_files": job.data.files,
        "fresh_head": not (job.keep_head or job.task.embeds),
        "sparse_layers": len(outcome.masks),
        **progress_record(outcome),
        "scores": result.scores,
        "by_class": result.by_class,
        "scored_in": job.options.quantize or "fp32",
        "notes": result.notes,
        "versions": versions(),
    }


def progress_record(outcome: Outcome) -> dict[str, Any]:
    """What training.json records for every kind of training: precision, steps, time, losses."""
    trained = outcome.trained
    return {
        "precision": outcome.precision,
        "steps": trained.steps,
        "resumed_from_step": trained.resumed_from,
        "seconds": round(trained.seconds, 3),
        "examples_per_second": round(trained.examples_per_second, 3),
        "history": trained.history,
    }


def _results(result: FinetuneResult, arguments: dict[str, Any]) -> str:
    if not result.scores:
        return ""
    own = arguments.get("metric")  # the user's
    lines = ["| split | metric | percent |", "|---|---|---|"]
    for split, metrics in result.scores.items():
        lines += [
            f"| {split} | {name}{' (not percent)' if name == own else ''} | {value:.2f} |"
            for name, value in metrics.items()
        ]
    kept = (
        "\nThe best epoch was chosen on the first of these splits, which flatters its score."
        if arguments.get("early_stopping")
        else ""
    )
    quantized = (
        "\nTrained for int8: the scores are those of the model packed with `--dtype int8`, up to "
        "rounding."
        if arguments.get("quantize")
        else ""
    )
    trained = f"Trained on {result.rows} rows, seed {arguments['seed']}."
    return "\n".join(lines) + f"\n\n{trained}{quantized}{kept}"


@dataclass(frozen=True)
class FinetuneResult:
    """The result of `finetune`.

    ``scores`` maps each validation split to its metrics in percent, and is empty without a
    validation split. ``by_class`` has precision, recall and F1 of each class of a classification,
    by split. ``rows`` is the number of labelled training examples. ``seconds`` and
    ``examples_per_second`` are those of training in this call; ``batch_size`` and
    ``gradient_accumulation`` are what fitted into memory.
    """

    model: str
    out: str
    task: str
    title: str
    rows: int
    steps: int
    resumed_from: int
    seconds: float
    examples_per_second: float
    batch_size: int
    gradient_accumulation: int
    scores: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)
    by_class: dict[str, ByClass] = field(default_factory=dict)

    def row(self) -> str:
        """The task's row of the results table; empty without a validation split."""
        return table_row(self.title, self.scores) if self.scores else ""

    def as_dict(self) -> dict[str, Any]:
        """All fields and the `row` as a dict, ready for JSON."""
        return {**asdict(self), "row": self.row()}

    def to_pandas(self) -> pd.DataFrame:
        """One row per split and metric; needs [notebook]."""
        about = {"model": self.out, "task": self.task}
        return data_frame({**about, **cell} for cell in cells(self.scores))

    def _repr_markdown_(self) -> str:
        title = f"{self.title}, {self.out}: {self.rows:,} rows, {self.steps:,} steps"
        return scores_table(title, self.scores) if self.scores else title


def versions() -> dict[str, str]:
    """The versions of sparsebert, torch and transformers, by name."""
    import torch
    import transformers

    import sparsebert

    return {
        "sparsebert": sparsebert.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
