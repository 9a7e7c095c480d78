"""Train a one-shot pruned encoder against its dense self: model, teacher and Trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sparsebert.checkpoint import Checkpoint, Head, open_checkpoint, read_masks
from sparsebert.errors import TrainingError
from sparsebert.evaluation.quiet import quiet_transformers
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.training.batch_plan import BatchPlan, is_out_of_memory
from sparsebert.training.corpus_rows import CorpusRows
from sparsebert.training.interruption import StopRequest, stop_on_interrupt
from sparsebert.training.length_buckets import LengthBuckets
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.precision import autocast, resolve_precision
from sparsebert.training.run_callbacks import (
    CheckpointCallback,
    FiniteLossCallback,
    ProgressCallback,
)
from sparsebert.training.task_model import build_model
from sparsebert.training.upstream_objective import UpstreamObjective
from sparsebert.training.upstream_options import UpstreamOptions
from sparsebert.training.work_folder import WorkFolder

_LOSS_POINTS = 100


@dataclass(frozen=True)
class UpstreamOutcome:
    """A finished run; ``seconds`` and ``rows_seen`` are of this call, it began at step
    ``resumed_from``.
    """

    model: PreTrainedModel
    plan: BatchPlan
    precision: str
    steps: int
    resumed_from: int
    rows_seen: int
    seconds: float
    history: list[dict[str, float]]
    notes: list[str]


def run_upstream(
    student: Checkpoint,
    teacher: Checkpoint,
    rows: CorpusRows,
    options: UpstreamOptions,
    work: WorkFolder,
    progress: Progress,
) -> UpstreamOutcome:
    """Train ``student`` with its masks locked; checkpoints go to ``work``, whose newest it goes
    on from.

    Raises TrainingError if memory does not suffice for a single row, if the loss diverges or if the
    masks do not hold, and KeyboardInterrupt, with a message on how to resume, on Ctrl-C.
    """
    plan = work.kept_plan() or BatchPlan(options.batch_size, 1)
    masks = read_masks(student)
    notes: list[str] = []
    with quiet_transformers(), stop_on_interrupt() as stop:
        while True:
            try:
                outcome = _attempt(
                    student, teacher, masks, rows, options, plan, work, stop, progress
                )
                outcome.notes[:0] = notes
                return outcome
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = plan.halved()
                if smaller is None:
                    raise TrainingError(
                        "memory ran out even with one row at a time (max_length "
                        f"{options.max_length}): give a smaller max_length."
                    ) from error
            notes.append(
                f"memory ran out with batches of {plan.batch_size}: went on with batches of "
                f"{smaller.batch_size}, accumulated {smaller.accumulation} times."
            )
            plan = smaller
            work.keep_plan(plan)


def encoder_model(checkpoint: Checkpoint, seed: int) -> PreTrainedModel:
    """The checkpoint's encoder, with its masked-LM head if it has one, in fp32 without dropout."""
    kind = "BertForMaskedLM" if checkpoint.config.head is Head.MASKED_LM else "BertModel"
    raw = {**checkpoint.config.raw, "architectures": [kind], "model_type": "bert"}
    model = build_model(checkpoint, raw, keep_head=True, dropout=0.0, seed=seed)
    # On a CPU plain attention is the fastest on short rows, also in bfloat16.
    model.set_attn_implementation("eager")
    return model


def _attempt(
    student: Checkpoint,
    teacher: Checkpoint,
    masks: dict[str, BoolMatrix],
    rows: CorpusRows,
    options: UpstreamOptions,
    plan: BatchPlan,
    work: WorkFolder,
    stop: StopRequest,
    progress: Progress,
) -> UpstreamOutcome:
    model = encoder_model(student, options.seed)
    if options.embeddings == "frozen":
        model.get_input_embeddings().requires_grad_(False)
    precision = resolve_precision(options.precision)
    last = work.last_checkpoint()
    if last is not None:
        masks = read_masks(open_checkpoint(last))
    trainer = UpstreamTrainer(
        model,
        UpstreamObjective(encoder_model(teacher, options.seed), options, teacher.pooling),
        upstream_arguments(options, plan, work.path, len(rows)),
        rows,
        precision=precision,
        callbacks=[
            ProgressCallback(progress, "distilling"),
            CheckpointCallback(stop),
            FiniteLossCallback(),
            LockedMasksCallback(LockedMasks(masks)),
        ],
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - started
    state = trainer.state
    if stop.asked:
        raise KeyboardInterrupt(
            f"stopped after step {state.global_step} of {state.max_steps}; everything is kept in "
            f"{work.path}: the same command with --resume (resume=True) goes on from there."
        )
    begun = int(last.name.rpartition("-")[2]) if last else 0
    return UpstreamOutcome(
        model=model,
        plan=plan,
        precision=precision,
        steps=state.global_step,
        resumed_from=begun,
        rows_seen=(state.global_step - begun) * plan.rows_per_step,
        seconds=seconds,
        history=[
            {name: entry[name] for name in ("loss", "learning_rate", "grad_norm", "epoch", "step")}
            for entry in state.log_history
            if "loss" in entry
        ],
        notes=[],
    )


class UpstreamTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with our batches and objective."""

    loss_is_scaled_for_ga = True  # the objective divides by the rows of the whole step

    def __init__(
        self,
        model: PreTrainedModel,
        objective: UpstreamObjective,
        args: TrainingArguments,
        rows: CorpusRows,
        *,
        precision: str,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._objective = objective
        self._rows = rows
        self._precision = precision
        self._buckets = LengthBuckets(
            rows.rows.lengths, args.train_batch_size * args.gradient_accumulation_steps, args.seed
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=rows.batch,
            train_dataset=range(len(rows)),
            callbacks=[_Epochs(self._buckets, rows), *callbacks],
        )
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        rows = len(inputs["rows"]) if num_items_in_batch is None else int(num_items_in_batch)
        with autocast(self._precision):
            return self._objective.loss(model, inputs, rows)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._buckets,
            collate_fn=self.data_collator,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of one optimiser step, and how many rows they hold."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, sum(len(batch["rows"]) for batch in batches)


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells buckets and rows which epoch begins, also in a resumed run."""

    def __init__(self, *listeners: LengthBuckets | CorpusRows) -> None:
        self._listeners = listeners

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for listener in self._listeners:
            listener.set_epoch(int(state.epoch or 0))


def upstream_arguments(
    options: UpstreamOptions, plan: BatchPlan, folder: Path, rows: int
) -> TrainingArguments:
    """`UpstreamOptions` as transformers' TrainingArguments."""
    steps = math.ceil(-(-rows // plan.rows_per_step) * options.epochs)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=math.ceil(steps * options.warmup_ratio),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        optim="adamw_torch_fused",
        seed=options.seed,
        data_seed=options.seed,
        logging_strategy="steps",
        logging_steps=max(1, steps // _LOSS_POINTS),
        logging_nan_inf_filter=False,
        save_strategy="epoch",
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
