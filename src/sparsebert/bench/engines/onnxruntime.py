"""ONNX Runtime as its guides advise: a graph fused for BERT, int8 by dynamic quantisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sparsebert.bench.engines import not_installed, once, onnx_folder
from sparsebert.bench.worker import Batch, Engine
from sparsebert.checkpoint.config import CONFIG_NAME, parse_config
from sparsebert.checkpoint.json_files import read_object
from sparsebert.exporting.onnx import ONNX_NAME
from sparsebert.machine import cpu_flags


class OnnxRuntimeEngine(Engine):
    """The CPU provider on a graph whose attention, LayerNorm and GELU are one operator each."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self._session: Any = None
        self._operators = ""

    def missing(self) -> str | None:
        return not_installed("onnxruntime", "onnx", "torch", "transformers")

    def prepare(self, model: Path, workspace: Path) -> Path:
        import onnxruntime

        version = onnxruntime.__version__
        fused = once(
            workspace / f"onnxruntime-{version}-fp32",
            lambda folder: _fuse(onnx_folder(model, workspace), folder),
        )
        if self.precision == "fp32":
            return fused
        # Without VNNI, a sum of two u8 x s8 products overflows 16 bits, so weights get 7 bits.
        saturates = not cpu_flags() & {"avx512_vnni", "avx_vnni"}
        return once(
            workspace / f"onnxruntime-{version}-int8" / ("7-bit" if saturates else "8-bit"),
            lambda folder: _quantise(fused, folder, reduce_range=saturates),
        )

    def start(self) -> None:
        import onnxruntime  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(
            folder / ONNX_NAME, options, providers=["CPUExecutionProvider"]
        )
        self._operators = (folder / "operators.txt").read_text(encoding="utf-8")
        self._inputs = [given.name for given in self._session.get_inputs()]

    def run(self, batch: Batch) -> Any:
        return self._session.run(None, batch.named(self._inputs))[0]

    def about(self) -> dict[str, str]:
        import onnxruntime

        return {
            "version": f"onnxruntime {onnxruntime.__version__}",
            "settings": f"{self.precision}, graph of {self._operators}",
        }


def _fuse(source: Path, folder: Path) -> None:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    where = source / CONFIG_NAME
    config = parse_config(read_object(where), (), where)
    optimised = optimize_model(
        str(source / ONNX_NAME),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
        opt_level=1,
    )
    optimised.save_model_to_file(str(folder / ONNX_NAME))
    _note_operators(folder)


def _quantise(source: Path, folder: Path, *, reduce_range: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source / ONNX_NAME,
        folder / ONNX_NAME,
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        # Types cannot be inferred across the fused operators; all of them output floats.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    _note_operators(folder)


def _note_operators(folder: Path) -> None:
    """Record which fused operators the graph has: an unfused graph would be another engine."""
    import onnx

    graph = onnx.load(folder / ONNX_NAME, load_external_data=False).graph
    counts: dict[str, int] = {}
    for node in graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    fused = [
        f"{counts[name]} {name}"
        for name in sorted(counts)
        if name.endswith(("Attention", "Gelu", "LayerNormalization", "MatMulInteger"))
    ]
    (folder / "operators.txt").write_text(", ".join(fused), encoding="utf-8")


ENGINES: dict[str, Callable[[], Engine]] = {
    f"onnxruntime-{precision}": partial(OnnxRuntimeEngine, precision)
    for precision in ("fp32", "int8")
}
