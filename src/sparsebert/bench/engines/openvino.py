"""OpenVINO as its guides advise: converted from torch, the LATENCY hint, int8 by NNCF."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.bench.engines import dense_folder, not_installed, once
from sparsebert.bench.worker import Batch, Engine
from sparsebert.checkpoint import EncoderConfig, open_checkpoint
from sparsebert.exporting.network import input_names
from sparsebert.exporting.openvino import OPENVINO_NAME, write_openvino

_CALIBRATION_SEQUENCES = 32
_CALIBRATION_TOKENS = 64


class OpenVinoEngine(Engine):
    """The CPU plugin; ``precision`` is the inference precision it is set to."""

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
        source = dense_folder(model, workspace)
        config = open_checkpoint(source).config
        converted = once(
            workspace / f"openvino-{version}-fp32",
            lambda folder: write_openvino(source, config, folder / OPENVINO_NAME),
        )
        if self.precision != "int8":
            return converted
        return once(
            workspace / f"openvino-{version}-int8",
            lambda folder: _quantise(converted, folder, config),
        )

    def start(self) -> None:
        import openvino  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import openvino as ov

        # On a CPU with bf16 instructions, it computes fp32 models in bf16 unless told otherwise.
        # What is not int8 in an int8 model is left to its own choice.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        types = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16}
        if self.precision in types:
            settings["INFERENCE_PRECISION_HINT"] = types[self.precision]
        compiled = ov.Core().compile_model(folder / OPENVINO_NAME, "CPU", settings)
        self._request = compiled.create_infer_request()
        self._inputs = [given.any_name for given in compiled.inputs]
        hinted = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._settings = (
            f"{self.precision}, LATENCY hint, inference precision {hinted}, "
            f"{compiled.get_property('INFERENCE_NUM_THREADS')} threads"
        )

    def run(self, batch: Batch) -> Any:
        given = batch.named(self._inputs)
        found = self._request.infer(given, share_inputs=True, share_outputs=True)
        return found[0]

    def about(self) -> dict[str, str]:
        import openvino

        version = openvino.__version__.partition("-")[0]
        return {"version": f"openvino {version}", "settings": self._settings}


def _quantise(source: Path, folder: Path, config: EncoderConfig) -> None:
    import nncf
    import openvino as ov

    model = ov.Core().read_model(source / OPENVINO_NAME)
    # Random texts: speed does not depend on the ranges that calibration finds.
    random = np.random.default_rng(0)
    shape = (1, _CALIBRATION_TOKENS)
    ones, zeros = np.ones(shape, np.int64), np.zeros(shape, np.int64)
    names = input_names(config)
    samples = [
        dict(zip(names, (random.integers(1, config.vocab_size, shape), ones, zeros), strict=False))
        for _ in range(_CALIBRATION_SEQUENCES)
    ]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=_CALIBRATION_SEQUENCES,
        model_type=nncf.ModelType.TRANSFORMER,
    )
    ov.save_model(quantised, folder / OPENVINO_NAME)


ENGINES: dict[str, Callable[[], Engine]] = {
    f"openvino-{precision}": partial(OpenVinoEngine, precision)
    for precision in ("fp32", "bf16", "int8")
}
