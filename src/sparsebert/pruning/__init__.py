"""Pruning a model folder, and inspecting how sparse one is.

Everything is done with numpy, one tensor at a time, except by methods that calibrate: they run the
model on torch, one layer at a time.
"""

from __future__ import annotations

from sparsebert.pruning.inspection import Inspection, LayerReport, inspect
from sparsebert.pruning.methods import METHODS
from sparsebert.pruning.one_shot import PruneResult, prune

__all__ = ["METHODS", "Inspection", "LayerReport", "PruneResult", "inspect", "prune"]
