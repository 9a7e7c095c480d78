"""Task files in JSON: what is there comes out as it went in, and nothing crashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from sparsebert.errors import DataError
from sparsebert.tasks.reading import read_table


def read(tmp_path: Path, text: str, name: str = "train.jsonl") -> list[dict[str, Any]]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found: list[dict[str, Any]] = read_table(tmp_path / name).table.to_pylist()
    return found


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.ndjson"])
def test_lines_and_arrays(tmp_path: Path, name: str) -> None:
    rows = [{"text": "2024-01-01T00:00:00", "label": 1}, {"text": "b\u2028c", "label": 0}]
    lines = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\r\n"
    assert read(tmp_path, lines, name) == rows  # pyarrow's reader makes a time of the first
    assert read(tmp_path, json.dumps(rows), name) == rows
    assert read(tmp_path, json.dumps(rows, indent=2), name) == rows


def test_nested_nulls_and_missing_keys(tmp_path: Path) -> None:
    rows = [{"text": [None, "film"]}, {"text": ["a"]}, {"text": None}]
    assert read(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)) == rows
    assert read(tmp_path, '{"a": 1}\n{"b": "x"}\n') == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null\n", r"train.jsonl, line 1: the line's JSON is not an object"),
        ('{"a": 1}\n\n{"a": ', r"line 3: not JSON"),
        ("[" * 100_000, r"not JSON"),
        ('[{"a": 1}, 7]', r"row 2: 7 is not an object"),
        ('{"a": 1}\n{"a": "x"}\n', r"column 'a' has mixed types: row 1 is 1 and row 2 is 'x'"),
        ('{"a": "\\ud800"}\n', r"line 1: not JSON \(it is not valid Unicode"),
        ('{"a": 99999999999999999999999}\n', r"column 'a'"),
    ],
)
def test_what_makes_no_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)
