"""Training with the zeros locked."""

from __future__ import annotations

from sparsebert.training.finetuning import finetune
from sparsebert.training.result import FinetuneResult

__all__ = ["FinetuneResult", "finetune"]
