"""Training with the zeros locked."""

from __future__ import annotations

from sparsebert.training.finetuning import finetune
from sparsebert.training.result import FinetuneResult
from sparsebert.training.upstream import UpstreamResult, prune_upstream

__all__ = ["FinetuneResult", "UpstreamResult", "finetune", "prune_upstream"]
