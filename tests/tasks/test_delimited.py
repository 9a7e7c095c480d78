"""CSV and TSV: quotes as they were written, no row lost without a word, cells as text."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from sparsebert.errors import DataError
from sparsebert.tasks.examples import load_split, validation_splits
from sparsebert.tasks.reading import parse_delimited
from sparsebert.tasks.table import get_task

# What GLUE's own files hold: quotes that open and never close, that stand within, and whole ones.
TEXTS = ['"He left.', 'a "quoted" word', '"All of it."', 'and no."', "plain", '5" disk']


def parse(text: str, *, tabs: bool = True) -> list[list[str]]:
    return parse_delimited(text, "f", tabs=tabs).rows


def written(rows: list[list[str]], **style: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **style).writerows(rows)
    return file.getvalue()


class TestQuotesInTsv:
    def test_a_file_without_quoting_keeps_every_row_and_quote(self) -> None:
        text = "text\tlabel\n" + "".join(f"{each}\t0\n" for each in TEXTS)
        assert parse(text) == [[each, "0"] for each in TEXTS]

    def test_a_whole_quoted_text_alone_keeps_its_quotes(self) -> None:
        # Nothing in it needed quotes, so that no writer can have put them there.
        assert parse('text\tlabel\n"All of it."\t0\nplain\t1\n')[0] == ['"All of it."', "0"]

    @pytest.mark.parametrize(
        "style",
        [
            {"delimiter": "\t"},
            {"delimiter": "\t", "quoting": csv.QUOTE_ALL},
            {"delimiter": "\t", "lineterminator": "\n"},
        ],
    )
    @pytest.mark.parametrize("more", [[], ["a\ttab", "two\nlines"]])
    def test_a_file_with_quoting_gives_back_what_was_written(
        self, style: dict[str, Any], more: list[str]
    ) -> None:
        rows = [[each, "0"] for each in (*TEXTS, *more)]
        assert parse(written([["text", "label"], *rows], **style)) == rows

    def test_an_uneven_line_is_named(self) -> None:
        with pytest.raises(DataError, match="f, line 4: it has 3 cells and the header has 2"):
            parse('text\tlabel\n\n"a\t0\nb\t1\t2\n')

    @pytest.mark.parametrize("name", ["mrpc", "rte", "sst2", "qnli", "stsb", "mnli", "qqp"])
    @pytest.mark.shared
    def test_glue_as_its_own_files_have_it(
        self, name: str, shared_data: Path, tmp_path: Path
    ) -> None:
        import pyarrow.parquet as pq

        task = get_task(name)
        for split in validation_splits(task, shared_data / name):
            table = pq.read_table(shared_data / name / f"{split}.parquet")
            own = dict(task.glue_columns)
            header = "\t".join(own.get(column, column) for column in table.column_names)
            lines = ["\t".join(map(str, row.values())) for row in table.to_pylist()]
            file = tmp_path / f"{split.replace('validation', 'dev')}.tsv"
            file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
            found = load_split(task, tmp_path, split)
            expected = load_split(task, shared_data / name, split)
            assert (found.texts, found.pairs) == (expected.texts, expected.pairs)
            assert found.labels.tolist() == expected.labels.tolist()


class TestCsv:
    def test_a_quote_that_is_never_closed(self) -> None:
        with pytest.raises(DataError, match="f, line 3: a quote is never closed"):
            parse('text,label\na,0\n"b,1\nc,0\n', tabs=False)

    def test_text_behind_a_closing_quote(self) -> None:
        with pytest.raises(DataError, match="f, line 2: text follows a closing quote"):
            parse('text,label\n"a" b,0\n', tabs=False)

    def test_lines_within_quotes_are_told(self) -> None:
        found = parse_delimited('text,label\n"a,0\nb,1\nc",2\nd,0\n', "f", tabs=False)
        assert found.rows == [["a,0\nb,1\nc", "2"], ["d", "0"]]
        (note,) = found.notes
        assert note.startswith("f: 1 row spans several lines inside quotes")
        assert "(row 1) lines 2 to 4" in note
        assert parse_delimited("text,label\na,0\n", "f", tabs=False).notes == ()

    def test_an_uneven_row(self) -> None:
        with pytest.raises(DataError, match="line 3: it has 3 cells and the header has 2; a cell"):
            parse("text,label\na,0\nb, and c,1\n", tabs=False)

    def test_semicolons_and_tabs_where_there_is_no_comma(self) -> None:
        assert parse("text;label\na, b;0\n", tabs=False) == [["a, b", "0"]]
        assert parse("text\tlabel\na, b\t0\n", tabs=False) == [["a, b", "0"]]

    def test_long_cells_and_other_line_ends(self) -> None:
        long = "a" * 200_000  # more than the csv module takes by itself
        before = csv.field_size_limit()
        assert parse(f"text,label\r\n{long},0\r\n", tabs=False) == [[long, "0"]]
        assert csv.field_size_limit() == before

    def test_gzip(self, tmp_path: Path) -> None:
        content = "sentence,label\na,0\nb,1\n"
        (tmp_path / "train.csv.gz").write_bytes(gzip.compress(content.encode()))
        assert load_split(get_task("sst2"), tmp_path, "train").texts == ["a", "b"]
        (tmp_path / "train.csv.gz").write_bytes(b"no gzip")
        with pytest.raises(DataError, match=r"train.csv.gz cannot be read as gzip"):
            load_split(get_task("sst2"), tmp_path, "train")
