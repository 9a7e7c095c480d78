"""Train a one-shot pruned encoder against its dense self: model, teacher and Trainer."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from sparsebert.checkpoint import Checkpoint, Head, read_masks
from sparsebert.errors import TrainingError
from sparsebert.progress import Progress
from sparsebert.torch_models import canonical_parameters
from sparsebert.training.batches import BatchPlan
from sparsebert.training.callbacks import (
    CheckpointCallback,
    FiniteLossCallback,
    ProgressCallback,
    StopRequest,
)
from sparsebert.training.cpu import choose_attention, resolve_precision
from sparsebert.training.distributed import check_shardable, is_sharded, whole_state
from sparsebert.training.embeddings import hold_embeddings
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.run import Trained, train, until_it_fits
from sparsebert.training.task_model import build_model
from sparsebert.training.trainer import ObjectiveTrainer, training_arguments
from sparsebert.training.upstream.corpus import CorpusRows
from sparsebert.training.upstream.objective import UpstreamObjective
from sparsebert.training.upstream.options import UpstreamOptions
from sparsebert.training.work_folder import WorkFolder


@dataclass(frozen=True)
class UpstreamOutcome:
    """A finished run; ``precision`` is what "auto" came to."""

    model: PreTrainedModel
    plan: BatchPlan
    precision: str
    trained: Trained


def run_upstream(
    student: Checkpoint,
    teacher: Checkpoint,
    rows: CorpusRows,
    options: UpstreamOptions,
    work: WorkFolder,
    progress: Progress,
) -> tuple[UpstreamOutcome, list[str]]:
    """Train ``student`` with its masks locked; also gives notes on what did not go as asked.

    Checkpoints go to ``work``, and the newest of them is where it begins. Raises TrainingError if
    memory does not suffice for a single row, if the loss diverges or if the masks do not hold, and
    KeyboardInterrupt, with a message on how to resume, on Ctrl-C.
    """

    def attempt(plan: BatchPlan, stop: StopRequest) -> UpstreamOutcome:
        return _attempt(student, teacher, rows, options, plan, work, stop, progress)

    return until_it_fits(attempt, BatchPlan(options.batch_size, 1), work, options.max_length)


def encoder_model(checkpoint: Checkpoint, seed: int) -> PreTrainedModel:
    """The checkpoint's encoder, with its masked-LM head if it has one, in fp32 without dropout."""
    family = checkpoint.config.family
    head = Head.MASKED_LM if checkpoint.config.head is Head.MASKED_LM else Head.ENCODER
    kinds = {"architectures": [family.architecture(head)], "model_type": family.model_type}
    raw = {**checkpoint.config.raw, **kinds}
    model = build_model(checkpoint, raw, keep_head=True, dropout=0.0, seed=seed)
    return model


def _attempt(
    student: Checkpoint,
    teacher: Checkpoint,
    rows: CorpusRows,
    options: UpstreamOptions,
    plan: BatchPlan,
    work: WorkFolder,
    stop: StopRequest,
    progress: Progress,
) -> UpstreamOutcome:
    model = encoder_model(student, options.seed)
    choose_attention(model, rows.rows.lengths)
    dense = encoder_model(teacher, options.seed)
    choose_attention(dense, rows.rows.lengths)
    names = canonical_parameters(model)
    masks = {name: mask for name, mask in read_masks(student).items() if name in names}
    precision = resolve_precision(options.precision)
    with ExitStack() as held:
        hold = hold_embeddings(options.embeddings, rows.rows.ids)
        if hold is not None:
            held.callback(hold.detach)
            hold.attach(model)
        trainer = ObjectiveTrainer(
            model=model,
            args=training_arguments(options, plan, work.path, len(rows), schedule=options.schedule),
            rows=rows,
            objective=UpstreamObjective(dense, options, teacher.pooling),
            precision=precision,
            callbacks=[
                ProgressCallback(progress, "distilling"),
                CheckpointCallback(stop),
                FiniteLossCallback(),
                LockedMasksCallback(LockedMasks(masks)),
                _Epochs(rows),
            ],
        )
        if trainer.is_fsdp_enabled:
            check_shardable(options)
            if student.config.head is Head.MASKED_LM:
                raise TrainingError(
                    f"{student.source} has a masked-LM head, through which upstream training sends "
                    "some tokens alone: that cannot be used with FSDP: use torchrun alone."
                )
        trained = train(trainer, plan, work, stop)
        if is_sharded(trainer.model):
            state = whole_state(trainer.model)
            model = encoder_model(student, options.seed)
            model.load_state_dict(state)
    return UpstreamOutcome(model, plan, precision, trained)


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the rows which epoch begins, also in a resumed run."""

    def __init__(self, rows: CorpusRows) -> None:
        self._rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rows.set_epoch(int(state.epoch or 0))
