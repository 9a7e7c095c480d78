"""Convert old pickled weights (pytorch_model.bin) to safetensors: the only reader of such weights.

A pickle can run arbitrary code when it is loaded. torch's ``weights_only`` loader builds only
tensors and plain containers and refuses the rest; before version 2.10 it had security holes.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.checkpoint.auxiliary_files import write_auxiliary_files
from sparsebert.checkpoint.bge_m3 import HEADS, head_file, head_pickle
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.config import CONFIG_NAME, parse_config
from sparsebert.checkpoint.dtypes import Array, numpy_type
from sparsebert.checkpoint.families import Family, Head, todays_name
from sparsebert.checkpoint.folder import (
    PICKLE_INDEX_NAME,
    PICKLE_NAME,
    open_checkpoint,
)
from sparsebert.checkpoint.folder_files import check_inside, has_file
from sparsebert.checkpoint.hub import resolve_model, source_name
from sparsebert.checkpoint.hub_configs import read_config
from sparsebert.checkpoint.hub_layouts import family_parts
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.lora_tasks import (
    LoraTask,
    MergedTensors,
    choose_task,
    write_task_settings,
)
from sparsebert.checkpoint.masks import MASKS_NAME
from sparsebert.checkpoint.modules import module_folders, transformer_folder
from sparsebert.checkpoint.sparsity import with_step
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import (
    INDEX_NAME,
    PACKED_NAME,
    WEIGHTS_NAME,
    TensorFiles,
    TensorSpec,
    shards_by_tensor,
)
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import CheckpointError, MissingExtraError, reading, reason_of
from sparsebert.progress import Progress, shown

if TYPE_CHECKING:
    from torch import Tensor

_OLDEST_TORCH = (2, 10)
_MOST_TIMES = 4  # bytes of tensors per byte in the files; 2 if embeddings are tied


@dataclass(frozen=True)
class ConvertResult:
    """The result of `convert`.

    ``source_format`` is "pytorch" or "safetensors". ``tied`` names the tensors of a masked-LM head
    that were left out because they share the memory of others, such as the word embeddings.
    ``bytes`` is the size of all tensors.
    """

    out: str
    source_format: str
    tensors: int
    bytes: int
    tied: list[str]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON; ``source_format`` is called ``from``."""
        return {"from" if name == "source_format" else name: v for name, v in asdict(self).items()}


def convert(
    model: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ConvertResult:
    """Write a model with its weights in one model.safetensors, values and dtypes unchanged.

    ``model`` is a folder or hub id with a pytorch_model.bin, sharded or not. A model that already
    has safetensors is rewritten in the same form: one file, with today's tensor names. For a model
    with LoRA tasks (jina-embeddings-v3), ``task`` names the one to merge into the weights (merged
    tensors are fp32), or is "none" for the weights without any of them.

    Pickles need torch 2.10 or newer. Raises MissingExtraError without torch, and CheckpointError
    for an older torch, for a pickle that holds anything but tensors (nothing in it is run), or for
    a model that does not open.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    report = shown(progress)
    with reading(model, CheckpointError):
        path = resolve_model(model, pickles=True)
        transformer = transformer_folder(path)
        if not has_file(transformer / CONFIG_NAME):
            raise CheckpointError(f"{transformer} is not a model folder: it has no {CONFIG_NAME}.")
        raw = read_config(transformer)
        chosen = _chosen_task(transformer, raw, task)
        raw.pop("lora_adaptations", None)
        family = parse_config(raw, (), transformer / CONFIG_NAME).family
        source = _open_source(transformer, family, chosen)
    with staged_folder(out, force=force, source=path) as staging:
        specs = source.specs()
        label = f"converting {source_name(model)}"

        def arrays() -> Iterator[Array]:
            for done, spec in enumerate(specs):
                report(label, done, len(specs))
                yield source.read(spec.name)
            report(label, len(specs), len(specs))

        written = [TensorSpec(todays_name(spec.name), spec.dtype, spec.shape) for spec in specs]
        write_tensors(staging / WEIGHTS_NAME, written, arrays(), {"format": "pt"})
        arguments = {"weights": source.kind} | ({"task": chosen.name} if chosen else {})
        if has_file(transformer / MASKS_NAME):
            check_inside(transformer / MASKS_NAME, path)
            shutil.copyfile(transformer / MASKS_NAME, staging / MASKS_NAME)
        raw = with_step(raw, "convert", source_name(model), arguments)
        write_auxiliary_files(staging, raw, source=path, pickles=True)
        _convert_small_layers(path, staging)
        if chosen:
            write_task_settings(staging, chosen)
        write_card(staging, source=path)
        checkpoint = open_checkpoint(staging)  # never leave a folder that does not open
        size = checkpoint.tensors.nbytes
    return ConvertResult(
        out=str(out),
        source_format=source.kind,
        tensors=len(specs),
        bytes=size,
        tied=source.tied,
        seconds=round(time.perf_counter() - began, 3),
    )


def _convert_small_layers(source: Path, target: Path) -> None:
    """Convert separate pickles: BGE-M3's heads, and sentence-transformers' old Dense modules."""
    pickles = {
        source / head_pickle(name): target / head_file(name)
        for name in HEADS
        if not has_file(source / head_file(name))
    }
    for folder in module_folders(source):
        if not has_file(folder / WEIGHTS_NAME):
            pickles[folder / PICKLE_NAME] = target / folder.relative_to(source) / WEIGHTS_NAME
    for pickle, file in pickles.items():
        if has_file(pickle):
            layer = _TorchTensors(_read_pickles([pickle]), [pickle])
            file.parent.mkdir(parents=True, exist_ok=True)
            specs = layer.specs()
            arrays = (layer.read(spec.name) for spec in specs)
            write_tensors(file, specs, arrays, {"format": "pt"})


def _chosen_task(folder: Path, told: Mapping[str, Any], task: str | None) -> LoraTask | None:
    if told.get("lora_adaptations"):
        return choose_task(read_object(folder / CONFIG_NAME), told, task)
    if task is not None:
        raise CheckpointError(f"{folder} has no LoRA tasks: leave out the task '{task}'.")
    return None


def _open_source(folder: Path, family: Family, task: LoraTask | None) -> _Safetensors | _Pickles:
    if has_file(folder / WEIGHTS_NAME) or has_file(folder / INDEX_NAME):
        return _Safetensors(folder, family, task)
    if task is not None:
        raise CheckpointError(
            f"{folder} has no {WEIGHTS_NAME}: LoRA tasks can only be merged from safetensors."
        )
    if has_file(folder / PICKLE_NAME):
        return _Pickles([folder / PICKLE_NAME], family)
    index = folder / PICKLE_INDEX_NAME
    if has_file(index):
        return _Pickles(sorted(set(shards_by_tensor(index).values())), family)
    if has_file(folder / PACKED_NAME):
        raise CheckpointError(f"{folder} is a packed model: run `sparsebert unpack` on it instead.")
    raise CheckpointError(
        f"{folder} has no weights to convert: it has neither {PICKLE_NAME} nor {WEIGHTS_NAME}."
    )


class _Safetensors(MergedTensors):
    kind = "safetensors"

    def __init__(self, folder: Path, family: Family, task: LoraTask | None) -> None:
        super().__init__(TensorFiles.of_folder(folder), family, task)
        self.tied: list[str] = []


class _TorchTensors:
    """torch's tensors by name, read as numpy arrays."""

    def __init__(self, tensors: dict[str, Tensor], paths: list[Path]) -> None:
        self._torch = torch = _import_torch()
        self._tensors = tensors
        where = paths[0] if len(paths) == 1 else paths[0].parent
        self._types = {
            torch.float32: "F32",
            torch.float16: "F16",
            torch.bfloat16: "BF16",
            torch.float64: "F64",
            torch.int64: "I64",
            torch.int32: "I32",
            torch.int16: "I16",
            torch.int8: "I8",
            torch.uint8: "U8",
            torch.bool: "BOOL",
        }
        if not tensors:
            raise CheckpointError(f"{where} contains no tensors.")
        self._check_sizes(paths)
        for name, tensor in tensors.items():
            if tensor.layout != torch.strided or tensor.dtype not in self._types:
                raise CheckpointError(
                    f"{where}: tensor '{name}' is {tensor.dtype}, {tensor.layout}; only plain "
                    "dense tensors can be converted."
                )

    def specs(self) -> list[TensorSpec]:
        return [
            TensorSpec(name, self._types[tensor.dtype], tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        ]

    def read(self, name: str) -> Array:
        tensor = self._tensors[name].contiguous()
        dtype = self._types[tensor.dtype]
        if dtype == "BF16":
            tensor = tensor.view(self._torch.int16)
        words: Array = tensor.numpy()
        return words.view(np.dtype(numpy_type(dtype)))

    def _check_sizes(self, paths: list[Path]) -> None:
        """Raise CheckpointError if views of the stored numbers would expand to far more data.

        A view with a stride of 0 repeats a number without limit; tied tensors are stored once.
        """
        stored = sum(path.stat().st_size for path in paths)
        for name, tensor in self._tensors.items():
            if tensor.layout == self._torch.strided:
                stretched = tensor.numel() * tensor.element_size()
                if stretched > tensor.untyped_storage().nbytes():
                    raise CheckpointError(
                        f"{paths[0].parent}: tensor '{name}' of shape {list(tensor.shape)} is "
                        "larger than the data stored for it."
                    )
        total = sum(each.numel() * each.element_size() for each in self._tensors.values())
        if total > _MOST_TIMES * stored:
            raise CheckpointError(
                f"{paths[0].parent}: the tensors take {total} bytes, but their files only "
                f"{stored}: they share more of what is stored than the tensors of any model."
            )


class _Pickles(_TorchTensors):
    kind = "pytorch"

    def __init__(self, paths: list[Path], family: Family) -> None:
        stored = _read_pickles(paths)
        shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
        tensors = {
            name: part.of(stored[part.stored])
            for name, part in family_parts(shapes, family, paths[0].parent).items()
        }
        super().__init__(tensors, paths)
        self.tied = self._drop_tied(family)

    def _drop_tied(self, family: Family) -> list[str]:
        """Leave out the masked-LM decoder if it shares the embeddings' memory.

        transformers ties them again when it loads the model. Any other tensors that share memory
        are written separately, which is always correct.
        """
        stored = {family.canonical(name): name for name in self._tensors}
        decoder = family.heads[Head.MASKED_LM]
        tied = {
            f"{decoder.last}.weight": "embeddings.word_embeddings.weight",
            f"{decoder.last}.bias": decoder.last_bias,
        }
        dropped = []
        for copy, original in tied.items():
            if copy != original and copy in stored and original in stored:
                first, second = self._tensors[stored[copy]], self._tensors[stored[original]]
                if first.data_ptr() == second.data_ptr() and first.shape == second.shape:
                    dropped.append(stored[copy])
                    del self._tensors[stored[copy]]
        return dropped


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("converting a pytorch_model.bin", "train") from error
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST_TORCH:
        raise CheckpointError(
            f"torch {torch.__version__} is too old to open pickled weights safely: install torch "
            f"{_OLDEST_TORCH[0]}.{_OLDEST_TORCH[1]} or newer."
        )
    return torch


def _read_pickles(paths: list[Path]) -> dict[str, Tensor]:
    """The tensors of state dicts; CheckpointError for anything else in them."""
    torch = _import_torch()
    tensors: dict[str, Tensor] = {}
    for path in paths:
        for name, value in _load_pickle(torch, path).items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise CheckpointError(
                    f"{path}: entry {name!r} is not a tensor; only the plain state dict of a model "
                    "can be converted."
                )
            if not name.isprintable():  # such as half of a surrogate pair
                raise CheckpointError(f"{path}: {name!r} is not a valid tensor name.")
            if name in tensors:
                raise CheckpointError(f"{path}: tensor '{name}' also appears in another file.")
            tensors[name] = value.detach()
    return tensors


def _load_pickle(torch: Any, path: Path) -> dict[Any, Any]:
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files from before torch 1.6 are not zip archives and cannot be mapped.
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # UnpicklingError for forbidden contents; RuntimeError, EOFError, KeyError ... for damage.
        raise CheckpointError(
            f"{path} was refused by torch's weights-only loader, and nothing in it was run: it "
            f"contains more than weights, or is damaged ({reason_of(error)})."
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} contains a {type(loaded).__name__}, not a model's state dict."
        )
    return loaded
