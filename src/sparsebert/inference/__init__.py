"""Running a model: texts in, embeddings, labels or answers out. numpy and tokenizers, no torch."""

from __future__ import annotations

from sparsebert.inference.loading import load
from sparsebert.inference.model import Model
from sparsebert.inference.tokenizing import TruncationWarning

__all__ = ["Model", "TruncationWarning", "load"]
