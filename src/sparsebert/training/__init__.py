"""Training with the zeros locked.

Names are imported on first use: the command line reads the options' defaults from this package,
and `--help` must stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.extras import imported_on_use

_WHERE = {
    "FinetuneResult": "sparsebert.training.saving",
    "UpstreamResult": "sparsebert.training.upstream.saving",
    "finetune": "sparsebert.training.finetuning",
    "prune_upstream": "sparsebert.training.upstream.pruning",
}

__all__ = [*_WHERE]

if TYPE_CHECKING:
    from sparsebert.training.finetuning import finetune as finetune
    from sparsebert.training.saving import FinetuneResult as FinetuneResult
    from sparsebert.training.upstream.pruning import prune_upstream as prune_upstream
    from sparsebert.training.upstream.saving import UpstreamResult as UpstreamResult

__getattr__ = imported_on_use(__name__, _WHERE)
