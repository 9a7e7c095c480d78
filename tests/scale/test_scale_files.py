"""`embed` and `classify` over files: rows, order and columns kept, stops gone on with."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from commands import invoke
from sentence_folders import with_settings
from sentences import SENTENCES, long_text
from sparsebert import load
from sparsebert.errors import (
    CheckpointError,
    DataError,
    EngineError,
    InputError,
    OutputError,
)
from sparsebert.progress import silent
from sparsebert.scale import classify_files, embed_files
from sparsebert.scale.columns import Columns
from sparsebert.scale.files import Worker
from sparsebert.scale.finished_parts import is_whole
from sparsebert.scale.input_files import COMPRESSIONS, Location, find_input_files
from sparsebert.scale.output import TRIES
from sparsebert.scale.parts import Part, PartReader, make_plan
from tiny_models import TinyBert

TEXTS = [f"{SENTENCES[row % len(SENTENCES)]} {row}" for row in range(57)]


@pytest.fixture(scope="module")
def encoder(tiny_bert: TinyBert) -> Path:
    return tiny_bert()


@pytest.fixture(scope="module")
def classifier(tiny_bert: TinyBert) -> Path:
    return tiny_bert("sequence-classification")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """57 rows in two files, with row groups of 7 and 100, and a column that only one has."""
    folder = tmp_path / "documents"
    (folder / "more").mkdir(parents=True)
    first = {"id": range(40), "text": TEXTS[:40], "day": ["2024-01-01T00:00:00Z"] * 40}
    pq.write_table(pa.table(first), folder / "a.parquet", row_group_size=7)
    second = {"id": range(40, 57), "text": TEXTS[40:], "tags": [[{"name": "x"}]] * 17}
    pq.write_table(pa.table(second), folder / "more" / "b.parquet", row_group_size=100)
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.txt").write_text("")
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def output(folder: Path) -> pa.Table:
    """The output as any reader of Parquet folders sees it."""
    return ds.dataset(folder, format="parquet").to_table()


def vectors(table: pa.Table, column: str = "embedding") -> np.ndarray[Any, Any]:
    return np.array(table[column].to_pylist(), np.float32)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestEmbed:
    def test_a_prompt_stands_before_each_text(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        embed_files(encoder, documents, tmp_path / "out", prompt="the wall: ")
        found = output(tmp_path / "out")["embedding"].to_pylist()
        expected = load(encoder).embed(TEXTS, prompt="the wall: ")
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_a_prompt_by_its_name(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        prompts = {"passage": "the wall: "}
        folder = with_settings(encoder, tmp_path / "prompted", prompts=prompts)
        embed_files(folder, documents, tmp_path / "out", prompt_name="passage")
        found = output(tmp_path / "out")["embedding"].to_pylist()
        expected = load(encoder).embed(TEXTS, prompt="the wall: ")
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_rows_come_out_in_order_with_all_their_columns(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        result = embed_files(encoder, documents, tmp_path / "out", rows_per_file=10)
        assert (result.rows, result.rows_done, result.files, result.failed) == (57, 57, 6, 0)
        found = output(tmp_path / "out")
        assert found.column_names == ["id", "text", "day", "tags", "embedding", "embedding_error"]
        assert found["id"].to_pylist() == list(range(57))
        assert found["text"].to_pylist() == TEXTS
        assert found["day"].to_pylist() == ["2024-01-01T00:00:00Z"] * 40 + [None] * 17
        assert found["tags"].to_pylist() == [None] * 40 + [[{"name": "x"}]] * 17
        assert found["embedding"].type == pa.list_(pa.float32(), 32)
        assert found["embedding_error"].null_count == 57
        assert np.abs(vectors(found) - load(encoder).embed(TEXTS)).max() < 1e-5
        rows = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").glob("p*"))]
        assert rows == [10, 10, 10, 10, 10, 7]
        assert names(tmp_path / "out")[:2] == ["_SUCCESS", "_sparsebert.json"]
        assert str(tmp_path) not in (tmp_path / "out/_sparsebert.json").read_text()

    @pytest.mark.parametrize("rows_per_file", [1, 7, 57, 1000])
    def test_the_size_of_files_changes_nothing_else(
        self, encoder: Path, documents: Path, tmp_path: Path, rows_per_file: int
    ) -> None:
        source = documents / "a.parquet"
        embed_files(encoder, source, tmp_path / "out", rows_per_file=rows_per_file)
        found = output(tmp_path / "out")
        assert found["id"].to_pylist() == list(range(40))
        assert np.abs(vectors(found) - load(encoder).embed(TEXTS[:40])).max() < 1e-5

    def test_options_reach_the_model(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        embed_files(
            encoder,
            documents / "*.parquet",
            tmp_path / "out",
            pooling="cls",
            normalize=True,
            max_length=8,
            keep_columns=["id"],
            output_column="vector",
        )
        found = output(tmp_path / "out")
        assert found.column_names == ["id", "vector", "vector_error"]
        with pytest.warns(match="longer than 8 tokens"):
            expected = load(encoder, max_length=8).embed(TEXTS[:40], pooling="cls", normalize=True)
        assert np.abs(vectors(found, "vector") - expected).max() < 1e-5

    def test_columns_may_be_dictionaries_and_kept_out(self, encoder: Path, tmp_path: Path) -> None:
        table = pa.table({"body": pa.array(TEXTS).dictionary_encode(), "n": range(57)})
        pq.write_table(table, tmp_path / "in.parquet")
        embed_files(
            encoder, tmp_path / "in.parquet", tmp_path / "out", text_column="body", keep_columns=[]
        )
        found = output(tmp_path / "out")
        assert found.column_names == ["embedding", "embedding_error"]
        assert np.abs(vectors(found) - load(encoder).embed(TEXTS)).max() < 1e-5

    def test_a_bad_row_spoils_only_itself(self, encoder: Path, tmp_path: Path) -> None:
        texts = ["a text", None, " ", long_text(300), "another"]
        pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
        cut = embed_files(encoder, tmp_path / "in.parquet", tmp_path / "cut")
        assert (cut.failed, cut.truncated) == (1, 1)
        result = embed_files(encoder, tmp_path / "in.parquet", tmp_path / "out", strict=True)
        assert (result.rows, result.failed, result.truncated) == (5, 2, 0)
        found = output(tmp_path / "out").to_pylist()
        assert [row["text"] for row in found] == texts
        good = np.array([found[place]["embedding"] for place in (0, 2, 4)], np.float32)
        assert np.abs(good - load(encoder).embed(["a text", " ", "another"])).max() < 1e-5
        for row, error in zip((found[1], found[3]), ("must be a string, not None", "tokens")):
            assert row["embedding"] is None
            assert error in row["embedding_error"]


class TestClassify:
    def test_pairs_and_the_best_labels(self, classifier: Path, tmp_path: Path) -> None:
        rows = [
            {"premise": text, "hypothesis": None if row == 3 else TEXTS[-row - 1]}
            for row, text in enumerate(TEXTS[:20])
        ]
        source = write_lines(tmp_path / "in.jsonl", rows)
        columns = {"text_column": "premise", "pair_column": "hypothesis", "output_column": "is"}
        classify_files(classifier, source, tmp_path / "out", top_k=2, **columns)
        found = output(tmp_path / "out").to_pylist()
        pairs = [
            (row["premise"], row["hypothesis"]) if row["hypothesis"] else row["premise"]
            for row in rows
        ]
        for row, best in zip(found, load(classifier).classify(pairs, top_k=2)):
            assert row["is"] == best[0]["label"]
            assert row["is_score"] == pytest.approx(best[0]["score"], abs=1e-6)
            assert [each["label"] for each in row["is_top"]] == [each["label"] for each in best]
        assert list(found[0]) == ["premise", "hypothesis", "is", "is_score", "is_top", "is_error"]

    def test_an_encoder_cannot(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot classify"):
            classify_files(encoder, documents, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestJsonLines:
    ROWS = tuple(
        {"id": row, "text": text, "when": "2024-05-01 10:00:00", "n": [row, row / 2][row % 2]}
        for row, text in enumerate(TEXTS)
    )

    @pytest.mark.parametrize("compressed", [False, True])
    def test_what_is_kept_comes_out_as_it_went_in(
        self, encoder: Path, tmp_path: Path, compressed: bool
    ) -> None:
        rows = [*self.ROWS, {"id": 57, "text": "last", "only": {"here": True}}]
        text = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path = tmp_path / ("in.jsonl.gz" if compressed else "in.ndjson")
        path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
        result = embed_files(encoder, path, tmp_path / "out", rows_per_file=10)
        assert result.files == (1 if compressed else 6)
        found = output(tmp_path / "out")
        assert found["id"].to_pylist() == list(range(58))
        assert found["n"].to_pylist() == [row.get("n") for row in rows]
        assert found["when"].to_pylist() == [row.get("when") for row in rows]
        assert found["only"].to_pylist() == [None] * 57 + [{"here": True}]
        expected = load(encoder).embed([row["text"] for row in rows])
        assert np.abs(vectors(found) - expected).max() < 1e-5

    @pytest.mark.parametrize("ending", ["", *COMPRESSIONS])
    def test_all_of_many_lines_are_scanned_and_read(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"in.jsonl{ending}"
        with pa.output_stream(path) as file:  # compresses by the name's ending
            for row in range(3000):
                file.write(json.dumps({"text": "a", "n": row if row < 2999 else 0.5}).encode())
                file.write(b"\n")
        inputs = find_input_files(path)
        plan = make_plan(inputs, Columns(), 10_000, silent)
        assert plan.rows == 3000
        assert plan.schema.field("n").type == pa.float64()
        (part,) = plan.parts
        tables = pa.concat_tables(PartReader(inputs, plan.schema).read(part))
        assert tables["n"].to_pylist() == [*range(2999), 0.5]

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            (b'{"text": "a"', "in.jsonl, line 3: not JSON"),
            (b'{"text": "\xff"}', "in.jsonl, line 3: not JSON"),
            (b"[" * 100_000, "in.jsonl, line 3: not JSON"),
            (b'["a"]', "line 3: the line's JSON is not an object"),
            (b'{"text": 5}', "column 'text' has mixed types"),
            (b'{"text": "a", "n": "x"}', "column 'n' has mixed types"),
            (
                b'{"text": "a", "n": 99999999999999999999}',
                "column 'n' has mixed types or unsupported",
            ),
            (
                rb'{"text": "a", "m": [{"n": "\ud800"}]}',
                r"in.jsonl, line 3: not JSON .it is not valid Unicode",
            ),
            (b'{"text": "a", "m": [{"n": {}}]}', "column 'm' contains objects without fields"),
        ],
    )
    def test_damaged_lines(self, encoder: Path, tmp_path: Path, line: bytes, told: str) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n' + line + b"\n")
        with pytest.raises(DataError, match=told):
            embed_files(encoder, path, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestGoingOn:
    def stop_after(self, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
        do = Worker.do
        done = []

        def some(self: Worker, part: Any) -> Any:
            if len(done) == parts:
                raise KeyboardInterrupt
            done.append(part)
            return do(self, part)

        monkeypatch.setattr(Worker, "do", some)

    def test_only_what_is_missing_is_done(
        self, encoder: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        with monkeypatch.context() as stopping:
            self.stop_after(2, stopping)
            with pytest.raises(KeyboardInterrupt):
                embed_files(encoder, documents, out, rows_per_file=10)
        assert [name for name in names(out) if name.startswith("part")] == [
            "part-000000.parquet",
            "part-000001.parquet",
        ]
        assert "_SUCCESS" not in names(out)
        # What a kill leaves behind, and one that lies between.
        (out / ".part-000002.parquet.0123456789abcdef.1").write_bytes(b"PAR1 half")
        (out / "part-000000.parquet").unlink()
        before = (out / "part-000001.parquet").stat().st_mtime_ns
        seen = []
        result = embed_files(
            encoder,
            documents,
            out,
            rows_per_file=10,
            batch_size=4,
            progress=lambda label, done, total: seen.append((label, done, total)),
        )
        assert (result.rows, result.rows_done) == (57, 47)
        assert seen[-6:] == [("embedding rows", done, 57) for done in (10, 20, 30, 40, 50, 57)]
        assert (out / "part-000001.parquet").stat().st_mtime_ns == before
        assert [name for name in names(out) if name.startswith(".")] == []
        assert output(out)["id"].to_pylist() == list(range(57))
        again = embed_files(encoder, documents, out, rows_per_file=10)
        assert (again.rows, again.rows_done) == (57, 0)

    def test_a_finished_part_that_was_damaged_since_is_made_again(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        embed_files(encoder, documents, out, rows_per_file=10)
        before = output(out)
        second, third = out / "part-000001.parquet", out / "part-000002.parquet"
        spoilt = bytearray(second.read_bytes())
        spoilt[len(spoilt) // 2] ^= 1
        second.write_bytes(spoilt)
        third.write_bytes(third.read_bytes()[:-9])
        with pytest.warns(UserWarning, match="2 of 6 finished files .*part-000001.parquet"):
            again = embed_files(encoder, documents, out, rows_per_file=10)
        assert (again.rows, again.rows_done) == (57, 20)
        assert "_SUCCESS" in names(out)
        assert output(out).equals(before)

    def test_every_byte_of_a_finished_part_counts(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        embed_files(encoder, documents / "more", tmp_path / "out", keep_columns=["id"])
        target, part = Location.of(tmp_path / "out"), Part(0, 0, 0, 17, 17)
        assert is_whole(target, part)
        assert not is_whole(target, Part(0, 0, 0, 18, 18))
        file = tmp_path / "out" / part.name
        content, before = file.read_bytes(), pq.read_table(file)
        footer = len(content) - int.from_bytes(content[-8:-4], "little") - 8
        for at in [*range(0, footer, 41), *range(footer, len(content), 3)]:
            changed = bytearray(content)
            changed[at] ^= 1 << at % 8
            file.write_bytes(changed)
            if is_whole(target, part):  # a statistic, or the name of who wrote it
                assert pq.read_table(file).equals(before), at

    def test_an_error_leaves_nothing_half_written(
        self, encoder: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        close = pq.ParquetWriter.close

        def full_at_the_end(self: pq.ParquetWriter) -> None:
            close(self)
            full()

        with monkeypatch.context() as failing:
            failing.setattr(pq.ParquetWriter, "write_table", full)
            with pytest.raises(OutputError, match=r"out could not be written: .*No space left"):
                embed_files(encoder, documents, out)
        assert names(out) == ["_sparsebert.json"]
        with monkeypatch.context() as failing:
            # The rows fitted, what is written at the end did not.
            failing.setattr(pq.ParquetWriter, "close", full_at_the_end)
            with pytest.raises(OutputError, match=r"out could not be written: .*No space left"):
                embed_files(encoder, documents, out)
        assert names(out) == ["_sparsebert.json"]
        # What a crash leaves of the job's own file, and of the mark at the end.
        (out / "_sparsebert.json").rename(out / "._sparsebert.json.0123456789abcdef")
        (out / "._SUCCESS.0123456789abcdef").write_bytes(b"")
        assert embed_files(encoder, documents, out).rows_done == 57
        assert names(out) == [
            "_SUCCESS",
            "_sparsebert.json",
            "part-000000.parquet",
            "part-000001.parquet",
        ]

    def test_a_file_that_another_machine_keeps_for_itself_is_missed(
        self, encoder: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        do = Worker.do

        def elsewhere(self: Worker, part: Any) -> Any:
            report = do(self, part)
            if part.number == 1:
                (out / part.name).rename(tmp_path / part.name)
            return report

        with monkeypatch.context() as apart:
            apart.setattr(Worker, "do", elsewhere)
            with pytest.raises(OutputError, match=r"lacks 1 of 6 files, such as part-000001"):
                embed_files(encoder, documents, out, rows_per_file=10)
        assert "_SUCCESS" not in names(out)
        assert embed_files(encoder, documents, out, rows_per_file=10).rows_done == 10

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"pooling": "max"}, "pooling was None and is now 'max'"),
            ({"rows_per_file": 9}, "rows_per_file was 10000 and is now 9"),
            ({"keep_columns": ["id"]}, r"keep_columns was None and is now \['id'\]"),
        ],
    )
    def test_another_job_is_refused(
        self, encoder: Path, documents: Path, tmp_path: Path, change: dict[str, Any], told: str
    ) -> None:
        out = tmp_path / "out"
        embed_files(encoder, documents, out)
        with pytest.raises(OutputError, match=told):
            embed_files(encoder, documents, out, **change)
        embed_files(encoder, documents, out, **change, force=True)
        (out / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"notes.txt, which does not belong to a job"):
            embed_files(encoder, documents, out, force=True)
        assert (out / "notes.txt").read_text() == "mine"

    def test_other_models_and_inputs_are_refused(
        self, encoder: Path, tiny_bert: TinyBert, documents: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        embed_files(encoder, documents, out)
        other = tiny_bert(seed=1)
        with pytest.raises(OutputError, match="model_sha256 was"):
            embed_files(other, documents, out)
        (documents / "a.parquet").unlink()
        with pytest.raises(OutputError, match="input_files was 2 and is now 1"):
            embed_files(encoder, documents, out)

    def test_a_folder_of_something_else_is_left_alone(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        for out in (documents, documents / "out", documents / "more"):
            with pytest.raises(OutputError, match="is inside the input or contains"):
                embed_files(encoder, documents, out)
        embed_files(encoder, documents, tmp_path / "first")
        (tmp_path / "link").symlink_to("first")
        for given, out in (
            ("first/*.parquet", "first"),
            ("first/part-000000.parquet", "first"),
            ("documents/../link/part-*.parquet", "first"),
            ("first/*.parquet", "link"),
        ):
            with pytest.raises(OutputError, match="is inside the input or contains files of it"):
                embed_files(
                    encoder, tmp_path / given, tmp_path / out, output_column="e", force=True
                )
        assert "part-000000.parquet" in names(tmp_path / "first")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/part-000000.parquet").write_bytes(b"whose?")
        with pytest.raises(OutputError, match="which does not belong to a job"):
            embed_files(encoder, documents, tmp_path / "out")
        (tmp_path / "out/_sparsebert.json").write_text("{")
        with pytest.raises(OutputError, match="is damaged"):
            embed_files(encoder, documents, tmp_path / "out")

    def test_a_part_that_kills_workers_is_given_up(
        self, encoder: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"

        def leave_tries(done: str, *_: Any) -> None:
            run = json.loads((out / "_sparsebert.json").read_text())["run"]
            for count in range(1, TRIES + 1):
                (out / f".part-000000.parquet.{run}.{count}").write_bytes(b"")

        with pytest.raises(OutputError, match=r"3 workers died on part-000000.parquet"):
            embed_files(encoder, documents, out, progress=leave_tries_at_work(leave_tries))

    def test_another_model_on_a_machine_is_seen(
        self, encoder: Path, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sparsebert.scale.files as files

        monkeypatch.setattr(files, "model_fingerprint", lambda _: "of another machine")
        monkeypatch.setattr(files, "_here", lambda worker, parts: iter_with(worker, parts))
        with pytest.raises(CheckpointError, match="is not the one that the job was started with"):
            embed_files(encoder, documents, tmp_path / "out")


def leave_tries_at_work(leave: Any) -> Any:
    def progress(label: str, done: int, total: int) -> None:
        if label == "embedding rows":
            leave(label)

    return progress


def iter_with(worker: Worker, parts: Any) -> Any:
    """A worker as another machine has it: without the model that the job was begun with."""
    alone = Worker(worker._job)
    return (alone.do(part) for part in parts)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"text_column": "body"}, r"has no column 'body' \(it has id, text, day\)"),
            ({"text_column": "id"}, "column 'id' of a.parquet is int64, but must hold text"),
            ({"pair_column": "other"}, r"no column 'other' .*--pair-column"),
            ({"keep_columns": ["id", "x"]}, "there is no column 'x' to keep"),
            ({"output_column": "id"}, "already has a column 'id'"),
            ({"rows_per_file": 0}, "rows_per_file must be at least 1"),
        ],
    )
    def test_columns(
        self, encoder: Path, documents: Path, tmp_path: Path, options: Any, told: str
    ) -> None:
        with pytest.raises(DataError, match=told):
            embed_files(encoder, documents, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    def test_files_that_do_not_fit_each_other(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), documents / "c.parquet")
        with pytest.raises(
            DataError, match=r"columns of c.parquet do not fit those of .* from a.parquet on"
        ):
            embed_files(encoder, documents, tmp_path / "out")

    def test_inputs(self, encoder: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for given, told in (
            (tmp_path / "none", "does not exist"),
            (tmp_path / "in", "contains no Parquet or JSON lines"),
            (tmp_path / "*.parquet", "contains no Parquet or JSON lines"),
            ("nowhere://x/y", "cannot be opened"),
        ):
            with pytest.raises(DataError, match=told):
                embed_files(encoder, given, tmp_path / "out")
        (tmp_path / "in/a.csv").write_text("text\n")
        with pytest.raises(DataError, match=r"a.csv, which is neither Parquet"):
            embed_files(encoder, tmp_path / "in", tmp_path / "out")
        (tmp_path / "bad.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"bad.parquet cannot be read: "):
            embed_files(encoder, tmp_path / "bad.parquet", tmp_path / "out")
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
        with pytest.raises(DataError, match="the input has no rows"):
            embed_files(encoder, tmp_path / "empty.parquet", tmp_path / "out")

    def test_a_file_that_changes_meanwhile(
        self, encoder: Path, documents: Path, tmp_path: Path
    ) -> None:
        source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])

        def change(label: str, done: int, total: int) -> None:
            if label == "embedding rows" and done == 10:
                write_lines(source, [{"text": "a"}])

        with pytest.raises(DataError, match="has changed since the job began"):
            embed_files(encoder, source, tmp_path / "out", rows_per_file=10, progress=change)

    def test_engines(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="'spark' is not an engine"):
            embed_files(encoder, documents, tmp_path / "out", engine="spark")
        with pytest.raises(EngineError, match="are for engine 'ray'"):
            embed_files(encoder, documents, tmp_path / "out", actors=2)


def test_urls(encoder: Path, documents: Path, tmp_path: Path) -> None:
    embed_files(encoder, documents.as_uri(), (tmp_path / "out").as_uri(), rows_per_file=30)
    assert output(tmp_path / "out")["id"].to_pylist() == list(range(57))


def test_order_is_that_of_names_and_patterns_reach_into_folders(documents: Path) -> None:
    found = find_input_files(documents / "**" / "*.parquet")
    assert [file.name for file in found.files] == ["a.parquet", "more/b.parquet"]
    assert found.folder is None


class TestCommand:
    def test_embed(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        options = ("--keep-columns", "id", "--rows-per-file", 20, "--threads", 1)
        done = invoke("embed", encoder, "-i", documents, "-o", out, *options)
        assert done.exit_code == 0, done.output
        assert re.search(r"57 rows in 3 files; 57 rows in \d", done.stdout)
        assert output(out).column_names == ["id", "embedding", "embedding_error"]
        done = invoke("embed", encoder, "-i", documents, "-o", out, *options, "--json")
        told = json.loads(done.stdout)
        assert (told["rows"], told["rows_done"], told["threads"]) == (57, 0, 1)

    def test_classify(self, classifier: Path, documents: Path, tmp_path: Path) -> None:
        done = invoke("classify", classifier, "-i", documents, "-o", tmp_path / "out", "--json")
        assert done.exit_code == 0, done.output
        expected = [each[0]["label"] for each in load(classifier).classify(TEXTS, top_k=1)]
        assert output(tmp_path / "out")["label"].to_pylist() == expected

    def test_wrong_use(self, encoder: Path, documents: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for wrong in (
            ("-o", out),
            ("-i", documents),
            ("-i", documents / "a.parquet"),
            ("-i", tmp_path / "none"),
            ("-i", documents, "-o", tmp_path / "out.jsonl"),
            ("-i", documents, "-o", out, "--format", "jsonl"),
            ("-i", documents, "-o", out, "--task", "query"),
            ("-i", documents, "-o", out, "--engine", "spark"),
            ("-i", documents, "-o", out, "--engine", "ray", "--actors", "many"),
            ("--engine", "ray"),
            ("--text-column", "x"),
        ):
            assert invoke("embed", encoder, *wrong).exit_code == 2, wrong
        assert not out.exists()
