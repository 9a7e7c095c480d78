"""transformers' Trainer, with our batches, losses and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)

from sparsebert.tasks.tokens import TokenRows
from sparsebert.training.batches import BatchPlan, LengthBuckets, RankBatches
from sparsebert.training.cpu import autocast
from sparsebert.training.defaults import RunOptions
from sparsebert.training.distributed import (
    from_main,
    parallel_loss,
    prepare_sharding,
    processes,
    rank,
    total,
)
from sparsebert.training.objective import Objective
from sparsebert.training.options import OPTIMIZERS
from sparsebert.training.upstream.options import UpstreamOptions

_LOSS_POINTS = 100  # approximate number of points in a run's loss history
_EMPTY = "empty"  # marks a batch without examples for this process


class TrainingSet(Protocol):
    """What can be trained on: tokenised examples, and how they become batches."""

    @property
    def tokens(self) -> TokenRows:
        """All sequences that the model reads."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The tokens of each example, used to batch similar lengths, int64 ``[examples]``."""

    @property
    def apart(self) -> npt.NDArray[np.int64] | None:
        """What the examples of a step should not have in common: see `LengthBuckets`."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """A padded batch of the ``chosen`` examples for an `Objective`."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""


class ObjectiveTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with our batches, loss and scores.

    ``rate`` returns the learning rate by step, as a share of its peak; None leaves it to
    transformers' schedule. ``score`` returns the current model's metrics in percent; it must not
    touch the random state, or evaluation would change the training.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        examples: TrainingSet,
        objective: Objective,
        precision: str,
        callbacks: list[TrainerCallback],
        score: Callable[[], dict[str, float]],
        rate: Callable[[int], float] | None = None,
    ) -> None:
        self._objective = objective
        self._precision = precision
        self._rate = rate
        self._score = score
        self._plan = BatchPlan(args.train_batch_size, args.gradient_accumulation_steps, processes())
        self._buckets = LengthBuckets(
            examples.lengths, self._plan.examples_per_step, args.seed, examples.apart
        )
        indices: Any = range(len(examples))
        super().__init__(
            model=model,
            args=args,
            data_collator=examples.batch,
            train_dataset=indices,
            eval_dataset=indices,  # required by the Trainer, not used: see evaluate
            callbacks=[_EpochCallback(self._buckets, examples), *callbacks],
        )
        # The loss is already divided by the number of examples in a step.
        self.model_accepts_loss_kwargs = True
        self.remove_callback(PrinterCallback)
        prepare_sharding(self.accelerator, model)

    def get_train_dataloader(self) -> DataLoader[Any]:
        if self._plan.processes > 1:
            batches = RankBatches(self._buckets, self._plan, rank())
            return DataLoader(
                self.train_dataset, batch_sampler=batches, collate_fn=self._batch_or_empty
            )
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._buckets,
            collate_fn=self.data_collator,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _batch_or_empty(self, chosen: list[int]) -> dict[str, torch.Tensor]:
        """The batch of the ``chosen`` examples; for none, a batch that the loss does not count."""
        batch: dict[str, torch.Tensor] = self.data_collator(chosen or [0])
        return batch if chosen else {**batch, _EMPTY: torch.ones(())}

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        if self._rate is not None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self._rate)
        scheduler: LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        return scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of one optimiser step, and its number of examples over all processes.

        No batches if training is to stop, as when a run that has no step left is resumed.
        """
        if self.control.should_training_stop:
            return [], 0
        batches = list(islice(epoch_iterator, num_batches))
        examples = sum(len(batch["indices"]) for batch in batches if _EMPTY not in batch)
        return batches, total(examples)

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The objective's loss. Scoring does not use this, so it stays in fp32."""
        assert num_items_in_batch is not None  # from get_batch_samples
        # Gradients are averaged over processes, but must be summed.
        share = 0 if inputs.pop(_EMPTY, None) is not None else self._plan.processes
        with autocast(self._precision):
            return share * parallel_loss(model, self._objective, inputs, int(num_items_in_batch))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The task's metrics from `sparsebert.evaluation`, the code that `evaluate` also runs."""
        scores = from_main(self._score)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(metrics)
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.control: TrainerControl = control
        return metrics


class _EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler and the examples which epoch begins, also in a resumed run."""

    def __init__(self, *sources: LengthBuckets | TrainingSet) -> None:
        self._sources = sources

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for each in self._sources:
            each.set_epoch(int(state.epoch or 0))


def training_arguments(
    options: RunOptions | UpstreamOptions,
    plan: BatchPlan,
    folder: Path,
    examples: int,
    *,
    best_on: str | None = None,
    schedule: str = "linear",
) -> TrainingArguments:
    """The options as transformers' TrainingArguments.

    ``best_on`` is the metric by which the best epoch is chosen; without it, the last one is kept.
    """
    early = best_on is not None
    steps = plan.steps(examples, options.epochs)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=plan.warmup_steps(examples, options.epochs, options.warmup_ratio),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        **OPTIMIZERS[options.optimizer],
        seed=options.seed,
        data_seed=options.seed,
        logging_strategy="steps",
        logging_steps=max(1, steps // _LOSS_POINTS),
        logging_nan_inf_filter=False,  # a non-finite loss must be reported, not averaged away
        eval_strategy="epoch" if early else "no",
        save_strategy="epoch",
        save_total_limit=None,  # CheckpointCallback does that, by step number instead of time
        load_best_model_at_end=early,
        metric_for_best_model=f"eval_{best_on}" if early else None,
        greater_is_better=True if early else None,
        restore_callback_states_from_checkpoint=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        use_cpu=processes() > 1 and not torch.cuda.is_available(),  # else it detects one process
        ddp_find_unused_parameters=processes() > 1,  # such as a head that the loss does not use
    )
