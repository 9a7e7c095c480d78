"""Texts without labels: the one reader of lines and tables, for every command that takes texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sparsebert.errors import DataError
from sparsebert.tasks.columns import label_names, number_values
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.texts import read_texts, single_texts


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_a_text_a_line(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "\ufeffone\r\n\n  two words \nthree\x85same line")
    expected = ["one", "two words", "three\x85same line"]
    assert read_texts(file) == expected
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_texts(packed) == expected


@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_a_list_of_words_is_one_text(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    words = pa.array([["two", "words"], ["one"]], getattr(pa, kind)(pa.string()))
    pyarrow.parquet.write_table(pa.table({"tokens": words}), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet") == ["two words", "one"]


@pytest.mark.parametrize("column", ["sentence", "text"])
def test_a_column_of_a_table(column: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table({"label": [1, 0], column: ["12", "a, b"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    written(tmp_path / "a.csv", f'label,{column}\n1,12\n0,"a, b"\n')
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    written(tmp_path / "a.jsonl", lines)
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        assert read_texts(tmp_path / name) == ["12", "a, b"]


def test_columns_by_name_and_pairs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = written(tmp_path / "tickets.csv", "subject,body\na,b\nc,\n")
    named = DataOptions(text_column="subject", pair_column="body")
    assert read_texts(file, options=named) == [("a", "b")]  # an empty half is no pair
    assert read_texts(tmp_path, options=DataOptions(text_column="subject")) == ["a", "c"]
    assert single_texts([("a", "b"), "c"]) == ["a", "b", "c"]
    assert read_texts(file, first=("body",)) == ["b"]
    both = written(tmp_path / "both.csv", "text,body\nheadline,words\n")
    assert read_texts(both, first=("body",)) == ["words"]  # before any known task's columns
    assert read_texts(both, first=("other",)) == ["headline"]
    with pytest.raises(DataError, match=r"no text column.*--text-column \(text_column=\)"):
        read_texts(file)


def test_files_without_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty.txt contains no text"):
        read_texts(written(tmp_path / "empty.txt", "\n \n"))
    with pytest.raises(DataError, match="absent.txt does not exist"):
        read_texts(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"tea\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"it is not UTF-8 text \(byte 0xE9 in line 2\)"):
        read_texts(tmp_path / "latin.txt")
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    with pytest.raises(DataError, match="cannot be read as gzip"):
        read_texts(tmp_path / "torn.txt.gz")


def test_a_table_without_rows(tmp_path: Path) -> None:
    """pandas writes an empty column without a type."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    file, table = tmp_path / "empty.parquet", pa.table({"text": pa.nulls(0)})
    pyarrow.parquet.write_table(table, file)
    for read in (
        lambda: read_texts(file),
        lambda: label_names(table, "text", str(file)),
        lambda: number_values(table, "text", str(file)),
    ):
        with pytest.raises(DataError, match=r"empty\.parquet has no rows\.$"):
            read()
