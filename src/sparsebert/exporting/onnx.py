"""ONNX by torch's tracing exporter, and an ONNX file's constants and outputs."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import EncoderConfig, Head
from sparsebert.checkpoint.dtypes import Array
from sparsebert.exporting.network import (
    example_inputs,
    input_names,
    output_names,
    traceable,
)
from sparsebert.torch_models import load_torch_model

ONNX_NAME = "model.onnx"
_OPSET = 17
_DATA_SUFFIX = "_data"  # optimum's: model.onnx_data


def write_onnx(source: Path, config: EncoderConfig, file: Path) -> None:
    """Write the fp32 network of the folder ``source``, for any batch and length, to ``file``.

    Above protobuf's limit of 2 GB, the weights go into one file beside it, ``file`` with ``_data``
    appended.
    """
    import torch

    # Graph optimisers recognise and fuse the parts of eager attention.
    network = load_torch_model(source, attn_implementation="eager")
    axes = {0: "batch_size", 1: "sequence_length"}  # optimum finds an output's size by these
    inputs, outputs = input_names(config), output_names(config)
    output_axes = {0: axes[0]} if config.head is Head.SEQUENCE else axes
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".onnx-") as scratch:
        traced = Path(scratch) / file.name
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about what it traces
            torch.onnx.export(
                traceable(network, config),
                example_inputs(config),
                str(traced),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=dict.fromkeys(inputs, axes) | dict.fromkeys(outputs, output_axes),
                opset_version=_OPSET,
                dynamo=False,  # optimisers recognise the patterns of the tracing exporter
            )
        if len(list(Path(scratch).iterdir())) == 1:
            traced.rename(file)
        else:
            gather_data(traced, file)


def gather_data(scattered: Path, file: Path) -> None:
    """Write an ONNX model whose weights are in many files beside it as two files."""
    import onnx

    onnx.save_model(
        onnx.load(scattered),
        file,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=file.name + _DATA_SUFFIX,
    )


def onnx_constants(file: Path) -> Iterator[Array]:
    """Every constant of the graph, folded ones included."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(file).graph
    for tensor in graph.initializer:
        yield to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield to_array(attribute.t)


def run_onnx(file: Path, inputs: Mapping[str, Array]) -> list[Any]:
    """The outputs of ONNX Runtime's CPU provider, in the file's order."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))
