"""Models with random weights, to measure any size: speed does not depend on the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Head, TensorSpec, write_config, write_tensors
from sparsebert.checkpoint.architecture import POOLER, expected_shapes, optional_shapes
from sparsebert.checkpoint.config import CONFIG_NAME, parse_config
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.errors import InputError


@dataclass(frozen=True)
class Size:
    """What determines an encoder's speed.

    ``others`` are keys of config.json that BERT lacks, or whose values differ from BERT's.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    model_type: str = "bert"
    others: dict[str, Any] = field(default_factory=dict)


RANDOM_MODELS = {
    "bert-tiny": Size(2, 128, 2, 512),
    "minilm": Size(6, 384, 12, 1536),
    "bert-base": Size(12, 768, 12, 3072),
    "bert-large": Size(24, 1024, 16, 4096),
    "roberta-base": Size(
        12,
        768,
        12,
        3072,
        "roberta",
        {
            "vocab_size": 50_265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "layer_norm_eps": 1e-5,
        },
    ),
    "distilbert": Size(6, 768, 12, 3072, "distilbert"),
    "electra-small": Size(12, 256, 4, 1024, "electra", {"embedding_size": 128}),
    "mpnet-base": Size(
        12,
        768,
        12,
        3072,
        "mpnet",
        {"vocab_size": 30_527, "max_position_embeddings": 514, "pad_token_id": 1},
    ),
    "deberta-v3-base": Size(
        12,
        768,
        12,
        3072,
        "deberta-v2",
        {
            "vocab_size": 128_100,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
        },
    ),
    "modernbert-base": Size(
        22,
        768,
        12,
        1152,
        "modernbert",
        {"vocab_size": 50_368, "max_position_embeddings": 8192, "layer_norm_eps": 1e-5},
    ),
}

_BERT = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_DEVIATION = 0.02  # BERT's own initialisation


def write_random_model(name: str, folder: Path, *, seed: int = 0) -> None:
    """Write a dense encoder of size ``name``, without tokenizer, into the new folder ``folder``."""
    if name not in RANDOM_MODELS:
        raise InputError(f"there is no size '{name}': choose from {', '.join(RANDOM_MODELS)}.")
    size = RANDOM_MODELS[name]
    family = FAMILIES[size.model_type]
    settings = {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.intermediate,
        **_BERT,
        **size.others,
    }
    raw = {
        "architectures": [family.architecture(Head.ENCODER)],
        "model_type": size.model_type,
        **{family.fields.get(key, key): value for key, value in settings.items()},
        "dtype": "float32",
    }
    folder.mkdir(parents=True)
    write_config(folder, raw)
    config = parse_config(raw, (), folder / CONFIG_NAME)
    poolers = optional_shapes(config).items()
    shapes = {**expected_shapes(config), **{n: s for n, s in poolers if n.startswith(POOLER)}}
    specs = [TensorSpec(family.spelled(tensor), "F32", shape) for tensor, shape in shapes.items()]
    write_tensors(folder / "model.safetensors", specs, _values(shapes, seed), {"format": "pt"})


def _values(shapes: dict[str, tuple[int, ...]], seed: int) -> Iterator[npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name.endswith("LayerNorm.weight"):
            yield np.ones(shape, dtype=np.float32)
        elif name.endswith("bias"):
            yield np.zeros(shape, dtype=np.float32)
        else:
            yield random.standard_normal(shape, dtype=np.float32) * np.float32(_DEVIATION)
