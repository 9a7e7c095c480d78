"""OpenVINO as its guides say: converted from torch, the LATENCY hint, int8 by NNCF."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.bench.engines import Engine, not_installed
from sparsebert.bench.exports import INPUTS, dense_folder, example_inputs, once, transformers_model
from sparsebert.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from sparsebert.bench.worker import Batch

_CALIBRATION_SEQUENCES = 32
_CALIBRATION_TOKENS = 64


class OpenVinoEngine(Engine):
    """The CPU plugin; ``precision`` is what it is told to compute in."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self._request: Any = None
        self._settings = ""

    def missing(self) -> str | None:
        libraries = ["openvino", "torch", "transformers"]
        return not_installed(*libraries, *(["nncf"] if self.precision == "int8" else []))

    def prepare(self, model: Path, workspace: Path) -> Path:
        import openvino

        version = openvino.__version__.partition("-")[0]
        converted = once(
            workspace / f"openvino-{version}-fp32",
            lambda folder: _convert(dense_folder(model, workspace), folder),
        )
        if self.precision != "int8":
            return converted
        vocabulary = open_checkpoint(dense_folder(model, workspace)).config.vocab_size
        return once(
            workspace / f"openvino-{version}-int8",
            lambda folder: _quantise(converted, folder, vocabulary),
        )

    def start(self) -> None:
        import openvino  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import openvino as ov

        # On a CPU with bf16 instructions that is what it computes fp32 models in, unless told not
        # to. What is not int8 in an int8 model is left to its own choice.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        types = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16}
        if self.precision in types:
            settings["INFERENCE_PRECISION_HINT"] = types[self.precision]
        compiled = ov.Core().compile_model(folder / "model.xml", "CPU", settings)
        self._request = compiled.create_infer_request()
        hinted = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._settings = (
            f"{self.precision}, LATENCY hint, inference precision {hinted}, "
            f"{compiled.get_property('INFERENCE_NUM_THREADS')} threads"
        )

    def run(self, batch: Batch) -> Any:
        given = (batch.ids, batch.mask, batch.types)
        found = self._request.infer(
            dict(zip(INPUTS, given, strict=True)), share_inputs=True, share_outputs=True
        )
        return found[0]

    def about(self) -> dict[str, str]:
        import openvino

        version = openvino.__version__.partition("-")[0]
        return {"version": f"openvino {version}", "settings": self._settings}


def _convert(source: Path, folder: Path) -> None:
    import openvino as ov
    import torch

    network = transformers_model(source)
    network.config.return_dict = False
    with torch.inference_mode():
        converted = ov.convert_model(network, example_input=example_inputs())
    for given, name in zip(converted.inputs, INPUTS, strict=True):
        given.get_tensor().set_names({name})
    ov.save_model(converted, folder / "model.xml", compress_to_fp16=False)


def _quantise(source: Path, folder: Path, vocabulary: int) -> None:
    import nncf
    import openvino as ov

    model = ov.Core().read_model(source / "model.xml")
    # Random texts: speed does not depend on the ranges that calibration finds.
    random = np.random.default_rng(0)
    shape = (1, _CALIBRATION_TOKENS)
    ones, zeros = np.ones(shape, np.int64), np.zeros(shape, np.int64)
    samples = [
        dict(zip(INPUTS, (random.integers(1, vocabulary, shape), ones, zeros), strict=True))
        for _ in range(_CALIBRATION_SEQUENCES)
    ]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=_CALIBRATION_SEQUENCES,
        model_type=nncf.ModelType.TRANSFORMER,
    )
    ov.save_model(quantised, folder / "model.xml")


ENGINES: dict[str, Callable[[], Engine]] = {
    f"openvino-{precision}": partial(OpenVinoEngine, precision)
    for precision in ("fp32", "bf16", "int8")
}
