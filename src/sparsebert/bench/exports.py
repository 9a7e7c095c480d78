"""What several engines load, made once: a dense folder, and the model as ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.staging import staged_folder
from sparsebert.packing import is_packed, unpack

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made by ``make`` unless it is there; half of one is never seen."""
    if not folder.exists():
        with staged_folder(folder, force=False) as staging:
            make(staging)
    return folder


def dense_folder(model: Path, workspace: Path) -> Path:
    """The model as a folder that transformers loads: itself, unless it is packed."""
    if not is_packed(model):
        return model
    folder = workspace / "unpacked"
    if not folder.exists():
        unpack(model, folder)
    return folder


def transformers_model(folder: Path, **options: Any) -> Any:
    """The folder as transformers' own fp32 model for inference, with its head."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    architectures = transformers.AutoConfig.from_pretrained(folder).architectures
    model_class = getattr(transformers, architectures[0] if architectures else "AutoModel")
    return model_class.from_pretrained(folder, dtype=torch.float32, **options).eval()


def example_inputs() -> dict[str, Any]:
    """Two sequences, one of them padded, for tracing a model."""
    import torch

    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return dict(zip(INPUTS, (ids, mask, torch.zeros_like(ids)), strict=True))


def onnx_folder(model: Path, workspace: Path) -> Path:
    """A folder with the fp32 ``model.onnx``, any batch and length, and the model's config."""

    def make(folder: Path) -> None:
        import torch

        class ByPosition(torch.nn.Module):
            """The exporter passes inputs by position, and BertModel has others in between."""

            def __init__(self, network: Any) -> None:
                super().__init__()
                self.network = network

            def forward(self, *inputs: Any) -> Any:
                return self.network(**dict(zip(INPUTS, inputs, strict=True)))[0]

        # Eager attention is the form whose parts graph optimisers know and fuse.
        network = transformers_model(dense_folder(model, workspace), attn_implementation="eager")
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on what it traces
            torch.onnx.export(
                ByPosition(network),
                tuple(example_inputs().values()),
                str(folder / "model.onnx"),
                input_names=list(INPUTS),
                output_names=["output"],
                dynamic_axes={name: {0: "batch", 1: "tokens"} for name in INPUTS},
                opset_version=17,
                dynamo=False,  # the optimisers' patterns are those of the tracing exporter
            )
        (folder / "config.json").write_text(json.dumps(network.config.to_dict()), encoding="utf-8")

    return once(workspace / "onnx", make)
