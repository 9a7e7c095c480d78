"""config.json of a BERT checkpoint, every value checked before anything relies on it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.documents import write_json
from sparsebert.errors import CheckpointError, PatternError, UnsupportedArchitectureError
from sparsebert.patterns import Pattern

CONFIG_NAME = "config.json"
SPARSITY_VERSION = 1


class Head(str, Enum):
    """What stands on the encoder."""

    ENCODER = "encoder"
    SEQUENCE = "sequence-classification"
    QUESTION = "question-answering"
    TOKEN = "token-classification"
    MASKED_LM = "masked-lm"


ARCHITECTURES = {
    "BertModel": Head.ENCODER,
    "BertForSequenceClassification": Head.SEQUENCE,
    "BertForQuestionAnswering": Head.QUESTION,
    "BertForTokenClassification": Head.TOKEN,
    "BertForMaskedLM": Head.MASKED_LM,
    "BertForPreTraining": Head.MASKED_LM,
}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_MOST = 1 << 24  # of anything counted: rows, labels; real models stay far below
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and choices of an encoder and its head; field names are config.json's own.

    ``labels`` are the names of the classes in order (empty for encoder, question-answering and
    masked-lm); ``sparsity`` is sparsebert's own record, None where there is none; ``raw`` is the
    whole file.
    """

    head: Head
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    labels: tuple[str, ...]
    problem_type: str | None
    sparsity: dict[str, Any] | None
    raw: dict[str, Any] = field(repr=False)

    @property
    def recorded_pattern(self) -> Pattern | None:
        """The pattern that the folder says its pruned layers have; None where it says nothing."""
        text = (self.sparsity or {}).get("pattern")
        return None if text is None else Pattern.parse(text)

    @property
    def recorded_layers(self) -> tuple[str, ...]:
        """Canonical names of the layers that the folder says are pruned."""
        return tuple((self.sparsity or {}).get("layers", ()))


def parse_config(raw: dict[str, Any], tensor_names: Collection[str], where: Path) -> EncoderConfig:
    """Check config.json's contents. ``tensor_names`` (canonical) decide the head if it does not.

    Raises UnsupportedArchitectureError for models other than plain absolute-position BERT encoders
    and CheckpointError for values that are missing or make no sense, each naming the key.
    """
    read = _Reader(raw, where)
    head = _head(raw, tensor_names, where)
    _refuse_variants(raw, where)
    hidden = read.count("hidden_size")
    heads = read.count("num_attention_heads")
    if hidden % heads:
        raise CheckpointError(
            f"{where}: hidden_size {hidden} does not divide into {heads} attention heads."
        )
    vocabulary = read.count("vocab_size")
    padding = raw.get("pad_token_id", 0)
    padding = 0 if padding is None else padding  # transformers 5 writes null for 'none'
    if type(padding) is not int or not 0 <= padding < vocabulary:
        raise CheckpointError(f"{where}: pad_token_id {padding!r} is not in the vocabulary.")
    labels = _labels(raw, where) if head in (Head.SEQUENCE, Head.TOKEN) else ()
    return EncoderConfig(
        head=head,
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=read.count("num_hidden_layers", most=_MOST_LAYERS),
        num_attention_heads=heads,
        intermediate_size=read.count("intermediate_size"),
        hidden_act=read.choice("hidden_act", ACTIVATIONS, "gelu"),
        layer_norm_eps=read.epsilon("layer_norm_eps", 1e-12),
        max_position_embeddings=read.count("max_position_embeddings", 512),
        type_vocab_size=read.count("type_vocab_size", 2),
        pad_token_id=padding,
        labels=labels,
        problem_type=_problem_type(raw, head, labels, where),
        sparsity=_sparsity(raw, where),
        raw=raw,
    )


def write_config(path: Path, raw: dict[str, Any]) -> None:
    """Write ``raw`` as config.json: ``path`` is the file, or the folder it goes into."""
    write_json(path / CONFIG_NAME if path.is_dir() else path, raw)


class _Reader:
    """Values of a JSON object, checked one by one."""

    def __init__(self, raw: dict[str, Any], where: Path) -> None:
        self._raw = raw
        self._where = where

    def count(self, key: str, default: int | None = None, *, most: int = _MOST) -> int:
        value = self._raw.get(key, default)
        if value is None:
            raise CheckpointError(f"{self._where} lacks '{key}'.")
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{self._where}: {key} must be a whole number from 1 to {most}, not {value!r}."
            )
        return value

    def epsilon(self, key: str, default: float) -> float:
        value = self._raw.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value < 1:
            raise CheckpointError(
                f"{self._where}: {key} must be a number between 0 and 1, not {value!r}."
            )
        return float(value)

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        value = self._raw.get(key, default)
        if value not in known:
            raise UnsupportedArchitectureError(
                f"{self._where}: {key} {value!r} is not supported; supported are "
                f"{', '.join(known)}."
            )
        return str(value)


def _head(raw: dict[str, Any], tensor_names: Collection[str], where: Path) -> Head:
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise CheckpointError(f"{where}: 'architectures' must be a list of names.")
    model_type = raw.get("model_type")
    if model_type is None and any(name in ARCHITECTURES for name in architectures):
        model_type = "bert"  # files older than the key
    if model_type != "bert":
        said = f"model_type {model_type!r}" if model_type is not None else "no model_type"
        raise UnsupportedArchitectureError(
            f"{where} gives {said}: only BERT encoders (model_type 'bert') are supported, as "
            f"{', '.join(ARCHITECTURES)}."
        )
    for name in architectures:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    if architectures:
        raise UnsupportedArchitectureError(
            f"{where}: {architectures[0]} is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}."
        )
    return _head_from_names(tensor_names)


def _head_from_names(names: Collection[str]) -> Head:
    if "qa_outputs.weight" in names:
        return Head.QUESTION
    if "classifier.weight" in names:
        # Only the sequence classifier reads the pooler; token classifiers are saved without one.
        return Head.SEQUENCE if "pooler.dense.weight" in names else Head.TOKEN
    if any(name.startswith("cls.predictions.") for name in names):
        return Head.MASKED_LM
    return Head.ENCODER


def _refuse_variants(raw: dict[str, Any], where: Path) -> None:
    positions = raw.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise UnsupportedArchitectureError(
            f"{where}: position_embedding_type {positions!r} is not supported, only 'absolute'."
        )
    for key in ("is_decoder", "add_cross_attention"):
        if raw.get(key):
            raise UnsupportedArchitectureError(
                f"{where}: {key} is set; decoders and cross-attention are not supported, only "
                "encoders."
            )
    if raw.get("auto_map"):
        raise UnsupportedArchitectureError(
            f"{where}: the model brings its own code (auto_map), which sparsebert never runs; only "
            "the architectures of transformers itself are supported."
        )
    if raw.get("quantization_config"):
        raise UnsupportedArchitectureError(
            f"{where}: the weights are quantised (quantization_config); start from the original "
            "float checkpoint."
        )


def _labels(raw: dict[str, Any], where: Path) -> tuple[str, ...]:
    named = raw.get("id2label")
    if named is None:
        # transformers leaves the default of two unnamed classes out of the file.
        count = raw.get("num_labels", raw.get("_num_labels", 2))
        if type(count) is not int or not 1 <= count <= _MOST:
            raise CheckpointError(f"{where}: num_labels {count!r} is not a number of classes.")
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{where}: id2label must map 0, 1, ... to the names of the classes.")
    expected = [str(i) for i in range(len(named))]
    if set(named) != set(expected):
        raise CheckpointError(f"{where}: the keys of id2label must be 0 to {len(named) - 1}.")
    return tuple(str(named[key]) for key in expected)


def _problem_type(
    raw: dict[str, Any], head: Head, labels: tuple[str, ...], where: Path
) -> str | None:
    if head is not Head.SEQUENCE:
        return None
    value = raw.get("problem_type")
    if value is None:
        return "regression" if len(labels) == 1 else None
    if value not in PROBLEM_TYPES:
        raise CheckpointError(
            f"{where}: problem_type {value!r} must be one of {', '.join(PROBLEM_TYPES)}."
        )
    return str(value)


def _sparsity(raw: dict[str, Any], where: Path) -> dict[str, Any] | None:
    record = raw.get("sparsity")
    if record is None:
        return None
    problem = CheckpointError(f"{where}: 'sparsity' is not a record that sparsebert wrote.")
    if not isinstance(record, dict):
        raise problem
    version = record.get("format_version")
    if type(version) is int and version > SPARSITY_VERSION:
        raise CheckpointError(
            f"{where}: 'sparsity' has format version {version}; this sparsebert reads up to "
            f"{SPARSITY_VERSION}. Install a newer one."
        )
    layers, lineage = record.get("layers", []), record.get("lineage", [])
    if (
        version != SPARSITY_VERSION
        or not isinstance(record.get("pattern"), str | None)
        or not isinstance(record.get("method"), str | None)
        or not isinstance(layers, list)
        or not all(isinstance(name, str) for name in layers)
        or not isinstance(lineage, list)
        or not all(isinstance(step, dict) for step in lineage)
    ):
        raise problem
    if record.get("pattern") is not None:
        try:
            Pattern.parse(record["pattern"])
        except PatternError as error:
            raise CheckpointError(f"{where}: 'sparsity': {error}") from error
    elif layers:
        raise problem
    return record
