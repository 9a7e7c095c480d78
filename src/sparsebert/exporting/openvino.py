"""OpenVINO's own files, converted from a traced network; their constants and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import EncoderConfig
from sparsebert.checkpoint.dtypes import Array
from sparsebert.exporting.network import (
    example_inputs,
    input_names,
    output_names,
    traceable,
)
from sparsebert.torch_models import load_torch_model, quiet_transformers

OPENVINO_NAME = "openvino_model.xml"


def write_openvino(source: Path, config: EncoderConfig, file: Path) -> None:
    """Write the fp32 network of the folder ``source``, for any batch and length, to ``file``.

    ``file`` is the .xml with the graph; the weights go beside it as .bin.
    """
    import openvino as ov
    import torch

    network = traceable(load_torch_model(source), config)
    example = example_inputs(config)
    trace: Any = torch.jit.trace
    with torch.inference_mode(), quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's warnings
        # OpenVINO would trace three times and compare; `verification` compares anyway.
        traced = trace(network, example, strict=False, check_trace=False)
        converted = ov.convert_model(traced, example_input=example)
    for given, name in zip(converted.inputs, input_names(config), strict=True):
        given.get_tensor().set_names({name})
    for found, name in zip(converted.outputs, output_names(config), strict=True):
        found.get_tensor().set_names({name})
    ov.save_model(converted, file, compress_to_fp16=False)


def openvino_constants(file: Path) -> Iterator[Array]:
    """Every constant of the graph, folded ones included."""
    import openvino as ov

    model = ov.Core().read_model(file)
    for operation in model.get_ops():
        if operation.get_type_name() == "Constant":
            yield operation.get_data()


def run_openvino(file: Path, inputs: Mapping[str, Array]) -> list[Any]:
    """The outputs of the CPU plugin in fp32, in the file's order."""
    import openvino as ov

    # On a CPU with bf16 instructions it computes in bf16, unless told not to.
    settings = {"INFERENCE_PRECISION_HINT": ov.Type.f32}
    compiled = ov.Core().compile_model(file, "CPU", settings)
    found = compiled(dict(inputs))
    return [found[output] for output in compiled.outputs]
