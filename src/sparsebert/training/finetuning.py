"""`finetune`: a dense or sparse checkpoint to a task, with every zero locked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import open_checkpoint, resolve_model, staged_folder
from sparsebert.progress import Progress, silent
from sparsebert.tasks.extras import need_extra
from sparsebert.training.options import FinetuneOptions

if TYPE_CHECKING:
    from sparsebert.training.result import FinetuneResult


def finetune(
    model: str | Path,
    out: str | Path,
    *,
    task: str,
    data: str | Path | None = None,
    seed: int = 1,
    epochs: float = 3,
    learning_rate: float = 5e-5,
    batch_size: int = 32,
    max_length: int | None = None,
    warmup_ratio: float = 0.06,
    weight_decay: float = 0.01,
    max_rows: int | None = None,
    optimizer: str = "adamw",
    gradient_accumulation: int = 1,
    max_grad_norm: float = 1.0,
    early_stopping: int = 0,
    resume: bool = False,
    dropout: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Fine-tune ``model`` (a dense or sparse folder or hub id) on ``task`` and write ``out``.

    Weights that are zero under the model's masks are exactly 0.0 in the result, whatever the
    optimiser; everything else trains. A model without a head for the task gets a fresh one, seeded;
    one that was fine-tuned on the same labels goes on with its own.

    ``data`` is a folder with train and validation files, a single file (all of it training data),
    or None for the hub. ``max_length`` in tokens defaults to the task's (128; 384 for SQuAD).
    ``max_rows`` trains on a fixed selection that is the same for every seed; validation is always
    whole. ``max_grad_norm`` 0 turns clipping off; ``dropout`` overrides the model's rates for this
    run. With ``early_stopping`` above 0 the validation split is scored after each epoch, training
    ends after that many epochs without a better main metric, and the best epoch's model is kept:
    it is then chosen on the very split it is scored on, which flatters the score.

    Checkpoints go to ``OUT.training`` beside ``out``, at every epoch's end, every ten minutes,
    and on Ctrl-C; ``resume`` goes on from the last one (and starts anew if there is none). The
    folder is removed on success. When memory runs out the batch is halved and accumulated twice as
    often. The same seed on the same machine gives the same weights on a CPU, resumed or not.

    Raises DataError, CheckpointError, PatternError (the masks of ``model`` do not hold),
    OutputError and TrainingError; KeyboardInterrupt on Ctrl-C, once everything is saved.
    """
    need_extra("fine-tuning", "torch", "transformers", "accelerate", "pyarrow", "sklearn", "scipy")
    options = FinetuneOptions(
        seed=seed,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_rows=max_rows,
        optimizer=optimizer,
        gradient_accumulation=gradient_accumulation,
        max_grad_norm=max_grad_norm,
        early_stopping=early_stopping,
        dropout=dropout,
    )
    from sparsebert.training.job import prepare_job
    from sparsebert.training.run import run_job
    from sparsebert.training.saving import save_result
    from sparsebert.training.work_folder import WorkFolder

    report = progress or silent
    target = Path(out)
    with staged_folder(target, force=force, source=resolve_model(model)) as staging:
        checkpoint = open_checkpoint(model)
        job = prepare_job(checkpoint, task, data, options, report)
        arguments: dict[str, Any] = {
            "task": job.task.name,
            "data": job.task.hub_id if data is None else Path(data).name,
            **options.as_dict(),
        }
        work = WorkFolder.open(
            target,
            {**arguments, "model": _place(model), "data": _place(data), "rows": job.examples},
            with_masks=bool(job.masks),
            resume=resume,
        )
        with work.tidied_on_failure():
            outcome = run_job(job, work, report)
        result = save_result(
            staging, job, outcome, model=str(model), out=str(target), arguments=arguments
        )
    work.remove()
    return result


def _place(path: str | Path | None) -> str | None:
    """A folder by its full path, whatever it was called from; anything else as it is."""
    if path is None or not Path(path).exists():
        return None if path is None else str(path)
    return str(Path(path).resolve())
