"""An encoder checkpoint's config.json, validated."""

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

# transformers' names of the supported activations, mapped to one name for each function.
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
_MOST_UNNAMED = 1 << 16  # classes; if they are named, the size of the file limits them
_BUCKETS = 32  # of distances, in MPNet; transformers always computes this many


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and options of an encoder and its head, with the names of BERT's config.json.

    ``family`` describes how the model differs from BERT apart from its sizes, ``head_shape`` the
    structure of its head (None without one), ``attention`` each layer's window and rotary
    embedding, ``disentangled`` what DeBERTa adds to attention (None in other families), ``biases``
    which of `families.BIASES` there are. ``embedding_size`` is the embeddings' width;
    ``position_table`` says whether they have a row for each position. ``layer_order`` has for each
    layer, in order of computation, the number under which its weights are stored; layers that share
    weights have the same number. ``type_vocab_size`` is 1 if the model does not distinguish token
    types; ``token_types`` is the number of rows in its table of them, None without one;
    ``task_types`` likewise, 0 without one. ``labels`` are the names of the classes in order (empty
    for encoder, question-answering and masked-lm); ``sparsity`` is sparsebert's own record, None
    without one; ``raw`` is the whole file.
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
        """The row of the position table for a text's first token."""
        return self.pad_token_id + 1 if self.family.positions == "counted" else 0

    @property
    def max_length(self) -> int:
        """Maximum sequence length in tokens, special tokens included."""
        return self.max_position_embeddings - self.first_position

    @property
    def stored_layers(self) -> int:
        """The number of layers whose weights are stored."""
        return self.layer_order[-1] + 1

    @property
    def projects(self) -> bool:
        """Whether there is a linear layer between the embeddings and the first layer."""
        return self.family.always_projected or self.embedding_size != self.hidden_size

    @property
    def relative_buckets(self) -> int:
        """Rows of the relative position bias, 0 without one."""
        return _BUCKETS if self.family.relative_bias else 0

    @property
    def slopes(self) -> tuple[float, ...]:
        """By how much each head's scores fall per token of distance; empty unless they do.

        For n heads, the geometric sequence 2^(-8/n), 2^(-16/n), ... (Press et al. 2021,
        arXiv:2108.12409). If n is not a power of two, the sequence for the next lower power,
        followed by every second term of the sequence for twice that power.
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
        """The pattern recorded for the pruned layers; None if none is recorded."""
        return read_pattern(self.sparsity or {})

    @property
    def recorded_layers(self) -> tuple[str, ...]:
        """Canonical names of the layers that are recorded as pruned."""
        return tuple((self.sparsity or {}).get("layers", ()))


def parse_config(raw: dict[str, Any], tensor_names: Collection[str], where: Path) -> EncoderConfig:
    """Check config.json. ``tensor_names`` (canonical) determine the head if the file does not.

    Raises UnsupportedArchitectureError for models other than the encoders of `FAMILIES` and
    CheckpointError for missing or invalid values, naming the key.
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
            f"{where}: {read.key('hidden_size')} {hidden} cannot be divided among {heads} "
            "attention heads."
        )
    layers = read.count("num_hidden_layers", most=_MOST_LAYERS)
    rotary = family.positions == "rotary"
    if rotary and hidden // heads % 2:
        raise CheckpointError(
            f"{where}: rotary embeddings need attention heads with an even number of dimensions, "
            f"not {hidden // heads}."
        )
    if rotary and raw.get("head_dim") not in (None, hidden // heads):
        raise UnsupportedArchitectureError(
            f"{where}: head_dim is {raw['head_dim']!r}, but only hidden_size / "
            f"num_attention_heads, {hidden // heads}, is supported."
        )
    if family.relative_bias and read.count("relative_attention_num_buckets", _BUCKETS) != _BUCKETS:
        raise UnsupportedArchitectureError(
            f"{where}: relative_attention_num_buckets must be {_BUCKETS}, as in every MPNet model."
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
            f"after that of pad_token_id, {config.pad_token_id}."
        )
    return config


def read_family(raw: dict[str, Any], where: Path) -> Family:
    """The family of a config.json, determined before looking at its tensors.

    Raises UnsupportedArchitectureError for another kind of model, or for settings that no encoder
    here computes: this is more informative than a missing tensor would be.
    """
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise CheckpointError(f"{where}: 'architectures' must be a list of names.")
    model_type = model_type_of(raw)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        said = f"model_type {model_type!r}" if model_type is not None else "no model_type"
        raise UnsupportedArchitectureError(
            f"{where} has {said}; the supported model types are {', '.join(FAMILIES)}."
        )
    family = FAMILIES[model_type]
    known = family.architectures
    if architectures and not any(name in known for name in architectures):
        raise UnsupportedArchitectureError(
            f"{where}: {architectures[0]} is not supported; the supported classes are "
            f"{', '.join(known)}."
        )
    CONFIG.check(raw, where, UnsupportedArchitectureError)
    return family


def model_type_of(raw: dict[str, Any]) -> object:
    """The ``model_type`` of a config.json; in files without this key, its architecture's."""
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
    """The head that 'architectures' names or, without it, the one that the tensors belong to."""
    known = family.architectures
    for name in raw.get("architectures") or []:
        if name in known:
            return _kept_head(family, known[name], names)
    return _head_from_names(family, names)


def _kept_head(family: Family, head: Head, names: Collection[str]) -> Head:
    """The head, or none if a masked-LM model was saved without it.

    sentence-transformers keeps the class name in config.json, but saves only the encoder's tensors.
    """
    if head is not Head.MASKED_LM or not names:
        return head
    shape = family.heads[head]
    layers = (shape.dense, shape.norm, shape.last)
    own = {shape.last_bias, *(f"{layer}.weight" for layer in layers if layer)}
    return head if own & set(names) else Head.ENCODER


def _head_from_names(family: Family, names: Collection[str]) -> Head:
    for head, shape in family.heads.items():
        # In BERT, only the sequence classifier reads the pooler; token classifiers are saved
        # without one. A masked-LM decoder's weight is tied, so its bias identifies it.
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
            f"{read.where}: legacy is False, but of DeBERTa's masked-LM heads only the legacy one "
            "is supported (the encoder alone and its other heads are supported, too)."
        )
    if shape.activation and shape.activation not in _HEAD_ACTIVATIONS:
        usual = family.defaults.get(shape.activation, "gelu")
        activation = _HEAD_ACTIVATIONS[read.choice(shape.activation, _HEAD_ACTIVATIONS, usual)]
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
            f"{read.where}: inner_group_num is {inner}, but groups of more than one layer are not "
            "supported."
        )
    groups = read.count("num_hidden_groups", 1)
    if groups > layers:
        raise CheckpointError(
            f"{read.where}: num_hidden_groups is {groups}, but there are only {layers} layers."
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
            f"{read.where}: pad_token_id must be {default}, not {padding}: "
            f"{family.class_name} counts positions from it."
        )
    return padding


def _labels(raw: dict[str, Any], where: Path) -> tuple[str, ...]:
    named = raw.get("id2label")
    if named is None:
        # transformers omits the default of two unnamed classes from the file.
        count = raw.get("num_labels", raw.get("_num_labels", 2))
        if type(count) is not int or not 1 <= count <= _MOST_UNNAMED:
            raise CheckpointError(
                f"{where}: num_labels must be an integer from 1 to {_MOST_UNNAMED} if id2label "
                f"does not name the classes, not {count!r}."
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
