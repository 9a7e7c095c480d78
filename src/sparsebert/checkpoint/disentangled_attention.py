"""DeBERTa's attention as config.json describes it.

The score of query i and key j depends on their contents and on their distance i - j (He et al.
2020, arXiv:2006.03654; with buckets, He et al. 2021, arXiv:2111.09543). For n terms and heads of
size d, it is

    (q_i k_j + q_i K(r) + k_j Q(r)) / sqrt(n d)

where r is the embedding of the distance, and K and Q are the layer's own linear layers for keys and
queries.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsebert.checkpoint.families import Family
from sparsebert.checkpoint.json_files import ConfigValues
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

CONTENT_TO_POSITION, POSITION_TO_CONTENT = "c2p", "p2c"
_TERMS = (CONTENT_TO_POSITION, POSITION_TO_CONTENT)
_NORMS = ("none", "layer_norm")
_MOST_DISTANCES = 1 << 20


@dataclass(frozen=True)
class DisentangledAttention:
    """What scores depend on besides contents.

    ``rows`` is the number of distance embeddings: row ``rows / 2`` is for distance 0, rows above it
    are for queries after their key. Distances up to ``buckets / 2`` have a row each; from there up
    to ``farthest``, rows cover ranges that grow logarithmically. Without ``buckets`` (0), no row is
    shared. Distances beyond the table use its first or last row. ``terms`` are "c2p" (q_i K(r)) and
    "p2c" (k_j Q(r)); ``norm`` says whether the embeddings go through a LayerNorm.
    """

    rows: int
    buckets: int
    farthest: int
    terms: tuple[str, ...]
    norm: bool


def disentangled_attention(read: ConfigValues, family: Family) -> DisentangledAttention | None:
    """The settings in config.json; None for families with other attention.

    Raises CheckpointError for invalid values, and UnsupportedArchitectureError for settings that
    sparsebert does not support, which no published model has.
    """
    if not family.disentangled:
        return None
    _refuse_others(read)
    farthest = _whole(read, "max_relative_positions")
    if farthest < 1:
        farthest = read.count("max_position_embeddings", 512)
    buckets = max(_whole(read, "position_buckets"), 0)
    if buckets and not 2 <= buckets < 2 * (farthest - 1):
        raise CheckpointError(
            f"{read.where}: position_buckets {buckets} does not fit distances up to {farthest}."
        )
    span = buckets or farthest
    norm = read.choice("norm_rel_ebd", _NORMS, "none") == "layer_norm"
    return DisentangledAttention(2 * span, buckets, farthest, _terms(read), norm)


def _terms(read: ConfigValues) -> tuple[str, ...]:
    written = named = read.raw.get("pos_att_type")
    if isinstance(written, str):
        named = [each.strip() for each in written.lower().split("|")]
    if not isinstance(named, list) or not named or not all(each in _TERMS for each in named):
        raise UnsupportedArchitectureError(
            f"{read.where}: pos_att_type is {written!r}, but only c2p, p2c or both are supported."
        )
    return tuple(term for term in _TERMS if term in named)


def _refuse_others(read: ConfigValues) -> None:
    raw, hidden = read.raw, read.count("hidden_size")
    size = hidden // read.count("num_attention_heads")
    for key, default, wanted in (
        ("relative_attention", False, True),
        ("share_att_key", False, True),
        ("embedding_size", hidden, hidden),
        ("pooler_hidden_size", hidden, hidden),
        ("attention_head_size", size, size),
    ):
        found = raw.get(key, default)
        if found != wanted:
            raise UnsupportedArchitectureError(
                f"{read.where}: {key} is {found!r}, but only DeBERTa models with {wanted!r} are "
                "supported."
            )


def _whole(read: ConfigValues, key: str) -> int:
    value = read.raw.get(key, -1)
    if type(value) is not int or value > _MOST_DISTANCES:
        raise CheckpointError(
            f"{read.where}: {key} must be an integer of at most {_MOST_DISTANCES}, not {value!r}."
        )
    return value
