"""Scores for named entities: F1, precision and recall, by seqeval.

An entity counts as found if its type, first word and last word are right: the exact match of
CoNLL-2003's own script and seqeval's default mode. Labels may be in BIO, IOB1, BIOES, BILOU or IO.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.extras import need_extra
from sparsebert.tasks.labels import OUTSIDE, prefixed, split_tag

_LETTERS = {"L": "E", "U": "S"}  # last and unit in BILOU are end and single in BIOES


def entity_scores(
    metrics: Sequence[str],
    predicted: Sequence[Sequence[str]],
    expected: Sequence[Sequence[str]],
    labels: Sequence[str],
) -> Scores:
    """Score the word labels of each row; the names are among ``labels``.

    F1, precision and recall are over the entities of all rows together (micro); ``by_class`` has
    those of each entity type. They are 0, with a note, if there is no entity to compare.
    """
    need_extra("scoring named entities", "seqeval")
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    plain = {label: _plain(label, prefixed(labels)) for label in labels}
    right, guessed = (
        [[plain[label] for label in row] for row in rows] for rows in (expected, predicted)
    )
    notes = []
    kinds = sorted({kind for kind, _, _ in get_entities([*right, *guessed])})
    if not get_entities(right):
        notes.append("no row has an entity: the scores are meaningless.")
    elif not get_entities(guessed):
        notes.append("every word got the label O: the model finds no entity.")
    by_class: ByClass = {}
    values = (0.0, 0.0, 0.0)
    if kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval's, on types that one side lacks: they score 0
            values = precision_recall_fscore_support(right, guessed, average="micro")[:3]
            table = precision_recall_fscore_support(right, guessed, average=None)
        by_class = {
            kind: {
                "precision": 100 * float(precision),
                "recall": 100 * float(recall),
                "f1": 100 * float(score),
                "rows": int(count),
            }
            for kind, precision, recall, score, count in zip(kinds, *table, strict=True)
        }
    known = dict(
        zip(("precision", "recall", "f1"), (100 * float(each) for each in values), strict=True)
    )
    return Scores({name: known[name] for name in metrics}, notes, by_class)


def entities(tags: Sequence[str], labels: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of a row: type, first and last word. ``tags`` are among ``labels``."""
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities([_plain(tag, prefixed(labels)) for tag in tags]))


def _plain(label: str, has_prefixes: bool) -> str:
    """A label in the form that seqeval reads."""
    if label == OUTSIDE:
        return label
    if not has_prefixes:
        return f"I-{label}"
    letter, kind = split_tag(label)
    return f"{_LETTERS.get(letter, letter)}-{kind}"
