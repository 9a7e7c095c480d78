"""Training with the zeros locked.

Names are imported when first used: the command line reads the options' defaults from here, and
`--help` shall stay light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "FinetuneResult": "sparsebert.training.saving",
    "UpstreamResult": "sparsebert.training.upstream.saving",
    "finetune": "sparsebert.training.finetuning",
    "prune_upstream": "sparsebert.training.upstream.pruning",
}

__all__ = ["FinetuneResult", "UpstreamResult", "finetune", "prune_upstream"]

if TYPE_CHECKING:
    from sparsebert.training.finetuning import finetune as finetune
    from sparsebert.training.saving import FinetuneResult as FinetuneResult
    from sparsebert.training.upstream.pruning import prune_upstream as prune_upstream
    from sparsebert.training.upstream.saving import UpstreamResult as UpstreamResult


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sparsebert.training' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
