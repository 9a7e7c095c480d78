"""BERT folders written with numpy and the safetensors library alone, for tests of reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

ARCHITECTURES = {
    "encoder": "BertModel",
    "sequence-classification": "BertForSequenceClassification",
    "question-answering": "BertForQuestionAnswering",
    "token-classification": "BertForTokenClassification",
    "masked-lm": "BertForMaskedLM",
}
Tensors = dict[str, np.ndarray]


def bert_config(head: str = "encoder", **changes: Any) -> dict[str, Any]:
    """config.json of a very small BERT; a change to None takes the key out."""
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[head]],
        "model_type": "bert",
        "vocab_size": 11,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }
    if head.endswith("-classification"):
        config["id2label"] = {"0": "no", "1": "maybe", "2": "yes"}
        config["label2id"] = {"no": 0, "maybe": 1, "yes": 2}
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def bert_tensors(config: dict[str, Any], head: str = "encoder", seed: int = 0) -> Tensors:
    """Random float32 tensors under the names transformers gives them."""
    random = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tensors: Tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = random.standard_normal(shape).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns)
        add(f"{name}.bias", rows)

    bert = "" if head == "encoder" else "bert."
    add(f"{bert}embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    add(f"{bert}embeddings.position_embeddings.weight", config["max_position_embeddings"], hidden)
    add(f"{bert}embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    add(f"{bert}embeddings.LayerNorm.weight", hidden)
    add(f"{bert}embeddings.LayerNorm.bias", hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"{bert}encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{name}", hidden, hidden)
        linear(f"{prefix}.attention.output.dense", hidden, hidden)
        add(f"{prefix}.attention.output.LayerNorm.weight", hidden)
        add(f"{prefix}.attention.output.LayerNorm.bias", hidden)
        linear(f"{prefix}.intermediate.dense", inner, hidden)
        linear(f"{prefix}.output.dense", hidden, inner)
        add(f"{prefix}.output.LayerNorm.weight", hidden)
        add(f"{prefix}.output.LayerNorm.bias", hidden)
    if head in ("encoder", "sequence-classification"):
        linear(f"{bert}pooler.dense", hidden, hidden)
    if head.endswith("-classification"):
        linear("classifier", len(config.get("id2label", [0, 1])), hidden)
    elif head == "question-answering":
        linear("qa_outputs", 2, hidden)
    elif head == "masked-lm":
        linear("cls.predictions.transform.dense", hidden, hidden)
        add("cls.predictions.transform.LayerNorm.weight", hidden)
        add("cls.predictions.transform.LayerNorm.bias", hidden)
        add("cls.predictions.bias", config["vocab_size"])
    return tensors


def write_folder(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """Write config.json, model.safetensors and a tokenizer file that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_bert(folder: Path, head: str = "encoder", **changes: Any) -> Path:
    """A whole small model of random weights; ``changes`` are config.json's."""
    config = bert_config(head, **changes)
    return write_folder(folder, config, bert_tensors(config, head))


def prune_by_hand(weight: np.ndarray, n: int = 1, m: int = 2) -> np.ndarray:
    """N:M magnitude pruning, one group after the other, the plainest way."""
    pruned = weight.copy()
    for row in pruned:
        for start in range(0, len(row), m):
            group = row[start : start + m]
            order = sorted(range(m), key=lambda place: (-abs(float(group[place])), place))
            for place in order[n:]:
                group[place] = 0.0
    return pruned
