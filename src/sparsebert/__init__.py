"""sparsebert: halve your BERT.

Prune a BERT-family encoder to 1:2 structured sparsity, fine-tune it with every zero locked, pack it
to a fraction of its size and run it on ordinary CPUs:

    import sparsebert as sb
    sb.prune("dense/", "sparse/")
    sb.finetune("sparse/", "task/", task="sst2", data="data/sst2")
    sb.pack("task/", "packed/")
    model = sb.load("packed/")
    model.classify(["a gripping, moving film"])

Names are imported when first used, so that `import sparsebert` stays light and the inference side
never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.extras import imported_on_use

__version__ = "0.1.0"

_WHERE = {
    "SparsebertError": "sparsebert.errors",
    "Pattern": "sparsebert.patterns",
    "halve": "sparsebert.halving",
    "convert": "sparsebert.checkpoint.convert",
    "inspect": "sparsebert.pruning.inspection",
    "prune": "sparsebert.pruning",
    "prune_upstream": "sparsebert.training",
    "finetune": "sparsebert.training",
    "evaluate": "sparsebert.evaluation",
    "pack": "sparsebert.packing",
    "unpack": "sparsebert.packing",
    "push_to_hub": "sparsebert.checkpoint.publishing",
    "export": "sparsebert.exporting",
    "load_torch_2to4": "sparsebert.exporting",
    "load": "sparsebert.inference",
    "Model": "sparsebert.inference",
}

__all__ = [*_WHERE, "__version__"]

if TYPE_CHECKING:
    from sparsebert.checkpoint.convert import convert as convert
    from sparsebert.checkpoint.publishing import push_to_hub as push_to_hub
    from sparsebert.errors import SparsebertError as SparsebertError
    from sparsebert.evaluation import evaluate as evaluate
    from sparsebert.exporting import export as export
    from sparsebert.exporting import load_torch_2to4 as load_torch_2to4
    from sparsebert.halving import halve as halve
    from sparsebert.inference import Model as Model
    from sparsebert.inference import load as load
    from sparsebert.packing import pack as pack
    from sparsebert.packing import unpack as unpack
    from sparsebert.patterns import Pattern as Pattern
    from sparsebert.pruning import prune as prune
    from sparsebert.pruning.inspection import inspect as inspect
    from sparsebert.training import finetune as finetune
    from sparsebert.training import prune_upstream as prune_upstream

__getattr__ = imported_on_use(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted(__all__)
