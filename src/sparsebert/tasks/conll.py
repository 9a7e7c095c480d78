"""CoNLL files: one word per line, its tag in the last column, a blank line between sentences.

    -DOCSTART- -X- O O

    EU NNP I-NP B-ORG
    rejects VBZ I-VP O

Columns are separated by tabs if any line but a comment has one, by spaces otherwise (a no-break
space is part of its word). ``-DOCSTART-`` lines separate documents, and so end a sentence. Comments
are ignored: lines that begin with ``#`` and have a different number of columns from the words.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.tasks.columns import show

if TYPE_CHECKING:
    import pyarrow as pa

WORDS, TAGS = "tokens", "ner_tags"
"""The columns into which a CoNLL file is read, with the names used on the hub."""

_DOCUMENT = "-DOCSTART-"
_COUNTED = re.compile(r"\d+([-.]\d+)?")  # 4-5 spans two words of CoNLL-U, and 4.1 is an empty one


def parse_conll(text: str, source: str) -> pa.Table:
    """The sentences in ``text`` as the columns `WORDS` and `TAGS`, lists of texts.

    DataError, naming the line, if a line has more or fewer columns than the others, or no tag, and
    if the first column only counts the words.
    """
    import pyarrow as pa

    written = text.replace("\r\n", "\n").split("\n")
    tabs = any("\t" in line for line in written if not line.startswith("#"))
    lines = [(number, _cells(line, tabs=tabs)) for number, line in enumerate(written, 1)]
    counts = Counter(len(cells) for _, cells in lines if cells)
    columns = counts.most_common(1)[0][0] if counts else 0
    if columns == 1:
        raise DataError(
            f"{source} has only one column: in a CoNLL file, each line has a word and, in the last "
            "column, its tag."
        )
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    for number, cells in lines:
        if not cells:
            sentences.append(([], []))
        elif len(cells) == columns:
            word, tag = cells[0], cells[-1].strip()
            if not tag:
                raise DataError(f"{source}, line {number}: {show(word)} has no tag.")
            sentences[-1][0].append(word)
            sentences[-1][1].append(tag)
        elif not cells[0].startswith("#"):
            raise DataError(
                f"{source}, line {number}: it has {len(cells)} column"
                f"{'' if len(cells) == 1 else 's'} and the other lines have {columns}."
            )
    kept = [sentence for sentence in sentences if sentence[0]]
    if kept and all(_COUNTED.fullmatch(word) for words, _ in kept for word in words):
        raise DataError(
            f"{source}: the first column has only numbers, as in CoNLL-U or GermEval, where it "
            "counts the words: remove it, so that the words come first."
        )
    texts = pa.list_(pa.string())
    return pa.table(
        {
            WORDS: pa.array([words for words, _ in kept], texts),
            TAGS: pa.array([tags for _, tags in kept], texts),
        }
    )


def _cells(line: str, *, tabs: bool) -> list[str]:
    """The columns of a line; none for a line that ends a sentence."""
    if not line.strip() or line.startswith(_DOCUMENT):
        return []
    return line.split("\t") if tabs else [cell for cell in line.split(" ") if cell]
