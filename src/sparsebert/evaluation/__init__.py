"""Scoring models on tasks, with our engine or with torch."""

from __future__ import annotations

from sparsebert.evaluation.evaluator import evaluate
from sparsebert.evaluation.results import Evaluation

__all__ = ["Evaluation", "evaluate"]
