"""SQuAD files as their authors publish them, converted to the usual rows.

Such a file (``train-v1.1.json``, ``dev-v2.0.json``) is one JSON object: ``data`` is a list of
articles, each with paragraphs, each with a context and its questions.
"""

from __future__ import annotations

from typing import Any

from sparsebert.checkpoint.json_files import parse_json
from sparsebert.errors import DataError


def squad_articles(text: str) -> list[Any] | None:
    """The articles of such a file; None for any other content."""
    if '"paragraphs"' not in text:
        return None
    try:
        found = parse_json(text)
    except ValueError:  # perhaps one object per line
        return None
    articles = found.get("data") if isinstance(found, dict) else None
    return articles if isinstance(articles, list) else None


def rows_of_articles(articles: list[Any], source: str) -> list[dict[str, Any]]:
    """One row per question: ``id``, ``title``, ``context``, ``question`` and ``answers``.

    DataError, naming the article, for another layout.
    """
    rows = []
    for number, article in enumerate(articles, 1):
        try:
            rows += [
                {
                    "id": asked["id"],
                    "title": article.get("title"),
                    "context": paragraph["context"],
                    "question": asked["question"],
                    "answers": {
                        name: [answer[name] for answer in asked["answers"]]
                        for name in ("text", "answer_start")
                    },
                }
                for paragraph in article["paragraphs"]
                for asked in paragraph["qas"]
            ]
        except (KeyError, TypeError, AttributeError) as fault:
            raise DataError(
                f"{source}, article {number}: it does not have SQuAD's layout ({fault!r})."
            ) from fault
    return rows
