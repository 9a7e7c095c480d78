"""Telling a measurement: tables for people, lines for programs, a picture; ratios to peers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparsebert.bench import Shape, as_csv, as_markdown
from sparsebert.bench.plot import latency_figure, save_plot
from sparsebert.bench.result import BenchResult, EngineReport, Row, compare
from sparsebert.bench.workloads import Texts
from sparsebert.errors import OutputError

OURS = "sparsebert-fp32"


def made_result() -> BenchResult:
    """Two engines at two shapes and one that is not there, with numbers to look for."""
    machine = {
        "cpu": "Difference Engine, No. 2",
        "cores": "2",
        "instruction_set": "portable",
        "system": "Linux 6.1 x86_64",
        "python": "3.11.7",
        "sparsebert": "0.1.0",
        "date": "1991-06-27 12:00 UTC",
    }
    rows = [
        Row(Shape(1, 16), OURS, 2.0, 1.9, 2.25, 1.75, 1.0, (2.0, 2.25, 1.75)),
        Row(Shape(1, 16), "torch", 5.0, 4.5, 5.5, 4.25, 2.46, (5.0, 4.5, 5.25)),
        Row(Shape(8, 128), OURS, 80.0, 79.0, 81.0, 78.5, 1.0, (80.0, 82.0, 78.0)),
        Row(Shape(8, 128), "torch", 140.0, 139.0, 150.0, 138.0, 1.77, (140.0, 164.0, 117.0)),
    ]
    engines = [
        EngineReport(
            OURS, None, "sparsebert 0.1.0", "portable, fp32 weights", 0.25, 3 * 2**20, 0.5
        ),
        EngineReport("torch", None, "torch 2.13.0", "eager, fp32", 3.5, 600 * 2**20, 3.75),
        EngineReport("abacus", "abacus is not installed: visit a museum"),
    ]
    return BenchResult("2 layers x 32 hidden", "1:2", machine, 2, 7, OURS, engines, rows)


def test_markdown() -> None:
    text = as_markdown(made_result())
    assert "model: 2 layers x 32 hidden, 1:2" in text
    assert "Difference Engine, No. 2, 2 cores, portable" in text
    assert "2 threads, 7 interleaved rounds, 1991-06-27 12:00 UTC" in text
    assert "| torch | torch 2.13.0 | eager, fp32 | 3.50 | 3.75 | 600 |" in text
    assert "| abacus | not run: abacus is not installed: visit a museum | | | | |" in text
    assert "| 8x128 | torch | 140.00 | 139.00 - 150.00 | 138.00 | 57.1 | 1.77 |" in text
    assert "time / sparsebert-fp32's" in text
    # 140/80, 164/82, 117/78: 1.75, 2, 1.5
    cell = "1.75 (1.62 - 1.88) torch"
    assert f"| 8x128 | sparsebert-fp32 | {cell} | {cell} |  |" in text


def test_an_engine_that_stopped_is_told_where() -> None:
    result = made_result()
    result.engines[1] = replace(result.engines[1], reason="at 8x128: out of breath")
    assert "| eager, fp32; stopped at 8x128: out of breath | 3.50 |" in as_markdown(result)


def test_without_our_engine_there_is_nothing_to_compare() -> None:
    result = made_result()
    result.rows = [replace(row, ratio=None) for row in result.rows if row.engine == "torch"]
    result.baseline = None
    text = as_markdown(result)
    assert "| 8x128 | torch | 140.00 | 139.00 - 150.00 | 138.00 | 57.1 |  |" in text
    assert "fastest peer" not in text


def test_json_has_every_round_and_the_comparisons() -> None:
    found = json.loads(json.dumps(made_result().as_dict(), allow_nan=False))
    assert found["rows"][3]["samples_ms"] == [140.0, 164.0, 117.0]
    assert found["rows"][3]["texts_per_second"] == pytest.approx(8 / 0.14)
    assert [each["shape"] for each in found["comparisons"]] == ["1x16", "8x128"]
    assert found["comparisons"][1]["peer"]["median"] == pytest.approx(1.75)


def test_the_best_peer_is_chosen_for_each_precision() -> None:
    times = {
        "sparsebert-int8": [1.0, 1.0, 2.0],
        "sparsebert-fp32": [3.0, 3.0, 6.0],
        "sparsebert-dense-fp32": [4.0, 4.5, 9.0],
        "sparsebert-fp16": [4.0, 4.0, 4.0],
        "good-int8": [2.0, 2.0, 4.0],
        "bad-int8": [3.0, 3.0, 1.0],
        "good-fp32": [6.0, 6.0, 12.0],
        "bad-fp32": [7.0, 7.0, 7.0],
    }
    precisions = {name: name.rpartition("-")[2] for name in times}
    int8, fp32, fp16 = compare("1x16", times, precisions)
    assert (int8.engine, fp32.engine, fp16.engine) == tuple(
        f"sparsebert-{precision}" for precision in ("int8", "fp32", "fp16")
    )
    assert int8.peer is not None
    assert int8.peer == int8.same_precision
    assert (int8.peer.peer, int8.peer.median) == ("good-int8", 2)
    assert int8.dense is None
    assert fp32.peer is not None
    assert fp32.same_precision is not None
    assert fp32.dense is not None
    assert (fp32.peer.peer, fp32.peer.median) == ("good-int8", pytest.approx(2 / 3))
    assert (fp32.same_precision.peer, fp32.same_precision.median) == ("good-fp32", 2)
    assert (fp32.dense.peer, fp32.dense.median) == ("sparsebert-dense-fp32", 1.5)
    assert fp16.same_precision is None


def test_texts_are_told_by_their_throughput() -> None:
    row = Row(Texts(872, 21_000, 32), OURS, 4000.0, 3900.0, 4100.0, 3900.0, 1.0, (4000.0,))
    result = replace(made_result(), rows=[row])
    expected = (
        "| 872 texts by 32 | sparsebert-fp32 | 4000.00 | 3900.00 - 4100.00 | 3900.00 | 218.0 |"
    )
    assert expected in as_markdown(result)


def test_csv() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(made_result()))))
    assert [line["engine"] for line in lines] == [OURS, OURS, "torch", "torch", "abacus"]
    torch = lines[3]
    assert (torch["shape"], torch["median_ms"], torch["ratio"]) == ("8x128", "140.0", "1.77")
    assert torch["cpu"] == "Difference Engine, No. 2"
    assert float(torch["texts_per_second"]) == pytest.approx(8 / 0.14)
    assert "samples_ms" not in torch
    assert (lines[4]["median_ms"], lines[4]["not_run"][:6]) == ("", "abacus")


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = latency_figure(made_result())
    assert len(figure.axes) == 2
    assert figure.axes[1].get_title(loc="left") == "8x128  (batch x tokens)"
    assert [text.get_text() for text in figure.axes[1].texts] == ["80.0 ms", "140 ms  (1.77x)"]
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    assert widths == [80.0, 140.0]
    save_plot(made_result(), tmp_path / "plot.svg")
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
    with pytest.raises(OutputError, match="could not be written"):
        save_plot(made_result(), tmp_path / "no" / "such" / "folder.svg")
