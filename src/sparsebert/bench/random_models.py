"""BERTs of random weights, for measuring sizes one has no model of: speed does not read values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import TensorSpec, write_tensors
from sparsebert.errors import InputError


@dataclass(frozen=True)
class Size:
    """What tells one BERT's speed from another's."""

    layers: int
    hidden: int
    heads: int
    intermediate: int


RANDOM_MODELS = {
    "bert-tiny": Size(2, 128, 2, 512),
    "minilm": Size(6, 384, 12, 1536),
    "bert-base": Size(12, 768, 12, 3072),
    "bert-large": Size(24, 1024, 16, 4096),
}

_VOCABULARY = 30_522
_POSITIONS = 512
_DEVIATION = 0.02  # BERT's own initialisation


def write_random_model(name: str, folder: Path, *, seed: int = 0) -> None:
    """Write a dense encoder of size ``name``, without tokenizer, into the new folder ``folder``."""
    if name not in RANDOM_MODELS:
        raise InputError(f"there is no size '{name}': choose from {', '.join(RANDOM_MODELS)}.")
    size = RANDOM_MODELS[name]
    folder.mkdir(parents=True)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.intermediate,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shapes = dict(_tensors(size))
    specs = [TensorSpec(tensor, "F32", shape) for tensor, shape in shapes.items()]
    write_tensors(folder / "model.safetensors", specs, _values(shapes, seed), {"format": "pt"})


def _tensors(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as in a BertModel's state dict."""

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (rows, columns)
        yield f"{name}.bias", (rows,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.LayerNorm.weight", (size.hidden,)
        yield f"{name}.LayerNorm.bias", (size.hidden,)

    yield "embeddings.word_embeddings.weight", (_VOCABULARY, size.hidden)
    yield "embeddings.position_embeddings.weight", (_POSITIONS, size.hidden)
    yield "embeddings.token_type_embeddings.weight", (2, size.hidden)
    yield from norm("embeddings")
    for layer in range(size.layers):
        prefix = f"encoder.layer.{layer}"
        for projection in ("query", "key", "value"):
            yield from linear(f"{prefix}.attention.self.{projection}", size.hidden, size.hidden)
        yield from linear(f"{prefix}.attention.output.dense", size.hidden, size.hidden)
        yield from norm(f"{prefix}.attention.output")
        yield from linear(f"{prefix}.intermediate.dense", size.intermediate, size.hidden)
        yield from linear(f"{prefix}.output.dense", size.hidden, size.intermediate)
        yield from norm(f"{prefix}.output")
    yield from linear("pooler.dense", size.hidden, size.hidden)


def _values(shapes: dict[str, tuple[int, ...]], seed: int) -> Iterator[npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name.endswith("LayerNorm.weight"):
            yield np.ones(shape, dtype=np.float32)
        elif name.endswith("bias"):
            yield np.zeros(shape, dtype=np.float32)
        else:
            yield random.standard_normal(shape, dtype=np.float32) * np.float32(_DEVIATION)
