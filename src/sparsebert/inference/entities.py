"""Entities from a token classifier's labels, joined as in transformers' pipeline.

A label is ``B-PER`` (the first token of a person), ``I-PER`` (a further one) or ``PER``. Neighbours
of one kind form an entity, unless the second begins with ``B-``. Only these two prefixes count when
tokens are joined, but an entity is named without any prefix: ``S-PER`` and ``E-PER`` are also PER.
Strategies other than "simple" first give all tokens of a word one label: that of its first token
("first"), that of the token with the highest score ("max"), or the one with the highest mean score
("average").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np

from sparsebert.errors import InputError
from sparsebert.inference.labelling import Floats, softmax
from sparsebert.inference.sequences import LocatedTokens
from sparsebert.inference.tokenizing import TextTokenizer

Aggregation = Literal["simple", "first", "average", "max"]
OUTSIDE = ("O",)  # the usual label of tokens that belong to no entity


class Entity(TypedDict):
    """The text of an entity and its characters ``[start, end)``, its kind and its mean score."""

    text: str
    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class _Labelled:
    """A token or word with its scores ``[labels]`` or, once it has one, its label."""

    start: int
    end: int
    scores: Floats
    label: str
    score: float


def check_aggregation(aggregation: object) -> None:
    """InputError for an unknown strategy; None is no aggregation."""
    known = get_args(Aggregation)
    if aggregation is not None and aggregation not in known:
        raise InputError(f"aggregation must be one of {', '.join(known)}, not {aggregation!r}.")


def joined_entities(
    logits: Floats,
    located: LocatedTokens,
    text: str,
    labels: Sequence[str],
    tokenizer: TextTokenizer,
    *,
    aggregation: Aggregation = "simple",
    ignored: Collection[str] = OUTSIDE,
) -> list[Entity]:
    """The entities of ``text`` in order; ``logits`` is ``[tokens, labels]``.

    Kinds in ``ignored`` are left out. Strategies are named as in transformers'
    `AggregationStrategy`.
    """
    scores = softmax(logits)
    parts: list[list[_Labelled]] = []
    for index, (start, end) in enumerate(located.offsets.tolist()):
        if start < 0:
            continue
        token = _labelled(start, end, scores[index], labels)
        whole = aggregation == "simple" or not parts
        if whole or not _continues(int(located.tokens.ids[index]), start, end, text, tokenizer):
            parts.append([token])
        else:
            parts[-1].append(token)
    words = [_word(part, aggregation, labels) for part in parts]
    groups: list[list[_Labelled]] = []
    for word in words:
        if groups and _kind(word.label) == _kind(groups[-1][-1].label) and not _begins(word.label):
            groups[-1].append(word)
        else:
            groups.append([word])
    found: list[Entity] = []
    for group in groups:
        start, end = group[0].start, group[-1].end
        name = group[0].label.split("-", 1)[-1]
        if name not in ignored:
            score = float(np.mean([word.score for word in group]))
            entity: Entity = {
                "text": text[start:end],
                "label": name,
                "score": score,
                "start": start,
                "end": end,
            }
            found.append(entity)
    return found


def _labelled(start: int, end: int, scores: Floats, labels: Sequence[str]) -> _Labelled:
    best = int(scores.argmax())
    return _Labelled(start, end, scores, labels[best], float(scores[best]))


def _word(
    tokens: Sequence[_Labelled], aggregation: Aggregation, labels: Sequence[str]
) -> _Labelled:
    if aggregation == "average":
        scores = np.mean([token.scores for token in tokens], axis=0)
    elif aggregation == "max":
        scores = max(tokens, key=lambda token: token.score).scores
    else:
        scores = tokens[0].scores
    return _labelled(tokens[0].start, tokens[-1].end, scores, labels)


def _continues(token: int, start: int, end: int, text: str, tokenizer: TextTokenizer) -> bool:
    """Whether a token continues the word of the one before it."""
    if token == tokenizer.unknown_id:
        return False
    if getattr(tokenizer.backend.model, "continuing_subword_prefix", None):
        piece = tokenizer.backend.id_to_token(token) or ""
        return len(piece) != end - start  # word pieces: the prefix is not in the text
    # Other tokenizers do not mark it: a token continues a word if no space precedes or begins it.
    return start > 0 and " " not in text[start - 1 : start + 1]


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _begins(label: str) -> bool:
    return label.startswith("B-")
