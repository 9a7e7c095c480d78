"""Labels of words: their number, labels outside the set, entities without a beginning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.diagnosis.tables import GROUP, UNUSABLE_DATA, Split
from sparsebert.errors import DataError
from sparsebert.tasks.columns import label_indices, show_label, show_labels
from sparsebert.tasks.labels import OUTSIDE, are_mixed, prefixed, split_tag
from sparsebert.tasks.table import Task
from sparsebert.tasks.words import all_tags, tag_names, words_column

_MANY = 0.01  # share of entities

WORD_COUNTS = Problem(
    "word-counts",
    Severity.ERROR,
    "each word needs one label: remove these rows, or fix whatever wrote them.",
)
WORD_LABELS_OUTSIDE = Problem(
    "word-labels-outside-set",
    Severity.ERROR,
    "correct these labels, or split the rows again: a label that occurs in no training row cannot "
    "be learned.",
)
NO_ENTITIES = Problem(
    "no-entities",
    Severity.ERROR,
    "nothing can be learned or scored: check whether the labels are in another column (the last "
    "one is read), or whether this is a test set whose labels are hidden.",
)
HEADLESS_ENTITIES = Problem(
    "headless-entities",
    Severity.WARNING,
    "an I- label that continues no entity counts as an entity of its own: fix whatever wrote the "
    "labels, or write them without B- if entities never touch.",
)
MIXED_PREFIXES = Problem(
    "mixed-prefixes",
    Severity.WARNING,
    "all labels are then read as whole names, so that B-X and I-X are two entity types: write all "
    "of them with a prefix, or none.",
)


def check_words(task: Task, splits: list[Split]) -> Iterator[Check]:
    """A check of each split's labels of words."""
    for split in splits:
        try:
            words = words_column(split.table, task.text_columns[0], split.source)
            tags = tag_names(split.table, task.label_column, split.source)
        except DataError as error:
            findings: list[Finding | None] = [UNUSABLE_DATA.at(split.name, str(error))]
            yield Check.of(GROUP, f"labels of {split.name}", "not read", findings)
            continue
        index = label_indices(all_tags(tags), task)
        named = [
            [task.labels[index[tag]] if tag in index else tag for tag in row_tags]
            for row_tags in tags
        ]
        findings = [_uneven(split, words, tags), _outside(task, split, named)]
        if OUTSIDE in task.labels:
            findings += [_empty(split, named), _headless(task, split, named)]
        if split is splits[0]:
            findings.append(_mixed(task, split))
        yield Check.of(GROUP, f"labels of {split.name}", _shares(named), findings)


def _uneven(
    split: Split, words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
) -> Finding | None:
    rows = [row for row in range(len(split)) if len(words[row]) != len(tags[row])]
    return WORD_COUNTS.among(
        split.name,
        rows,
        len(split),
        "rows have different numbers of words and labels.",
        lambda row: (
            f"row {row + 1}: {plural(len(words[row]), 'word')}, {plural(len(tags[row]), 'label')}"
        ),
    )


def _outside(task: Task, split: Split, tags: Sequence[Sequence[str]]) -> Finding | None:
    known = set(task.labels)
    found = [(row, tag) for row, row_tags in enumerate(tags, 1) for tag in row_tags]
    outside = [(row, tag) for row, tag in found if tag not in known]
    return WORD_LABELS_OUTSIDE.among(
        split.name,
        outside,
        len(found),
        f"labels are not among {show_labels(task)}.",
        lambda each: f"row {each[0]}: {show_label(each[1])}",
    )


def _empty(split: Split, tags: Sequence[Sequence[str]]) -> Finding | None:
    if any(tag != OUTSIDE for row_tags in tags for tag in row_tags):
        return None
    return NO_ENTITIES.at(split.name, f"every word has the label '{OUTSIDE}'.")


def _headless(task: Task, split: Split, tags: Sequence[Sequence[str]]) -> Finding | None:
    """Entities that begin with I-, although the labels have a B- for them."""
    if not prefixed(task.labels):
        return None
    begun = {kind for prefix, kind in map(split_tag, task.labels) if prefix == "B"}
    entities, rows = 0, []
    for row, row_tags in enumerate(tags, 1):
        before = ("", "")
        for tag in row_tags:
            prefix, kind = split_tag(tag)
            headless = (
                prefix == "I"
                and kind in begun
                and not (before[1] == kind and before[0] in ("B", "I"))
            )
            entities += headless or prefix in ("B", "S", "U")
            if headless:
                rows.append(f"row {row}: {tag} after {'-'.join(filter(None, before)) or 'nothing'}")
            before = (prefix, kind)
    said = "entities begin with I- instead of B-."
    return HEADLESS_ENTITIES.among(split.name, rows, entities, said, str, minor=_MANY)


def _mixed(task: Task, split: Split) -> Finding | None:
    kinds = [label for label in task.labels if label != OUTSIDE]
    with_prefix = [label for label in kinds if split_tag(label)[0] in ("B", "I")]
    if not are_mixed(task.labels):
        return None
    others = [label for label in kinds if label not in with_prefix]
    return MIXED_PREFIXES.at(
        split.name,
        f"{plural(len(with_prefix), 'label')} of {len(kinds)} "
        f"{'begins' if len(with_prefix) == 1 else 'begin'} with B- or I-; others, such as "
        f"{', '.join(others[:5])}, have no such prefix.",
        count=len(with_prefix),
        total=len(kinds),
    )


def _shares(tags: Sequence[Sequence[str]]) -> str:
    counts = Counter(tag for row_tags in tags for tag in row_tags)
    total = max(sum(counts.values()), 1)
    said = ", ".join(f"{tag} {count / total:.1%}" for tag, count in counts.most_common(5))
    return said + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")
