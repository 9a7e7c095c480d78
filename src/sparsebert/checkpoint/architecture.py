"""The tensors of an encoder's checkpoint: their names, shapes, and which are linear layers.

Names are canonical (see `families`); a model's family determines their spelling in its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.checkpoint.families import Family, Head
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.patterns import Pattern

PARTS = ("encoder", "pooler", "head")
EMBEDDINGS = "embeddings"  # the part of the projection after the embeddings, which is never pruned

WORDS = "embeddings.word_embeddings.weight"
_PROJECTION = "embeddings.projection"
POOLER = "pooler.dense"
RESIDUAL_NORM = "attention.residual.LayerNorm"
RELATIVE_EMBEDDINGS = "encoder.rel_embeddings.weight"  # [distances, hidden]
RELATIVE_BIAS = "encoder.relative_attention_bias.weight"  # [buckets of distances, heads]


@dataclass(frozen=True)
class LinearLayer:
    """The weight of a linear layer, ``[rows, columns]`` = outputs by inputs."""

    name: str
    stored_as: str
    part: str
    rows: int
    columns: int

    def check_divides(self, pattern: Pattern) -> None:
        """PatternError, naming the layer, unless the pattern's M divides its inputs."""
        if self.columns % pattern.m:
            raise PatternError(
                f"layer '{self.name}' has an input dimension of {self.columns}, which cannot be "
                f"divided into groups of {pattern.m} for {pattern}: choose a pattern whose M "
                "divides it."
            )


def canonical_names(stored: Iterable[str], family: Family, where: object) -> dict[str, str]:
    """Canonical names to names in the file; CheckpointError if two of these mean the same."""
    names: dict[str, str] = {}
    for name in stored:
        known = names.setdefault(family.canonical(name), name)
        if known != name:
            raise CheckpointError(
                f"{where} contains both '{known}' and '{name}', which are two names of one tensor."
            )
    for shape in family.heads.values():
        own = f"{shape.last}.bias"
        if own in names and own != shape.last_bias:
            # If tied, both are the same; if not, transformers uses the layer's own.
            names.pop(shape.last_bias, None)
            names[shape.last_bias] = names[own]
    return names


def layer_linears(config: EncoderConfig) -> tuple[tuple[str, int, int], ...]:
    """An encoder layer's linear layers, in order of computation: name in it, outputs, inputs."""
    hidden, wide = config.hidden_size, config.intermediate_size
    attention = (
        [("attention.self.query_key_value", 3 * hidden, hidden)]
        if config.family.fused_attention
        else [(f"attention.self.{name}", hidden, hidden) for name in ("query", "key", "value")]
    )
    family = config.family
    gate = [("intermediate.gate", wide, hidden)] if family.gated and not family.fused_gate else []
    return (
        *attention,
        ("attention.output.dense", hidden, hidden),
        *gate,
        ("intermediate.dense", 2 * wide if family.fused_gate else wide, hidden),
        ("output.dense", hidden, wide),
    )


def expected_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors the model must have, by canonical name, in order of computation."""
    shapes: dict[str, tuple[int, ...]] = {}
    _add_embeddings(shapes, config)
    for number in range(config.stored_layers):
        _add_layer(shapes, config, number)
    if config.family.norm_first:
        _add_norm(shapes, "encoder.LayerNorm", config.hidden_size, "norm" in config.biases)
    _add_head(shapes, config)
    return shapes


def optional_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that the model uses if the file has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    decoder = decoder_weight(config)
    if decoder:  # absent where it is tied to the word embeddings
        shapes[decoder] = (config.vocab_size, config.embedding_size)
    if config.family.pooler:
        _add_linear(shapes, POOLER, config.hidden_size, config.hidden_size)
    return shapes


def last_layer(config: EncoderConfig) -> str | None:
    """Canonical name of the weight of a head's last layer; None for a masked-LM decoder."""
    shape = config.head_shape
    return f"{shape.last}.weight" if shape and config.head is not Head.MASKED_LM else None


def decoder_weight(config: EncoderConfig) -> str | None:
    """Canonical name of a masked-LM decoder's weight; None for other heads."""
    shape = config.head_shape
    return f"{shape.last}.weight" if shape and config.head is Head.MASKED_LM else None


def check_shapes(
    config: EncoderConfig, shapes: Mapping[str, tuple[int, ...]], where: object
) -> tuple[str, ...]:
    """Check the shapes found (by canonical name) against the config's.

    Returns the names of the tensors that the model uses, in order of computation; others are
    extras. CheckpointError names what is missing or differs.
    """
    wanted = expected_shapes(config)
    optional = {
        name: shape for name, shape in optional_shapes(config).items() if name not in wanted
    }
    if any(f"{POOLER}.{end}" in shapes for end in ("weight", "bias")):
        pooler = [name for name in optional if name.startswith(POOLER)]
        wanted.update({name: optional.pop(name) for name in pooler})
    missing = [name for name in wanted if name not in shapes]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{where} lacks tensors of a {config.family.display_name} {config.head.value} model "
            f"with {config.num_hidden_layers} layers: "
            f"{', '.join(map(config.family.spelled, missing[:3]))}{more}."
        )
    wanted.update({name: shape for name, shape in optional.items() if name in shapes})
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise CheckpointError(
                f"{where}: tensor '{config.family.spelled(name)}' has shape {list(shapes[name])}, "
                f"but config.json requires {list(shape)}."
            )
    beyond = f"encoder.layer.{config.stored_layers}."
    if any(name.startswith(beyond) for name in shapes):
        raise CheckpointError(
            f"{where} contains more layers than the {config.stored_layers} of config.json."
        )
    return tuple(wanted)


def linear_names(config: EncoderConfig) -> dict[str, str]:
    """The part of every prunable weight, by canonical name, in order of computation.

    The masked-LM decoder is left out: it is the word embedding matrix.
    """
    names = {f"{_PROJECTION}.weight": EMBEDDINGS} if config.projects else {}
    for number in range(config.stored_layers):
        for name, _, _ in layer_linears(config):
            names[f"encoder.layer.{number}.{name}.weight"] = "encoder"
    if config.family.pooler:
        names[f"{POOLER}.weight"] = "pooler"
    if config.head_shape and config.head_shape.dense:
        names.setdefault(f"{config.head_shape.dense}.weight", "head")
    last = last_layer(config)
    if last:
        names[last] = "head"
    return names


def _add_embeddings(shapes: dict[str, tuple[int, ...]], config: EncoderConfig) -> None:
    width = config.embedding_size
    shapes[WORDS] = (config.vocab_size, width)
    if config.position_table:
        shapes["embeddings.position_embeddings.weight"] = (config.max_position_embeddings, width)
    if config.token_types:
        shapes["embeddings.token_type_embeddings.weight"] = (config.token_types, width)
    if config.task_types:
        shapes["embeddings.task_type_embeddings.weight"] = (config.task_types, width)
    _add_norm(shapes, "embeddings.LayerNorm", width, "norm" in config.biases)
    if config.projects:
        _add_linear(shapes, _PROJECTION, config.hidden_size, width)
    if config.relative_buckets:
        shapes[RELATIVE_BIAS] = (config.relative_buckets, config.num_attention_heads)
    if config.disentangled:
        shapes[RELATIVE_EMBEDDINGS] = (config.disentangled.rows, config.hidden_size)
        if config.disentangled.norm:
            norm = RELATIVE_EMBEDDINGS.removesuffix("weight") + "LayerNorm"
            _add_norm(shapes, norm, config.hidden_size)


def _add_layer(shapes: dict[str, tuple[int, ...]], config: EncoderConfig, number: int) -> None:
    prefix = f"encoder.layer.{number}."
    family = config.family

    def norm(name: str) -> None:
        _add_norm(shapes, prefix + name, config.hidden_size, "norm" in config.biases)

    for name, rows, columns in layer_linears(config):
        if family.norm_first and name == "intermediate.dense":
            norm("intermediate.LayerNorm")
        elif family.norm_first and name.startswith("attention.self.") and number:
            norm("attention.LayerNorm")
        _add_linear(shapes, prefix + name, rows, columns, name.partition(".")[0] in config.biases)
        if family.query_key_norm and name in ("attention.self.query", "attention.self.key"):
            norm(f"{name}_LayerNorm")
        if not family.norm_first and name.endswith("output.dense"):
            norm(name.removesuffix("dense") + "LayerNorm")
        if family.residual_norm and name == "attention.output.dense":
            norm(RESIDUAL_NORM)


def _add_head(shapes: dict[str, tuple[int, ...]], config: EncoderConfig) -> None:
    head = config.head_shape
    if head is None:
        return
    masked_lm = config.head is Head.MASKED_LM
    width = config.embedding_size if masked_lm else config.hidden_size
    if head.dense:
        _add_linear(shapes, head.dense, width, config.hidden_size, head.has_dense_bias)
    if head.norm:
        _add_norm(shapes, head.norm, width, "norm" in config.biases)
    outputs = {Head.MASKED_LM: config.vocab_size, Head.QUESTION: 2}.get(
        config.head, len(config.labels)
    )
    if not masked_lm or config.raw.get("tie_word_embeddings") is False:
        shapes[f"{head.last}.weight"] = (outputs, width)
    if head.has_bias:
        shapes[head.last_bias] = (outputs,)


def _add_linear(
    shapes: dict[str, tuple[int, ...]], name: str, rows: int, columns: int, bias: bool = True
) -> None:
    shapes[f"{name}.weight"] = (rows, columns)
    if bias:
        shapes[f"{name}.bias"] = (rows,)


def _add_norm(shapes: dict[str, tuple[int, ...]], name: str, width: int, bias: bool = True) -> None:
    shapes[f"{name}.weight"] = (width,)
    if bias:
        shapes[f"{name}.bias"] = (width,)
