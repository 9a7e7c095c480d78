"""2:4 on NVIDIA GPUs with torch's semi-structured tensors: which layers fit, and loading them.

A 1:2 matrix has at most two non-zeros in every four, so it is already a 2:4 matrix. The tensors
themselves are made on the GPU each time a model is loaded: torch has no file format for them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import PARTS, Checkpoint, open_checkpoint, resolve_model
from sparsebert.checkpoint.dtypes import to_float16
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import CheckpointError, EngineError, InputError, PatternError
from sparsebert.extras import need_extra
from sparsebert.packing import is_packed
from sparsebert.patterns import Pattern, count_broken_groups
from sparsebert.torch_models import load_torch_model

TWO_OF_FOUR = Pattern(2, 4)
# CUTLASS, the stricter of torch's two backends, needs a half-precision matrix [rows, columns] to be
# multiples of 32 and 64 (cuSPARSELt: 16 and 16), so a matrix that is runs on either.
ROW_MULTIPLE, COLUMN_MULTIPLE = 32, 64
DTYPES = ("float16", "bfloat16")
_LEAST_CAPABILITY = (8, 0)  # Ampere: the first with sparse tensor cores


@dataclass(frozen=True)
class SemiStructuredPlan:
    """Canonical names of the pruned layers: those that can be 2:4 tensors, and those that stay
    dense, each with the reason.
    """

    sparse: tuple[str, ...]
    dense: dict[str, str]

    def told(self) -> str:
        """The layers left dense, in words; empty if there are none."""
        return "; ".join(f"{name} ({reason})" for name, reason in self.dense.items())


def plan_semi_structured(checkpoint: Checkpoint) -> SemiStructuredPlan:
    """Look at every pruned layer. PatternError if there is none, or none that can be 2:4."""
    stored = StoredMasks(checkpoint)
    sparse, dense = [], {}
    for layer in checkpoint.linear_layers(PARTS):
        weight = checkpoint.finite_weight(layer.name)
        found = stored.find(layer, weight)
        if found is None:
            continue
        if layer.columns % 4 or count_broken_groups(weight, TWO_OF_FOUR):
            dense[layer.name] = f"its {found[0]} is not 2:4"
        elif layer.rows % ROW_MULTIPLE or layer.columns % COLUMN_MULTIPLE:
            dense[layer.name] = (
                f"its shape [{layer.rows}, {layer.columns}] is not a multiple of "
                f"[{ROW_MULTIPLE}, {COLUMN_MULTIPLE}]"
            )
        else:
            sparse.append(layer.name)
    plan = SemiStructuredPlan(tuple(sparse), dense)
    if not sparse:
        why = f"none of its pruned layers fits: {plan.told()}" if dense else "no layer is pruned"
        raise PatternError(
            f"{checkpoint.path} gains nothing from 2:4 tensors: {why}. Prune a model with layers "
            f"whose shapes are multiples of [{ROW_MULTIPLE}, {COLUMN_MULTIPLE}] to 1:2 or 2:4."
        )
    return plan


def write_half(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the weights as float16 into ``folder``, and all other tensors unchanged.

    CheckpointError names a tensor with NaN, infinity or values that float16 cannot hold.
    """
    tensors = checkpoint.tensors
    canonical = {stored: name for name, stored in checkpoint.stored_name.items()}
    weights = {checkpoint.stored_name[name] for name in checkpoint.used}

    def array(stored: str) -> Any:
        if stored not in weights:
            return tensors[stored]
        values = checkpoint.finite_weight(canonical[stored])
        return to_float16(stored, values, "export to onnx or openvino, which stay in fp32")

    specs = []
    for stored in tensors:
        spec = tensors.spec(stored)
        specs.append(TensorSpec(stored, "F16" if stored in weights else spec.dtype, spec.shape))
    arrays = (array(spec.name) for spec in specs)
    write_tensors(folder / WEIGHTS_NAME, specs, arrays, {"format": "pt"})


def load_torch_2to4(model: str | Path, *, device: str = "cuda", dtype: str = "float16") -> Any:
    """Load a sparse folder (or hub id) as a transformers model whose pruned layers are 2:4 tensors.

    ``device`` is an NVIDIA GPU of compute capability 8.0 (Ampere) or newer, ``dtype`` is "float16"
    or "bfloat16". Warns about pruned layers that stay dense, naming them. The model is for
    inference only: 2:4 weights have no gradient, and `save_pretrained` does not support them.

    Raises EngineError without such a GPU, InputError for another ``dtype``, MissingExtraError
    without torch and transformers, PatternError if no layer can be 2:4, and CheckpointError for a
    damaged or packed folder.
    """
    need_extra("Loading 2:4 tensors", "torch", "transformers", extra="export")
    if dtype not in DTYPES:
        raise InputError(f"2:4 tensors are {' or '.join(DTYPES)}, not {dtype}.")
    import torch
    from torch.sparse import to_sparse_semi_structured

    _check_gpu(device)
    folder = resolve_model(model)
    if is_packed(folder):
        raise CheckpointError(
            f"{model} is packed: run `sparsebert export {model} OUT --to torch-2to4` and load OUT."
        )
    checkpoint = open_checkpoint(folder)
    plan = plan_semi_structured(checkpoint)
    if plan.dense:
        warnings.warn(f"these pruned layers stay dense: {plan.told()}.", stacklevel=2)
    network = load_torch_model(folder, dtype=getattr(torch, dtype)).to(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
        replace_weights(network, checkpoint, plan.sparse, to_sparse_semi_structured)
    return network


def replace_weights(
    network: Any, checkpoint: Checkpoint, names: Iterable[str], convert: Callable[[Any], Any]
) -> None:
    """Put ``convert(weight)`` in place of the weight of each named layer of ``network``."""
    import torch

    config = checkpoint.config
    for name in names:
        parameter = config.family.parameter(name, config.head)
        module = network.get_submodule(parameter.removesuffix(".weight"))
        converted = convert(module.weight.detach().contiguous())
        module.weight = torch.nn.Parameter(converted, requires_grad=False)


def _check_gpu(device: str) -> None:
    import torch

    needs = "2:4 tensors need an NVIDIA GPU of compute capability 8.0 (Ampere) or newer"
    if not str(device).startswith("cuda") or torch.version.cuda is None:
        seen = f"'{device}' with torch {torch.__version__} is not one"
    elif not torch.cuda.is_available():
        seen = "torch finds no GPU"
    elif (torch.device(device).index or 0) >= torch.cuda.device_count():
        seen = f"there is no '{device}' (torch finds {torch.cuda.device_count()})"
    elif (capability := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
        seen = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
    else:
        return
    raise EngineError(f"{needs}, but {seen}: on a CPU, run the model with `sparsebert.load`.")
