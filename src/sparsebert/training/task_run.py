"""Fine-tuning on a task as a `TrainingRun`: its model, loss, masks and model patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.config import parse_config
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.evaluation.torch_embedding import TorchEmbedder, TorchPooler
from sparsebert.pruning.gradual import SparsitySchedule
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.training.batches import BatchPlan
from sparsebert.training.cpu import choose_attention
from sparsebert.training.distillation.noise import TokenNoise
from sparsebert.training.distillation.objective import DistillationObjective
from sparsebert.training.distillation.teacher import copy_head
from sparsebert.training.embedding.objective import EmbeddingDistillation, EmbeddingObjective
from sparsebert.training.gradual_pruning import (
    GradualPruner,
    GradualPrunerCallback,
    GradualPruning,
    rewound_rate,
)
from sparsebert.training.job import Job
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.objective import Objective, TaskObjective
from sparsebert.training.quantization_aware import int8_arithmetic
from sparsebert.training.run import ModelPatch, TrainingRun
from sparsebert.training.task_model import build_model


class TaskRun(TrainingRun):
    """A fine-tuning run, as described by its `Job`."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.options, job.training)
        self._job = job
        self.accumulation = job.options.gradient_accumulation
        self.patience = job.options.early_stopping
        self.best_on = job.metric.name if job.metric else job.task.main_metric
        self.validation = job.validation
        self.label_order = job.order

    def model(self) -> PreTrainedModel:
        job = self._job
        model = build_model(
            job.checkpoint,
            job.config,
            keep_head=job.keep_head,
            dropout=job.options.dropout,
            seed=job.options.seed,
        )
        choose_attention(model, job.training.tokens.lengths)
        if job.teacher is not None and not job.keep_head:
            described = parse_config(job.config, (), job.checkpoint.path)
            copy_head(job.teacher, model, described.head_shape)
        return model

    def objective(self) -> Objective:
        """The task's own loss, or distillation if there is a teacher."""
        job, kind, teacher = self._job, self._job.task.kind, self._job.teacher
        if job.reader is None:
            if teacher is None:
                return TaskObjective(kind)
            return DistillationObjective(kind, teacher, job.options, noise=self._noise())
        own = EmbeddingObjective(
            kind,
            TorchPooler(job.reader.pooling),
            scale=job.options.scale or 1.0,
            similarity=read_similarity(job.checkpoint.path),
        )
        if teacher is None:
            return own
        return EmbeddingDistillation(kind, teacher, job.options, own, self._noise())

    def _noise(self) -> TokenNoise | None:
        share = self._job.options.token_noise
        if not share:
            return None
        special = load_tokenizer(self._job.checkpoint.path).all_special_ids
        return TokenNoise(self._job.training.tokens, special, share)

    def predictor(self, model: PreTrainedModel, plan: BatchPlan) -> Any:
        if self._job.reader is None:
            return super().predictor(model, plan)
        return TorchEmbedder(model, self._job.reader, plan.batch_size)

    def masks(
        self, model: PreTrainedModel, plan: BatchPlan, checkpoint: Path | None
    ) -> LockedMasksCallback | None:
        job = self._job
        if job.options.method != "lock":
            masks = GradualPruner(self._pruning(plan), job.masks)
            if checkpoint is not None:
                masks.restore(checkpoint)
            return GradualPrunerCallback(masks)
        if not job.masks:
            return None
        locked = read_masks(open_checkpoint(checkpoint)) if checkpoint else job.masks
        return LockedMasksCallback(LockedMasks(locked))

    def rate(self, plan: BatchPlan) -> Callable[[int], float] | None:
        if self._job.options.method == "lock":
            return None
        return partial(rewound_rate, self._pruning(plan).schedule)

    def patches(self) -> list[ModelPatch]:
        patches = super().patches()
        if self._job.options.quantize == "int8":
            patches.append(int8_arithmetic)
        return patches

    def _pruning(self, plan: BatchPlan) -> GradualPruning:
        job, options, examples = self._job, self._job.options, len(self.examples)
        schedule = SparsitySchedule.of_run(
            plan.steps(examples, options.epochs),
            plan.warmup_steps(examples, options.epochs, options.warmup_ratio),
        )
        return GradualPruning(options.method, options.target, schedule, job.to_prune)
