"""`export`: writes a model folder for another engine, verified before it is put in place."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import (
    Checkpoint,
    EncoderConfig,
    Head,
    copy_auxiliary_files,
    open_checkpoint,
    read_masks,
    resolve_model,
    source_name,
    staged_folder,
    with_step,
    write_card,
    write_config,
    write_masks,
)
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.staging import check_output
from sparsebert.checkpoint.tensors import WEIGHTS_NAME
from sparsebert.errors import ExportError, InputError
from sparsebert.exporting import onnx, openvino
from sparsebert.exporting.semi_structured import plan_semi_structured, write_half
from sparsebert.exporting.verification import count_kept_zeros, largest_difference
from sparsebert.extras import need_extra
from sparsebert.packing import is_packed, unpack
from sparsebert.progress import Progress, silent
from sparsebert.torch_models import load_torch_model


@dataclass(frozen=True)
class _GraphFormat:
    """A graph format: the file that optimum's classes look for, and how to write and read it.

    ``classes`` is the prefix of optimum's classes for it, ``library`` their module.
    """

    file: str
    write: Callable[[Path, EncoderConfig, Path], None]
    constants: Callable[[Path], Iterator[Array]]
    run: Callable[[Path, Mapping[str, Array]], list[Any]]
    needs: tuple[str, ...]
    library: str
    classes: str


_FORMATS = {
    "onnx": _GraphFormat(
        onnx.ONNX_NAME,
        onnx.write_onnx,
        onnx.onnx_constants,
        onnx.run_onnx,
        ("onnx", "onnxruntime"),
        "optimum.onnxruntime",
        "ORTModelFor",
    ),
    "openvino": _GraphFormat(
        openvino.OPENVINO_NAME,
        openvino.write_openvino,
        openvino.openvino_constants,
        openvino.run_openvino,
        ("openvino",),
        "optimum.intel",
        "OVModelFor",
    ),
}
_SEMI_STRUCTURED = "torch-2to4"
TARGETS = (*_FORMATS, _SEMI_STRUCTURED)

_TASKS = {
    Head.ENCODER: "FeatureExtraction",
    Head.SEQUENCE: "SequenceClassification",
    Head.QUESTION: "QuestionAnswering",
    Head.TOKEN: "TokenClassification",
    Head.MASKED_LM: "MaskedLM",
}


@dataclass(frozen=True)
class ExportResult:
    """The result of `export`.

    ``file`` is the graph or the weights, and ``bytes`` its size on disk, including data stored
    beside it. For a graph, ``layers`` is the number of pruned matrices in it, which have ``zeros``
    zeros among ``weights`` weights, and ``largest_difference`` is the largest difference of any
    output from transformers'. For "torch-2to4", ``layers`` is the number of layers that fit 2:4
    tensors, and ``left_dense`` maps the other pruned layers to the reason. Fields that do not apply
    to the target are None.
    """

    out: str
    to: str
    file: str
    layers: int
    bytes: int
    seconds: float
    zeros: int | None = None
    weights: int | None = None
    largest_difference: float | None = None
    left_dense: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields that apply to the target as a dict, ready for JSON."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        size, seconds = fields.pop("bytes"), fields.pop("seconds")
        return {**fields, "bytes": size, "seconds": seconds}


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: str,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write ``model`` to the folder ``out`` for another engine.

    ``to`` is "onnx" or "openvino" (the fp32 network as one graph for any batch size and length,
    which optimum's ``ORTModelForX`` and ``OVModelForX`` load; needs [export]), or "torch-2to4"
    (float16 weights, checked to fit 2:4 tensors, for `load_torch_2to4`). Config, tokenizer and
    pooling are included. A packed model is unpacked first.

    A graph is kept only if it has every pruned matrix in it and its outputs match transformers'.

    Raises InputError for an unknown target, ExportError if a zero was lost or an output is wrong,
    PatternError if a recorded pattern is broken or no layer fits 2:4, CheckpointError for a damaged
    or unsupported model, MissingExtraError, and OutputError.
    """
    began = time.perf_counter()
    if to not in TARGETS:
        raise InputError(f"'{to}' is not a target to export to: choose from {', '.join(TARGETS)}.")
    if to in _FORMATS:
        libraries = ("torch", "transformers", *_FORMATS[to].needs)
        need_extra(f"Exporting to {to}", *libraries, extra="export")
    check_output(out, force=force)
    report = progress or silent
    folder = resolve_model(model)
    with ExitStack() as stack:
        source = folder
        if is_packed(folder):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsebert-"))
            source = Path(place) / "unpacked"
            unpack(folder, source, progress=report)
        checkpoint = open_checkpoint(source)
        staging = stack.enter_context(staged_folder(out, force=force, source=folder))
        if to == _SEMI_STRUCTURED:
            found, loading = _semi_structured(checkpoint, staging)
        else:
            found, loading = _graph(checkpoint, _FORMATS[to], staging, report)
        raw = with_step(checkpoint.config.raw, "export", source_name(model), {"to": to})
        if to == _SEMI_STRUCTURED:
            raw["dtype"] = "float16"
            raw.pop("torch_dtype", None)
        write_config(staging, raw)
        copy_auxiliary_files(checkpoint.path, staging)
        write_card(staging, source=checkpoint.path, loading=loading)
        sizes = [path.stat().st_size for path in staging.glob(f"{Path(found['file']).stem}*")]
    seconds = round(time.perf_counter() - began, 3)
    return ExportResult(str(out), to, bytes=sum(sizes), seconds=seconds, **found)


def _graph(
    checkpoint: Checkpoint, form: _GraphFormat, staging: Path, report: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Write and verify a graph; the result, and the lines of code that load it."""
    config, file = checkpoint.config, staging / form.file
    for name in checkpoint.used:  # a NaN would look like a difference between the outputs
        checkpoint.finite_weight(name)
    pruned = {name: checkpoint.weight(name) for name in read_masks(checkpoint)}
    stages = ("writing the graph", "checking the zeros", "comparing the outputs")
    report(stages[0], 0, 1)
    form.write(checkpoint.path, config, file)
    report(stages[0], 1, 1)
    report(stages[1], 0, 1)
    zeros = count_kept_zeros(pruned, form.constants(file))
    lost = [name for name in pruned if name not in zeros]
    if lost:
        raise ExportError(
            f"{form.file} lost or changed {len(lost)} of {len(pruned)} pruned layers, the first of "
            f"them '{lost[0]}', so it was not kept. Please report this with the versions of "
            f"{', '.join(('torch', 'transformers', *form.needs))}."
        )
    report(stages[1], 1, 1)
    report(stages[2], 0, 1)
    network = load_torch_model(checkpoint.path)
    difference, agrees = largest_difference(network, config, partial(form.run, file))
    if not agrees:
        raise ExportError(
            f"{form.file} gives different outputs from transformers (by {difference:.3g}), so it "
            f"was not kept. Please report this with the versions of "
            f"{', '.join(('torch', 'transformers', *form.needs))}."
        )
    report(stages[2], 1, 1)
    found = {
        "file": form.file,
        "layers": len(pruned),
        "zeros": sum(zeros.values()),
        "weights": sum(weight.size for weight in pruned.values()),
        "largest_difference": difference,
    }
    return found, _optimum_lines(form, config.head)


def _semi_structured(checkpoint: Checkpoint, staging: Path) -> tuple[dict[str, Any], list[str]]:
    plan = plan_semi_structured(checkpoint)
    write_half(checkpoint, staging)
    write_masks(staging, read_masks(checkpoint))
    found = {"file": WEIGHTS_NAME, "layers": len(plan.sparse), "left_dense": plan.dense}
    call = 'model = sparsebert.load_torch_2to4("path/to/this/folder")  # on an NVIDIA GPU'
    return found, ["```python", "import sparsebert", "", call, "```"]


def _optimum_lines(form: _GraphFormat, head: Head) -> list[str]:
    name = form.classes + _TASKS[head]
    return [
        "```python",
        f"from {form.library} import {name}",
        "",
        f'model = {name}.from_pretrained("path/to/this/folder")',
        "```",
    ]
