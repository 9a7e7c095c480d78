"""Pruning a model folder, and looking at how sparse one is.

numpy and a tensor at a time, but for methods that calibrate: they run the model on torch, a layer
at a time.
"""

from __future__ import annotations

from sparsebert.pruning.inspection import Inspection, LayerReport, inspect
from sparsebert.pruning.methods import METHODS
from sparsebert.pruning.one_shot import PruneResult, prune

__all__ = ["METHODS", "Inspection", "LayerReport", "PruneResult", "inspect", "prune"]
