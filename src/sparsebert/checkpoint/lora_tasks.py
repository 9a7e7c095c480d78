"""The LoRA tasks of jina-embeddings-v3, one of which is merged into the weights.

For each linear layer and table, its file contains the weight W and two thin matrices for every task
(Hu et al. 2021, arXiv:2106.09685). A task's weight is W + (alpha / rank) B A for a layer
``[out, in]``, with A ``[tasks, rank, in]`` and B ``[tasks, out, rank]``, and W + (alpha / rank) A B
for a table ``[rows, width]``, with A ``[tasks, rows, rank]`` and B ``[tasks, rank, width]``. Texts
of the retrieval tasks begin with an instruction, which sentence-transformers calls a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.dtypes import Array, Float32, widen
from sparsebert.checkpoint.families import Family
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.hub_layouts import family_parts
from sparsebert.checkpoint.json_files import read_json, read_object, write_json
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME
from sparsebert.checkpoint.modules import MODULES_NAME
from sparsebert.checkpoint.tensors import TensorFiles, TensorSpec
from sparsebert.errors import CheckpointError

NO_TASK = "none"  # the weights without any task, which the model uses if none is named
_KEY = "lora_adaptations"
_ORIGINAL = ".parametrizations.weight.original"
_LORA = ".parametrizations.weight.0.lora_{}"
_OWN_TRANSFORMER = "custom_st.Transformer"


@dataclass(frozen=True)
class LoraTask:
    """``index`` among the tasks, None for the weights without one; ``scale`` is alpha / rank."""

    name: str
    index: int | None
    scale: float


def choose_task(raw: Mapping[str, Any], told: Mapping[str, Any], task: str | None) -> LoraTask:
    """The task to merge, in a folder with LoRA tasks.

    ``raw`` is its config.json, ``told`` the same in transformers' terms. Raises CheckpointError,
    listing the tasks, for an unknown task or if none is named.
    """
    names = told.get(_KEY)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"config.json: {_KEY} must be a list of names.")
    there = f"{', '.join(names)}, or {NO_TASK} for the weights without any"
    if task is None:
        raise CheckpointError(
            f"this model has separate weights for each task: choose one with --task ({there})."
        )
    if task == NO_TASK:
        return LoraTask(task, None, 0.0)
    if task not in names:
        raise CheckpointError(f"this model has no task '{task}': choose from {there}.")
    rank, alpha = raw.get("lora_rank", 4), raw.get("lora_alpha", 1)
    for key, value in (("lora_rank", rank), ("lora_alpha", alpha)):
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise CheckpointError(f"config.json: {key} must be a positive number, not {value!r}.")
    return LoraTask(task, names.index(task), alpha / rank)


class MergedTensors:
    """A file's tensors under their family's names; a task, if any, is merged as each is read.

    Merged tensors are float32, others as stored. Raises CheckpointError as `family_parts` does,
    and for LoRA matrices that are missing or have the wrong shape.
    """

    def __init__(self, tensors: TensorFiles, family: Family, task: LoraTask | None) -> None:
        self._stored, shapes, where = tensors, tensors.shapes(), tensors.paths[0].parent
        self._index, self._scale = (task.index, task.scale) if task else (None, 0.0)
        if task is None:
            self._parts = family_parts(shapes, family, where)
        else:
            shapes = {name: shape for name, shape in shapes.items() if ".lora_" not in name}
            self._parts = family_parts(shapes, family, where, plain=_plain)
        self._tensors = tensors.divided(self._parts)
        for name in shapes:
            if self._merges(name):
                self._check(name)

    def specs(self) -> list[TensorSpec]:
        """Name, type and shape of each tensor."""
        found = []
        for name, part in self._parts.items():
            spec = self._tensors.spec(name)
            found.append(replace(spec, dtype="F32") if self._merges(part.stored) else spec)
        return found

    def read(self, name: str) -> Array:
        """One of the tensors, with the task merged into it."""
        rows, part = self._tensors[name], self._parts[name]
        if not self._merges(part.stored):
            return rows
        left, right = self._factors(part.stored)
        merged: Float32 = part.of(left) @ right
        merged *= np.float32(self._scale)  # in place: XLM-R's table takes a GB
        merged += widen(rows, self._tensors.spec(name).dtype)
        return merged

    def _merges(self, stored: str) -> bool:
        return self._index is not None and stored.endswith(_ORIGINAL)

    def _matrices(self, name: str) -> tuple[str, str]:
        stem = name.removesuffix(_ORIGINAL)
        return stem + _LORA.format("A"), stem + _LORA.format("B")

    def _check(self, name: str) -> None:
        shapes = []
        for matrix in self._matrices(name):
            if matrix not in self._stored:
                raise CheckpointError(f"the model's file lacks the tensor '{matrix}'.")
            shapes.append(self._stored.spec(matrix).shape)
        left, right = shapes if _is_table(name) else reversed(shapes)
        shape = self._stored.spec(name).shape
        index = self._index or 0
        fits = len(left) == len(right) == 3 and index < min(left[0], right[0])
        if not fits or left[2] != right[1] or (left[1], right[2]) != shape:
            given = " and ".join(str(list(each)) for each in shapes)
            raise CheckpointError(
                f"the LoRA matrices of '{name}' have shapes {given}, which do not fit its shape "
                f"{list(shape)}."
            )

    def _factors(self, name: str) -> tuple[Float32, Float32]:
        """The two matrices whose product is added: ``[rows, rank]`` and ``[rank, columns]``."""
        found = []
        for matrix in self._matrices(name):
            dtype = self._stored.spec(matrix).dtype
            found.append(widen(self._stored[matrix][self._index], dtype))
        first, second = found
        return (first, second) if _is_table(name) else (second, first)


def _plain(stored: str) -> str:
    """The name of a tensor in a model without LoRA tasks."""
    return f"{stored.removesuffix(_ORIGINAL)}.weight" if stored.endswith(_ORIGINAL) else stored


def _is_table(name: str) -> bool:
    return ".embeddings." in f".{name}"


def write_task_settings(folder: Path, task: LoraTask) -> None:
    """Adapt sentence-transformers' settings to a folder with one task: no code, and its prompt.

    The task's instruction becomes the default prompt, because the authors' code puts it before each
    text of the task.
    """
    file = folder / MODULES_NAME
    if has_file(file):
        modules = read_json(file)
        for module in modules if isinstance(modules, list) else ():
            if isinstance(module, dict) and module.get("type") == _OWN_TRANSFORMER:
                module["type"] = "sentence_transformers.models.Transformer"
                module.pop("kwargs", None)
        write_json(file, modules)
    file = folder / MODEL_SETTINGS_NAME
    settings = read_object(file) if has_file(file) else {}
    prompts = settings.get("prompts")
    if isinstance(prompts, dict) and prompts.get(task.name):
        write_json(file, {**settings, "default_prompt_name": task.name})
