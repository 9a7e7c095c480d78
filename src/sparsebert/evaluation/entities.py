"""Scores of named entities: F1, precision and recall by seqeval, and accuracy of plain labels.

An entity counts as found if its kind, its first and its last word are right (the exact match of
CoNLL-2003's own script, in seqeval's default mode). Labels may be in BIO, IOB1, BIOES, BILOU or IO.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.extras import need_extra
from sparsebert.tasks.labels import OUTSIDE, prefixed, split_tag

_LETTERS = {"L": "E", "U": "S"}  # BILOU's last and unit are BIOES' end and single


def entity_scores(
    metrics: Sequence[str],
    predicted: Sequence[Sequence[str]],
    expected: Sequence[Sequence[str]],
    labels: Sequence[str],
) -> Scores:
    """Score each row's labels of words, names out of ``labels``.

    F1, precision and recall are over the entities of all rows together (micro); ``by_class`` has
    those of each kind. 0 where there is no entity at all, with a note.
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
        notes.append("no row has an entity: the scores say nothing.")
    elif not get_entities(guessed):
        notes.append("every word got the label O: the model finds no entity.")
    by_class: ByClass = {}
    values = (0.0, 0.0, 0.0)
    if kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds that one side lacks: 0, as it should be
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
    """The entities of a row: kind, first and last word. ``tags`` are out of ``labels``."""
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities([_plain(tag, prefixed(labels)) for tag in tags]))


def _plain(label: str, has_prefixes: bool) -> str:
    """A label as seqeval reads it."""
    if label == OUTSIDE:
        return label
    if not has_prefixes:
        return f"I-{label}"
    letter, kind = split_tag(label)
    return f"{_LETTERS.get(letter, letter)}-{kind}"
