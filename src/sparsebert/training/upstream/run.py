"""Upstream pruning as a `TrainingRun`: a pruned model learns from its dense original."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from sparsebert.checkpoint import Checkpoint, Head, read_masks, read_score_function
from sparsebert.errors import TrainingError
from sparsebert.tasks.table import Kind
from sparsebert.torch_models import canonical_parameters
from sparsebert.training.batches import BatchPlan
from sparsebert.training.cpu import choose_attention
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.objective import Objective
from sparsebert.training.run import TrainingRun
from sparsebert.training.task_model import build_model
from sparsebert.training.upstream.corpus import CorpusExamples
from sparsebert.training.upstream.objective import UpstreamObjective
from sparsebert.training.upstream.options import UpstreamOptions


class UpstreamRun(TrainingRun):
    """The training of ``student`` with its masks locked, taught by the dense ``teacher``."""

    progress_label = "distilling"

    def __init__(
        self,
        student: Checkpoint,
        teacher: Checkpoint,
        examples: CorpusExamples,
        options: UpstreamOptions,
    ) -> None:
        super().__init__(options, examples)
        self.schedule = options.schedule
        self._student = student
        self._teacher = teacher
        self._options = options

    def model(self) -> PreTrainedModel:
        return self._encoder(self._student)

    def objective(self) -> Objective:
        teacher = self._encoder(self._teacher)
        pooling = self._teacher.pooling
        known = None if pooling is None or pooling.unsupported else pooling
        return UpstreamObjective(teacher, self._options, known, head_kind(self._teacher))

    def masks(
        self, model: PreTrainedModel, plan: BatchPlan, checkpoint: Path | None
    ) -> LockedMasksCallback:
        trained = canonical_parameters(model)
        masks = {name: mask for name, mask in read_masks(self._student).items() if name in trained}
        return LockedMasksCallback(LockedMasks(masks))

    def check_shardable(self) -> None:
        super().check_shardable()
        if self._student.config.head is Head.MASKED_LM:
            raise TrainingError(
                f"{self._student.source} has a masked-LM head, through which upstream training "
                "sends only some tokens, so it cannot be used with FSDP: use torchrun alone."
            )

    def _encoder(self, checkpoint: Checkpoint) -> PreTrainedModel:
        model = encoder_model(checkpoint, self.options.seed)
        choose_attention(model, self.examples.tokens.lengths)
        return model


def head_kind(checkpoint: Checkpoint) -> Kind | None:
    """The kind of task of the checkpoint's head; None for an encoder or a masked LM."""
    config = checkpoint.config
    if config.head is Head.QUESTION:
        return Kind.QUESTION
    if config.head is Head.TOKEN:
        return Kind.TOKENS
    if config.head is not Head.SEQUENCE:
        return None
    if len(config.labels) == 1:
        return Kind.REGRESSION
    several = read_score_function(checkpoint.path, config) == "sigmoid"
    return Kind.LABEL_SETS if several else Kind.CLASSIFICATION


def encoder_model(checkpoint: Checkpoint, seed: int) -> PreTrainedModel:
    """The checkpoint's encoder with its head, if any, in fp32 and without dropout."""
    family = checkpoint.config.family
    architecture = family.architecture(checkpoint.config.head)
    kinds = {"architectures": [architecture], "model_type": family.model_type}
    raw = {**checkpoint.config.raw, **kinds}
    model = build_model(checkpoint, raw, keep_head=True, dropout=0.0, seed=seed)
    return model
