"""Two runs that write to one folder: the later one takes it over, and nothing is mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import sparsebert.scale.job as job_module
from sentences import SENTENCES
from sparsebert.errors import OutputError
from sparsebert.scale import embed_files
from sparsebert.scale.input_files import InputFiles, Location, find_input_files
from sparsebert.scale.output import PartWriter, begin, finish
from tiny_models import TinyBert

STOPS = "another run has begun to write to .*, so this one stops"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    texts = [f"{SENTENCES[row % len(SENTENCES)]} {row}" for row in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def inputs(source: Path) -> InputFiles:
    return find_input_files(source)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("change", [{}, {"normalize": True, "force": True}])
@pytest.mark.parametrize("within_a_part", [False, True])
def test_the_earlier_run_stops_and_the_later_one_finishes(
    tiny_bert: TinyBert,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    within_a_part: bool,
) -> None:
    encoder, out = tiny_bert(), tmp_path / "out"
    options: dict[str, Any] = {"normalize": False, "rows_per_file": 10}
    answer_table = job_module.answer_table
    answered, later = [], []

    def start_another() -> None:
        later.append(None)  # only once
        later[0] = embed_files(encoder, source, out, **{**options, **change})

    def answer(*arguments: Any) -> Any:
        answered.append(arguments)
        if within_a_part and len(answered) == 4:
            start_another()
        return answer_table(*arguments)

    def progress(label: str, done: int, total: int) -> None:
        if not within_a_part and (label, done) == ("embedding rows", 30) and not later:
            start_another()

    monkeypatch.setattr(job_module, "answer_table", answer)
    with pytest.raises(OutputError, match=STOPS):
        embed_files(encoder, source, out, progress=progress, **options)
    assert later[0].rows_done == (60 if change else 30)
    parts = [f"part-{number:06d}.parquet" for number in range(6)]
    assert names(out) == ["_SUCCESS", "_sparsebert.json", *parts]
    vectors = np.array(ds.dataset(out).to_table()["embedding"].to_pylist())
    is_one = np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-5
    assert is_one.all() if change else not is_one.any()
    again = embed_files(encoder, source, out, **{**options, **change, "force": False})
    assert again.rows_done == 0


def write(out: Location, run: str) -> PartWriter:
    """A writer that has its rows but is not finished."""
    writer = PartWriter(out, "part-000000.parquet", run).__enter__()
    writer.add(pa.table({"run": [run]}))
    writer.note({"part": 0, "rows": 1})
    return writer


def test_runs_keep_off_each_others_files(inputs: InputFiles, tmp_path: Path) -> None:
    out = Location.of(tmp_path / "out")
    begin(out, {"rows": 1}, inputs, "aa", force=False)
    first = write(out, "aa")
    assert begin(out, {"rows": 1}, inputs, "bb", force=False) == set()
    second = write(out, "bb")
    with pytest.raises(OutputError, match=STOPS):
        first.__exit__(None, None, None)
    with pytest.raises(OutputError, match=STOPS):
        finish(out, ["part-000000.parquet"], "aa")
    assert names(tmp_path / "out") == [".part-000000.parquet.bb.1", "_sparsebert.json"]
    second.__exit__(None, None, None)
    (tmp_path / "out/._sparsebert.json.cc").write_bytes(b"")  # a third run that is just beginning
    (tmp_path / "out/.part-000001.parquet.bb.1").write_bytes(b"")
    finish(out, ["part-000000.parquet"], "bb")
    assert pq.read_table(tmp_path / "out/part-000000.parquet")["run"].to_pylist() == ["bb"]
    assert names(tmp_path / "out") == [
        "._sparsebert.json.cc",
        "_SUCCESS",
        "_sparsebert.json",
        "part-000000.parquet",
    ]


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_is_taken_over_while_it_renames(
    inputs: InputFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """The other run begins between the last check and the renaming."""
    import sparsebert.scale.output as output

    out = Location.of(tmp_path / "out")
    begin(out, {"rows": 1}, inputs, "aa", force=False)
    first = write(out, "aa")
    check = output._check_run

    def check_and_lose(*arguments: Any) -> None:
        check(*arguments)
        monkeypatch.setattr(output, "_check_run", check)
        begin(out, {"rows": 1}, inputs, "bb", force=force)

    monkeypatch.setattr(output, "_check_run", check_and_lose)
    with pytest.raises(OutputError, match=STOPS):
        first.__exit__(None, None, None)
    assert names(tmp_path / "out") == ["_sparsebert.json"]


def test_a_machine_with_another_folder_there(inputs: InputFiles, tmp_path: Path) -> None:
    out = Location.of(tmp_path / "out")
    begin(out, {"rows": 1}, inputs, "aa", force=False)
    (tmp_path / "out/_sparsebert.json").unlink()
    with pytest.raises(OutputError, match=r"has no _sparsebert.json: .* another folder on this"):
        write(out, "aa")
