"""The input of a job: it is read in full and once, and another one is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

import sparsebert.scale.parquet as parquet
from sentences import SENTENCES
from sparsebert.errors import DataError, OutputError
from sparsebert.progress import silent
from sparsebert.scale import embed_files
from sparsebert.scale.columns import Columns
from sparsebert.scale.input_files import InputFile, InputFiles, find_input_files
from sparsebert.scale.parts import PartReader, Plan, make_plan
from tiny_models import TinyBert

TEXTS = [f"{SENTENCES[row % len(SENTENCES)]} {row:03}" for row in range(40)]
SWAPPED = [*TEXTS[:4], TEXTS[10], *TEXTS[5:10], TEXTS[4], *TEXTS[11:]]


def write_lines(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write_parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), path, compression="none", use_dictionary=False)


WRITERS = [("in.jsonl", write_lines), ("in.parquet", write_parquet)]


def plan_of(inputs: InputFiles, rows_per_file: int = 10) -> Plan:
    return make_plan(inputs, Columns(), rows_per_file, silent)


def digest(path: Path) -> str:
    return plan_of(find_input_files(path)).digest


@pytest.mark.parametrize(("name", "write"), WRITERS)
class TestChanges:
    def test_another_input_of_the_same_size_is_refused(
        self,
        tiny_bert: TinyBert,
        tmp_path: Path,
        name: str,
        write: Callable[[Path, list[str]], None],
    ) -> None:
        path, out = tmp_path / name, tmp_path / "out"
        write(path, TEXTS)
        size = path.stat().st_size
        embed_files(tiny_bert(), path, out)
        write(path, SWAPPED)
        assert path.stat().st_size == size
        with pytest.raises(OutputError, match=r"started by another job \(input_sha256 was"):
            embed_files(tiny_bert(), path, out)

    def test_a_copy_is_the_same(
        self, tmp_path: Path, name: str, write: Callable[[Path, list[str]], None]
    ) -> None:
        path = tmp_path / name
        write(path, TEXTS)
        before = digest(path)
        (tmp_path / "copy").mkdir()
        shutil.copyfile(path, tmp_path / "copy" / name)
        os.utime(tmp_path / "copy" / name, (1, 1))
        assert digest(tmp_path / "copy" / name) == before

    def test_a_change_of_the_same_size_during_the_job(
        self,
        tiny_bert: TinyBert,
        tmp_path: Path,
        name: str,
        write: Callable[[Path, list[str]], None],
    ) -> None:
        path = tmp_path / name
        write(path, TEXTS)

        def change(label: str, done: int, total: int) -> None:
            if (label, done) == ("embedding rows", 10):
                write(path, [text.replace("0", "9") for text in TEXTS])

        with pytest.raises(DataError, match=f"{name} has changed since the job began"):
            embed_files(tiny_bert(), path, tmp_path / "out", rows_per_file=10, progress=change)
        assert [each.name for each in (tmp_path / "out").glob("part*")] == ["part-000000.parquet"]


class TestObjectStores:
    """Of files elsewhere only the footer is read, which may be the same for other rows."""

    @pytest.fixture
    def inputs(self, tmp_path: Path) -> InputFiles:
        write_parquet(tmp_path / "in.parquet", TEXTS)
        size = (tmp_path / "in.parquet").stat().st_size
        elsewhere = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
        return InputFiles(elsewhere, (InputFile("in.parquet", "in.parquet", size),), None)

    def test_the_time_of_change_counts(self, inputs: InputFiles, tmp_path: Path) -> None:
        path = tmp_path / "in.parquet"
        os.utime(path, (1, 1))
        before, footer = plan_of(inputs), pq.read_metadata(path)
        write_parquet(path, SWAPPED)
        assert pq.read_metadata(path).equals(footer)
        assert plan_of(inputs).digest != before.digest
        with pytest.raises(DataError, match="has changed since the job began"):
            list(PartReader(inputs, before.schema).read(before.parts[0]))
        os.utime(path, (1, 1))
        assert list(PartReader(inputs, before.schema).read(before.parts[0]))

    def test_but_not_where_there_is_an_etag(self, inputs: InputFiles, tmp_path: Path) -> None:
        class Stored(io.BytesIO):
            etag = b"1"

            def size(self) -> int:
                return inputs.files[0].nbytes

            def metadata(self) -> dict[bytes, bytes]:
                return {b"ETag": self.etag}

        source: Any = Stored((tmp_path / "in.parquet").read_bytes())
        before = parquet._checksum(inputs, inputs.files[0], source)
        os.utime(tmp_path / "in.parquet", (1, 1))
        assert parquet._checksum(inputs, inputs.files[0], source) == before
        source.etag = b"2"
        assert parquet._checksum(inputs, inputs.files[0], source) != before


class TestRowGroups:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The number of rows in each batch that was decoded."""
        found: list[int] = []
        batches = parquet.ParquetRows.batches

        def counted(self: Any, *arguments: Any) -> Iterator[Any]:
            for batch in batches(self, *arguments):
                found.append(len(batch))
                yield batch

        monkeypatch.setattr(parquet.ParquetRows, "batches", counted)
        return found

    @pytest.mark.parametrize("rows_per_file", [1, 60, 1000, 1300, 9000])
    @pytest.mark.parametrize("group", [100, 999, 5000])
    def test_each_is_decoded_once(
        self, tmp_path: Path, decoded: list[int], group: int, rows_per_file: int
    ) -> None:
        table = pa.table({"text": ["a"] * 3000, "id": range(3000)})
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=group)
        inputs = find_input_files(tmp_path / "in.parquet")
        plan = plan_of(inputs, rows_per_file)
        parts = plan.parts if rows_per_file > 1 else plan.parts[:1500]
        reader = PartReader(inputs, plan.schema)
        tables = [pa.concat_tables(reader.read(part)) for part in parts]
        assert [len(each) for each in tables] == [part.rows for part in parts]
        rows = sum(part.rows for part in parts)
        assert pa.concat_tables(tables)["id"].to_pylist() == list(range(rows))
        assert sum(decoded) <= rows + 128

    def test_any_order_gives_the_same_rows(self, tmp_path: Path, decoded: list[int]) -> None:
        for name, first in (("a", 0), ("b", 3000)):
            table = pa.table({"text": ["a"] * 3000, "id": range(first, first + 3000)})
            pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=1700)
        inputs = find_input_files(tmp_path / "*.parquet")
        plan = plan_of(inputs, 700)
        one, two = PartReader(inputs, plan.schema), PartReader(inputs, plan.schema)

        def ids(reader: PartReader, number: int) -> list[int]:
            found: list[int] = pa.concat_tables(reader.read(plan.parts[number]))["id"].to_pylist()
            return found

        expected = [
            list(range(3000 * part.file + part.start, 3000 * part.file + part.stop))
            for part in plan.parts
        ]
        assert [ids((one, two)[number % 2], number) for number in range(10)] == expected
        assert sum(decoded) <= 2 * 6000
        for number in (9, 0, 3, 3, 2, 7, 4, 5):
            assert ids(one, number) == expected[number]
        unread = one.read(plan.parts[0])
        next(unread)
        unread.close()
        assert ids(one, 1) == expected[1]


class TestNumbers:
    """What one file has exactly and another one approximately is not rounded without a word."""

    def test_decimals(self, tmp_path: Path) -> None:
        exact = [Decimal("12345678901234567890.12")]
        pq.write_table(pa.table({"text": ["a"], "n": exact}), tmp_path / "a.parquet")
        (tmp_path / "b.jsonl").write_text('{"text": "b", "n": 0.5}\n')
        inputs = find_input_files(tmp_path)
        with pytest.raises(DataError, match=r"'n' of a.parquet has decimals.* Keep only columns"):
            plan_of(inputs)
        assert make_plan(inputs, Columns(keep=("text",)), 10, silent).rows == 2
        (tmp_path / "b.jsonl").write_text('{"text": "b", "n": 5}\n')
        assert pa.types.is_decimal(plan_of(inputs).schema.field("n").type)

    @pytest.mark.parametrize("kind", ["parquet", "jsonl"])
    def test_large_integers(self, tmp_path: Path, kind: str) -> None:
        if kind == "parquet":
            table = pa.table({"text": ["a"], "n": [2**53 + 1]})
            pq.write_table(table, tmp_path / "a.parquet")
        else:
            (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "n": {2**53 + 1}}}\n')
        (tmp_path / "b.jsonl").write_text('{"text": "b", "n": 0.5}\n')
        inputs = find_input_files(tmp_path)
        plan = plan_of(inputs)
        with pytest.raises(DataError, match=rf"a.{kind}.* 9007199254740993 .* Keep only columns"):
            list(PartReader(inputs, plan.schema).read(plan.parts[0]))
