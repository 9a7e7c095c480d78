"""config.json of an encoder's checkpoint, validated."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.attention_layers import LayerAttention, attention_layers
from sparsebert.checkpoint.disentangled_attention import (
    DisentangledAttention,
    disentangled_attention,
)
from sparsebert.checkpoint.families import BIASES, DEBERTA_V2, FAMILIES, Family, HeadShape
from sparsebert.checkpoint.families import Head as Head
from sparsebert.checkpoint.hub_configs import CONFIG_NAME as CONFIG_NAME
from sparsebert.checkpoint.json_files import ConfigValues, write_json
from sparsebert.checkpoint.known_keys import CONFIG
from sparsebert.checkpoint.sparsity import read_pattern, read_sparsity
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError
from sparsebert.patterns import Pattern

# transformers' names of the supported activations, each with the name that stands for its function.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
_HEAD_ACTIVATIONS = {**ACTIVATIONS, "tanh": "tanh"}
_HEAD_POOLINGS = ("cls", "mean")

_MOST_LAYERS = 1000
_MOST_UNNAMED = 1 << 16  # classes; with names the file is as large as they are many
_BUCKETS = 32  # of distances, in MPNet: transformers computes no other number


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and choices of an encoder and its head; names are those of BERT's config.json.

    ``family`` is how the model differs from BERT whatever its sizes, ``head_shape`` what its head
    is made of (None for an encoder alone), ``attention`` each layer's reach and rotary embedding,
    ``disentangled`` what DeBERTa's adds to it (None for others), ``biases`` which of
    `families.BIASES` there are. ``embedding_size`` is the embeddings' width; ``position_table``
    says whether they have a row for each position. ``layer_order`` has for each layer, in computing
    order, the number under which its weights are stored: several where layers share theirs.
    ``type_vocab_size`` is 1 where the model tells no types apart, ``token_types`` the rows of its
    table of them, None without one; ``task_types`` likewise, 0 without.
    ``labels`` are the names of the classes in order (empty for encoder, question-answering and
    masked-lm); ``sparsity`` is sparsebert's own record, None where there is none; ``raw`` is the
    whole file.
    """

    family: Family
    head: Head
    head_shape: HeadShape | None
    vocab_size: int
    hidden_size: int
    embedding_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    max_position_embeddings: int
    type_vocab_size: int
    token_types: int | None
    task_types: int
    pad_token_id: int
    biases: tuple[str, ...]
    attention: tuple[LayerAttention, ...]
    layer_order: tuple[int, ...]
    disentangled: DisentangledAttention | None
    position_table: bool
    labels: tuple[str, ...]
    problem_type: str | None
    sparsity: dict[str, Any] | None
    raw: dict[str, Any] = field(repr=False)

    @property
    def first_position(self) -> int:
        """The row of the position table that a text's first token takes."""
        return self.pad_token_id + 1 if self.family.positions == "counted" else 0

    @property
    def max_length(self) -> int:
        """Maximum sequence length in tokens, special tokens included."""
        return self.max_position_embeddings - self.first_position

    @property
    def stored_layers(self) -> int:
        """How many layers' weights there are."""
        return self.layer_order[-1] + 1

    @property
    def projects(self) -> bool:
        """Whether a linear layer stands between the embeddings and the first layer."""
        return self.family.always_projected or self.embedding_size != self.hidden_size

    @property
    def relative_buckets(self) -> int:
        """Rows of the bias by distance, 0 without one."""
        return _BUCKETS if self.family.relative_bias else 0

    @property
    def slopes(self) -> tuple[float, ...]:
        """By how much each head's scores fall a token of distance; empty where they do not.

        Of n heads the geometric sequence 2^(-8/n), 2^(-16/n), ... (Press et al. 2021,
        arXiv:2108.12409). Where n is no power of two, that of the power below, and then every
        second one of twice as many.
        """
        if self.family.positions != "alibi":
            return ()
        heads = self.num_attention_heads
        power = 1 << int(math.log2(heads))

        def sequence(count: int) -> list[float]:
            return [2 ** (-8 * (i + 1) / count) for i in range(count)]

        return (*sequence(power), *sequence(2 * power)[::2][: heads - power])

    @property
    def recorded_pattern(self) -> Pattern | None:
        """The pattern that the folder says its pruned layers have; None where it says nothing."""
        return read_pattern(self.sparsity or {})

    @property
    def recorded_layers(self) -> tuple[str, ...]:
        """Canonical names of the layers that the folder says are pruned."""
        return tuple((self.sparsity or {}).get("layers", ()))


def parse_config(raw: dict[str, Any], tensor_names: Collection[str], where: Path) -> EncoderConfig:
    """Check config.json's contents. ``tensor_names`` (canonical) decide the head if it does not.

    Raises UnsupportedArchitectureError for models other than the encoders of `FAMILIES` and
    CheckpointError for values that are missing or make no sense, each naming the key.
    """
    family = read_family(raw, where)
    head = _head(raw, family, tensor_names)
    used = {key: value for key, value in raw.items() if key not in family.ignored}
    used |= {family.fields[name]: raw[name] for name in family.aliases if name in raw}
    read = ConfigValues(used, where, family.fields)
    hidden = read.count("hidden_size")
    heads = read.count("num_attention_heads")
    if hidden % heads:
        raise CheckpointError(
            f"{where}: {read.key('hidden_size')} {hidden} does not divide into {heads} attention "
            "heads."
        )
    layers = read.count("num_hidden_layers", most=_MOST_LAYERS)
    rotary = family.positions == "rotary"
    if rotary and hidden // heads % 2:
        raise CheckpointError(
            f"{where}: heads of {hidden // heads} dimensions cannot be turned in pairs."
        )
    if rotary and raw.get("head_dim") not in (None, hidden // heads):
        raise UnsupportedArchitectureError(
            f"{where}: head_dim is {raw['head_dim']!r}, and heads of other than hidden_size by "
            f"num_attention_heads dimensions, {hidden // heads}, are not supported."
        )
    if family.relative_bias and read.count("relative_attention_num_buckets", _BUCKETS) != _BUCKETS:
        raise UnsupportedArchitectureError(
            f"{where}: relative_attention_num_buckets must be {_BUCKETS}, as in every MPNet."
        )
    labels = _labels(raw, where) if head in (Head.SEQUENCE, Head.TOKEN) else ()
    types = _token_types(family, read)
    config = EncoderConfig(
        family=family,
        head=head,
        head_shape=_head_shape(family, head, read),
        vocab_size=read.count("vocab_size"),
        hidden_size=hidden,
        embedding_size=read.count("embedding_size", 128) if family.embedding_size else hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=read.count("intermediate_size"),
        hidden_act=ACTIVATIONS[
            read.choice("hidden_act", ACTIVATIONS, family.defaults.get("hidden_act", "gelu"))
        ],
        layer_norm_eps=read.epsilon("layer_norm_eps", family.defaults.get("layer_norm_eps", 1e-12)),
        max_position_embeddings=read.count(
            "max_position_embeddings", family.defaults.get("max_position_embeddings", 512)
        ),
        type_vocab_size=types or 1,
        token_types=types,
        task_types=_task_types(family, read),
        pad_token_id=_padding(family, read),
        biases=_biases(family, read),
        attention=attention_layers(read, layers, family),
        layer_order=_layer_order(family, read, layers),
        disentangled=disentangled_attention(read, family),
        position_table=_position_table(family, read),
        labels=labels,
        problem_type=_problem_type(raw, head, labels, where),
        sparsity=read_sparsity(raw, where),
        raw=raw,
    )
    if config.max_length < 1:
        raise CheckpointError(
            f"{where}: max_position_embeddings {config.max_position_embeddings} leaves no position "
            f"behind the padding's, {config.pad_token_id}."
        )
    return config


def read_family(raw: dict[str, Any], where: Path) -> Family:
    """The family of a config.json, to know before its tensors are looked at.

    Raises UnsupportedArchitectureError for another kind of model, or one that asks for what no
    encoder here computes: that says more than a missing tensor would.
    """
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise CheckpointError(f"{where}: 'architectures' must be a list of names.")
    model_type = model_type_of(raw)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        said = f"model_type {model_type!r}" if model_type is not None else "no model_type"
        raise UnsupportedArchitectureError(
            f"{where} gives {said}; supported are encoders of the types {', '.join(FAMILIES)}."
        )
    family = FAMILIES[model_type]
    known = family.architectures
    if architectures and not any(name in known for name in architectures):
        raise UnsupportedArchitectureError(
            f"{where}: {architectures[0]} is not supported; supported are {', '.join(known)}."
        )
    CONFIG.check(raw, where, UnsupportedArchitectureError)
    return family


def model_type_of(raw: dict[str, Any]) -> object:
    """The ``model_type`` of a config.json; that of its architecture in files older than the key."""
    named = raw.get("architectures")
    if raw.get("model_type") is None and isinstance(named, list):
        for family in FAMILIES.values():
            if any(name in family.architectures for name in named):
                return family.model_type
    return raw.get("model_type")


def write_config(path: Path, raw: dict[str, Any]) -> None:
    """Write ``raw`` as config.json: ``path`` is the file, or the folder it goes into."""
    write_json(path / CONFIG_NAME if path.is_dir() else path, raw)


def _head(raw: dict[str, Any], family: Family, names: Collection[str]) -> Head:
    """The head that 'architectures' names; without it, the one that the tensors are of."""
    known = family.architectures
    for name in raw.get("architectures") or []:
        if name in known:
            return _kept_head(family, known[name], names)
    return _head_from_names(family, names)


def _kept_head(family: Family, head: Head, names: Collection[str]) -> Head:
    """The head, or none where a masked-LM model was saved without it.

    sentence-transformers keeps the class's name in config.json and only the encoder's tensors.
    """
    if head is not Head.MASKED_LM or not names:
        return head
    shape = family.heads[head]
    layers = (shape.dense, shape.norm, shape.last)
    own = {shape.last_bias, *(f"{layer}.weight" for layer in layers if layer)}
    return head if own & set(names) else Head.ENCODER


def _head_from_names(family: Family, names: Collection[str]) -> Head:
    for head, shape in family.heads.items():
        # Of BERT's, only the sequence classifier reads the pooler; token classifiers are saved
        # without one. A masked-LM decoder's weight is tied.
        needed = [f"{shape.dense}.weight"] if shape.dense else []
        needed = [shape.last_bias] if head is Head.MASKED_LM else [*needed, f"{shape.last}.weight"]
        if all(name in names for name in needed):
            return head
    return Head.ENCODER


def _head_shape(family: Family, head: Head, read: ConfigValues) -> HeadShape | None:
    shape = family.heads.get(head)
    if shape is None:
        return None
    if family is DEBERTA_V2 and head is Head.MASKED_LM and not read.switch("legacy", True):
        raise UnsupportedArchitectureError(
            f"{read.where}: legacy is False, and of DeBERTa's masked-LM heads only the other is "
            "supported; the encoder alone and its other heads are."
        )
    if shape.activation and shape.activation not in _HEAD_ACTIVATIONS:
        activation = _HEAD_ACTIVATIONS[read.choice(shape.activation, _HEAD_ACTIVATIONS, "gelu")]
        shape = replace(shape, activation=activation)
    if shape.pooling and shape.pooling not in _HEAD_POOLINGS:
        shape = replace(shape, pooling=read.choice(shape.pooling, _HEAD_POOLINGS, "cls"))
    if family.biases is not None:
        return shape
    return replace(
        shape,
        has_dense_bias=read.switch("classifier_bias", False),
        has_bias=head is not Head.MASKED_LM or read.switch("decoder_bias", True),
    )


def _token_types(family: Family, read: ConfigValues) -> int | None:
    usual = family.defaults.get("type_vocab_size", 2)
    without = family.optional_token_types and read.raw.get("type_vocab_size", usual) == 0
    if without or not family.token_types:
        return None
    return read.count("type_vocab_size", usual)


def _position_table(family: Family, read: ConfigValues) -> bool:
    if family.disentangled:
        return read.switch("position_biased_input", True)
    return family.positions in ("absolute", "counted")


def _task_types(family: Family, read: ConfigValues) -> int:
    if not family.task_types or not read.switch("use_task_id", False):
        return 0
    return read.count("task_type_vocab_size", 3)


def _layer_order(family: Family, read: ConfigValues, layers: int) -> tuple[int, ...]:
    if not family.shared_layers:
        return tuple(range(layers))
    inner = read.count("inner_group_num", 1)
    if inner != 1:
        raise UnsupportedArchitectureError(
            f"{read.where}: inner_group_num is {inner}, and groups of more than one layer are not "
            "supported."
        )
    groups = read.count("num_hidden_groups", 1)
    if groups > layers:
        raise CheckpointError(
            f"{read.where}: num_hidden_groups is {groups}, more than its {layers} layers."
        )
    return tuple(int(layer / (layers / groups)) for layer in range(layers))


def _biases(family: Family, read: ConfigValues) -> tuple[str, ...]:
    if family.biases is not None:
        return family.biases
    keys = {"attention": "attention_bias", "norm": "norm_bias"}
    return tuple(name for name in BIASES if read.switch(keys.get(name, "mlp_bias"), False))


def _padding(family: Family, read: ConfigValues) -> int:
    default = family.defaults.get("pad_token_id", 0)
    padding = read.raw.get("pad_token_id", default)
    if padding is None and family.positions != "counted":
        padding = 0  # transformers 5 writes null for 'none'
    if type(padding) is not int or not 0 <= padding < read.count("vocab_size"):
        raise CheckpointError(f"{read.where}: pad_token_id {padding!r} is not in the vocabulary.")
    if family.relative_bias and padding != default:
        raise UnsupportedArchitectureError(
            f"{read.where}: pad_token_id must be {default}, from which {family.class_name} counts "
            f"positions, not {padding}."
        )
    return padding


def _labels(raw: dict[str, Any], where: Path) -> tuple[str, ...]:
    named = raw.get("id2label")
    if named is None:
        # transformers leaves the default of two unnamed classes out of the file.
        count = raw.get("num_labels", raw.get("_num_labels", 2))
        if type(count) is not int or not 1 <= count <= _MOST_UNNAMED:
            raise CheckpointError(
                f"{where}: num_labels must be a whole number from 1 to {_MOST_UNNAMED} where "
                f"id2label does not name the classes, not {count!r}."
            )
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
