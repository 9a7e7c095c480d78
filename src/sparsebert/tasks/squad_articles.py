"""SQuAD as its authors publish it, and rows as everyone else has them.

One JSON object: ``data`` has the articles, each of paragraphs, each of a context and its questions
(``train-v1.1.json``, ``dev-v2.0.json``).
"""

from __future__ import annotations

from typing import Any

from sparsebert.checkpoint.json_files import parse_json
from sparsebert.errors import DataError


def squad_articles(text: str) -> list[Any] | None:
    """The articles of such a file; None for any other text."""
    if '"paragraphs"' not in text:
        return None
    try:
        found = parse_json(text)
    except ValueError:  # an object a line, perhaps
        return None
    articles = found.get("data") if isinstance(found, dict) else None
    return articles if isinstance(articles, list) else None


def rows_of_articles(articles: list[Any], source: str) -> list[dict[str, Any]]:
    """A row a question: ``id``, ``title``, ``context``, ``question`` and ``answers``. DataError."""
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
                f"{source}, article {number}: it is not laid out as SQuAD's are ({fault!r})."
            ) from fault
    return rows
