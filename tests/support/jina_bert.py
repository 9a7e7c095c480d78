"""JinaBERT as its authors publish it: folders of random weights, and its formulas in torch.

transformers has no such model. The formulas are those of the code that the folders name
(jinaai/jina-bert-implementation and jinaai/jina-bert-v2-qk-post-norm), over the tensors of the
folder's own file and under its names; nothing is shared with the package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tiny_models import make_tokenizer

PLAIN, CODE = "jina-bert-implementation", "jina-bert-v2-qk-post-norm"
# The keys of jinaai/jina-embeddings-v2-base-en's and -base-code's config.json.
CONFIG: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": None,
    "emb_pooler": "mean",
    "feed_forward_type": "geglu",
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "model_max_length": 8192,
    "model_type": "bert",
    "pad_token_id": 0,
    "position_embedding_type": "alibi",
    "torch_dtype": "float32",
    "transformers_version": "4.26.0",
    "type_vocab_size": 2,
    "use_cache": True,
}
SIZES = {
    "hidden_size": 60,  # 5 heads of 12: no power of two
    "num_attention_heads": 5,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "max_position_embeddings": 140,
}


def write_jina_bert(
    folder: Path,
    code: str = PLAIN,
    head: str = "MaskedLM",
    *,
    inside: str = "",
    tokenizer_of: str | None = None,
    **changes: Any,
) -> Path:
    """Write a folder; ``inside`` is the prefix of the encoder's tensors ("" as published)."""
    folder.mkdir(parents=True)
    kind = tokenizer_of or ("roberta" if code == CODE else "bert")
    tokenizer = make_tokenizer(kind, True)
    tokenizer.save_pretrained(folder)
    names = ("Config", "Model", "ModelForMaskedLM", "ModelForSequenceClassification")
    sizes = {**SIZES, "vocab_size": len(tokenizer)}
    config = {
        "_name_or_path": f"jinaai/{code}",
        "architectures": [f"JinaBertFor{head}"],
        "auto_map": {
            f"Auto{name}": f"jinaai/{code}--modeling_bert.JinaBert{name.replace('ModelFor', 'For')}"
            for name in names
        },
        **CONFIG,
        **sizes,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(5)
    tensors = {}
    for name, shape in _shapes(config, code, head):
        noise = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 2:
            tensors[name] = noise / np.float32(math.sqrt(shape[1]))
        elif "orm" in name and name.endswith("weight"):
            tensors[name] = 1 + noise / 5
        else:
            tensors[name] = noise / 5
    own = ("embeddings.", "encoder.", "pooler.")
    tensors = {inside * name.startswith(own) + name: value for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def _shapes(config: dict[str, Any], code: str, head: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, wide = config["hidden_size"], config["intermediate_size"]

    def layer(name: str, rows: int, columns: int, bias: bool = True) -> Iterator[Any]:
        yield f"{name}.weight", (rows, columns)
        if bias:
            yield f"{name}.bias", (rows,)

    def norm(name: str) -> Iterator[Any]:
        yield f"{name}.weight", (hidden,)
        yield f"{name}.bias", (hidden,)

    yield "embeddings.word_embeddings.weight", (config["vocab_size"], hidden)
    yield "embeddings.token_type_embeddings.weight", (config["type_vocab_size"], hidden)
    yield from norm("embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from layer(f"{name}.attention.self.{part}", hidden, hidden)
        yield from layer(f"{name}.attention.output.dense", hidden, hidden)
        yield from norm(f"{name}.attention.output.LayerNorm")
        if code == PLAIN:
            yield from layer(f"{name}.mlp.gated_layers", 2 * wide, hidden, bias=False)
            yield from layer(f"{name}.mlp.wo", hidden, wide)
            yield from norm(f"{name}.mlp.layernorm")
            continue
        for part in ("attention.self.layer_norm_q", "attention.self.layer_norm_k"):
            yield from norm(f"{name}.{part}")
        yield from norm(f"{name}.layer_norm_1")
        yield from norm(f"{name}.layer_norm_2")
        yield from layer(f"{name}.mlp.up_gated_layer", 2 * wide, hidden, bias=False)
        yield from layer(f"{name}.mlp.down_layer", hidden, wide)
    yield from layer("pooler.dense", hidden, hidden)
    if head == "SequenceClassification":
        yield from layer("classifier", len(config["id2label"]), hidden)


def slopes(heads: int) -> list[float]:
    """ALiBi's, as `_get_alibi_head_slopes` of the authors' code makes them."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return slopes(closest) + slopes(2 * closest)[0::2][: heads - closest]


class JinaBert:
    """The published folder's model, one sequence at a time."""

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        self.config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
        self.tensors = {name.removeprefix("bert."): value for name, value in tensors.items()}
        self._torch = torch

    def hidden(self, ids: list[int], types: list[int]) -> Any:
        """The last hidden states, float32 ``[tokens, hidden]``."""
        torch, functional = self._torch, self._torch.nn.functional
        config, tensors = self.config, self.tensors
        heads, wide = config["num_attention_heads"], config["intermediate_size"]
        act = {"geglu": functional.gelu, "reglu": functional.relu}[config["feed_forward_type"]]

        def linear(x: Any, name: str) -> Any:
            return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

        def norm(x: Any, name: str) -> Any:
            weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            return functional.layer_norm(x, weight.shape, weight, bias, config["layer_norm_eps"])

        x = tensors["embeddings.word_embeddings.weight"][torch.tensor(ids)]
        x = x + tensors["embeddings.token_type_embeddings.weight"][torch.tensor(types)]
        x = norm(x, "embeddings.LayerNorm")
        place = torch.arange(len(ids))
        distance = (place[None] - place[:, None]).abs()
        alibi = -torch.tensor(slopes(heads))[:, None, None] * distance
        for number in range(config["num_hidden_layers"]):
            name = f"encoder.layer.{number}"
            parts = {}
            for part in ("query", "key", "value"):
                y = linear(x, f"{name}.attention.self.{part}")
                own = f"{name}.attention.self.layer_norm_{part[0]}"
                y = norm(y, own) if f"{own}.weight" in tensors else y
                parts[part] = y.view(len(ids), heads, -1).transpose(0, 1)
            scores = parts["query"] @ parts["key"].transpose(-1, -2)
            scores = scores / math.sqrt(parts["query"].shape[-1])
            context = (scores + alibi).softmax(-1) @ parts["value"]
            context = context.transpose(0, 1).reshape(len(ids), -1)
            attended = linear(context, f"{name}.attention.output.dense")
            attended = norm(attended + x, f"{name}.attention.output.LayerNorm")
            if f"{name}.mlp.gated_layers.weight" in tensors:
                both = linear(attended, f"{name}.mlp.gated_layers")
                inner = act(both[:, :wide]) * both[:, wide:]
                x = norm(linear(inner, f"{name}.mlp.wo") + attended, f"{name}.mlp.layernorm")
            else:
                x = norm(x + attended, f"{name}.layer_norm_1")
                both = linear(x, f"{name}.mlp.up_gated_layer")
                inner = both[:, :wide] * act(both[:, wide:])
                x = norm(x + linear(inner, f"{name}.mlp.down_layer"), f"{name}.layer_norm_2")
        return x

    def logits(self, ids: list[int], types: list[int]) -> Any:
        """Those of a sequence classifier, float32 ``[labels]``."""
        tensors, torch = self.tensors, self._torch
        first = self.hidden(ids, types)[0]
        pooled = torch.tanh(tensors["pooler.dense.weight"] @ first + tensors["pooler.dense.bias"])
        return tensors["classifier.weight"] @ pooled + tensors["classifier.bias"]
