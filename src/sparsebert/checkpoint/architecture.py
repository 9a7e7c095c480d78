"""The tensors of a BERT checkpoint: their names, their shapes, and which are linear layers.

Names are canonical (Hugging Face's own, without the ``bert.`` prefix that models with a head put
before the encoder's); files may spell them in older ways, and `canonical` reads those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparsebert.checkpoint.config import EncoderConfig, Head
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.patterns import Pattern

PARTS = ("encoder", "pooler", "head")

# One encoder layer: name of a linear layer, its outputs and inputs as config fields.
_ENCODER_LINEARS = (
    ("attention.self.query", "hidden_size", "hidden_size"),
    ("attention.self.key", "hidden_size", "hidden_size"),
    ("attention.self.value", "hidden_size", "hidden_size"),
    ("attention.output.dense", "hidden_size", "hidden_size"),
    ("intermediate.dense", "intermediate_size", "hidden_size"),
    ("output.dense", "hidden_size", "intermediate_size"),
)
_POOLER = "pooler.dense"
_HEAD_LINEAR = {
    Head.SEQUENCE: "classifier",
    Head.TOKEN: "classifier",
    Head.QUESTION: "qa_outputs",
    Head.MASKED_LM: "cls.predictions.transform.dense",
}
DECODER = "cls.predictions.decoder.weight"


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
                f"cut into groups of {pattern.m} for {pattern}: choose a pattern whose M divides "
                "it."
            )


def canonical(stored: str) -> str:
    """The canonical form of a tensor's name in a file."""
    name = stored.removeprefix("bert.")
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    if name.endswith("LayerNorm.beta"):
        return name.removesuffix("beta") + "bias"
    return name


def canonical_names(stored: Iterable[str], where: object) -> dict[str, str]:
    """Canonical name to name in the file; CheckpointError if two of the file's mean the same."""
    names: dict[str, str] = {}
    for name in stored:
        known = names.setdefault(canonical(name), name)
        if known != name:
            raise CheckpointError(f"{where} holds both '{known}' and '{name}', which are the same.")
    bias = "cls.predictions.decoder.bias"  # the same parameter as the one it is tied to
    if bias in names:
        names.setdefault("cls.predictions.bias", names[bias])
    return names


def expected_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that the model must have, by canonical name, in computing order."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
    }
    _add_norm(shapes, "embeddings.LayerNorm", hidden)
    for number in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{number}."
        for name, rows, columns in _ENCODER_LINEARS:
            _add_linear(shapes, prefix + name, getattr(config, rows), getattr(config, columns))
            if name.endswith("output.dense"):
                _add_norm(shapes, prefix + name.removesuffix("dense") + "LayerNorm", hidden)
    if config.head is Head.SEQUENCE:
        _add_linear(shapes, _POOLER, hidden, hidden)
        _add_linear(shapes, "classifier", len(config.labels), hidden)
    elif config.head is Head.TOKEN:
        _add_linear(shapes, "classifier", len(config.labels), hidden)
    elif config.head is Head.QUESTION:
        _add_linear(shapes, "qa_outputs", 2, hidden)
    elif config.head is Head.MASKED_LM:
        _add_linear(shapes, "cls.predictions.transform.dense", hidden, hidden)
        _add_norm(shapes, "cls.predictions.transform.LayerNorm", hidden)
        shapes["cls.predictions.bias"] = (config.vocab_size,)
        if config.raw.get("tie_word_embeddings") is False:
            shapes[DECODER] = (config.vocab_size, hidden)
    return shapes


def optional_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of the tensors that the model uses if the file has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    if config.head is Head.MASKED_LM:  # absent where it is tied to the word embeddings
        shapes[DECODER] = (config.vocab_size, config.hidden_size)
    if config.head is not Head.SEQUENCE:
        _add_linear(shapes, _POOLER, config.hidden_size, config.hidden_size)
    return shapes


def check_shapes(
    config: EncoderConfig, shapes: Mapping[str, tuple[int, ...]], where: object
) -> tuple[str, ...]:
    """Hold the shapes found (by canonical name) against the config's.

    Returns the names of the tensors that the model uses, in computing order; the others are extras.
    CheckpointError names what is missing or differs.
    """
    wanted = expected_shapes(config)
    optional = optional_shapes(config)
    if any(f"{_POOLER}.{end}" in shapes for end in ("weight", "bias")):
        wanted.update({name: optional.pop(name) for name in list(optional) if name != DECODER})
    missing = [name for name in wanted if name not in shapes]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{where} lacks tensors of a {config.head.value} BERT with "
            f"{config.num_hidden_layers} layers: {', '.join(missing[:3])}{more}."
        )
    wanted.update({name: shape for name, shape in optional.items() if name in shapes})
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise CheckpointError(
                f"{where}: tensor '{name}' has shape {list(shapes[name])}, but config.json asks "
                f"for {list(shape)}."
            )
    beyond = f"encoder.layer.{config.num_hidden_layers}."
    if any(name.startswith(beyond) for name in shapes):
        raise CheckpointError(
            f"{where} holds more layers than the {config.num_hidden_layers} of config.json."
        )
    return tuple(wanted)


def linear_names(config: EncoderConfig) -> dict[str, str]:
    """Canonical name of every prunable weight to its part, in computing order.

    The masked-LM decoder is left out: it is the word embedding matrix.
    """
    names = {
        f"encoder.layer.{number}.{name}.weight": "encoder"
        for number in range(config.num_hidden_layers)
        for name, _, _ in _ENCODER_LINEARS
    }
    names[f"{_POOLER}.weight"] = "pooler"
    if config.head in _HEAD_LINEAR:
        names[f"{_HEAD_LINEAR[config.head]}.weight"] = "head"
    return names


def _add_linear(shapes: dict[str, tuple[int, ...]], name: str, rows: int, columns: int) -> None:
    shapes[f"{name}.weight"] = (rows, columns)
    shapes[f"{name}.bias"] = (rows,)


def _add_norm(shapes: dict[str, tuple[int, ...]], name: str, width: int) -> None:
    shapes[f"{name}.weight"] = (width,)
    shapes[f"{name}.bias"] = (width,)
