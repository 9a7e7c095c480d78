"""What a person at a notebook sees: results as tables and frames, and bars while work goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bert_folders import write_bert
from sparsebert import inspect, load, pack, prune
from sparsebert.bench import BenchResult, Shape, as_markdown
from sparsebert.bench.result import EngineReport, Row
from sparsebert.diagnosis import diagnose
from sparsebert.errors import MissingExtraError
from sparsebert.evaluation import Evaluation
from sparsebert.evaluation.results import SeedScores
from sparsebert.progress import shown, silent
from sparsebert.table import Result, Table

SCORES = {"validation": {"pearson": 86.25, "spearman": 85.5}}
EVALUATION = Evaluation("m", "stsb", "STS-B", "sparsebert", SCORES, {"validation": 1500}, 1.5, 2)
SEEDS = SeedScores(
    "stsb", "STS-B", {1: SCORES, 2: {"validation": {"pearson": 80.0, "spearman": 79}}}
)
TABLE = Table(
    [
        Result("stsb", row, "pearson", scores, 5749, "", "validation", "stsb", (1, 2))
        for row, scores in (("dense", (86.0, 87.0)), ("best", (85.0, 86.0)))
    ]
)
BENCH = BenchResult(
    "m",
    "1:2",
    dict.fromkeys(("cpu", "cores", "instruction_set", "system", "python", "date"), "x"),
    2,
    2,
    "sparsebert-int8",
    [
        EngineReport(name, load_seconds=0.1, precision=precision)
        for name, precision in (("sparsebert-int8", "int8"), ("torch", "fp32"))
    ],
    [
        Row(Shape(8, 128), "sparsebert-int8", 2.0, 1.9, 2.1, 1.8, 1.0, (1.9, 2.1)),
        Row(Shape(8, 128), "torch", 8.0, 7.9, 8.1, 7.8, 4.0, (7.9, 8.1)),
    ],
)


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    prune(write_bert(tmp_path / "dense"), tmp_path / "sparse")
    return tmp_path / "sparse"


class TestFrames:
    """Results as pandas' own frames."""

    @pytest.fixture(autouse=True)
    def pandas(self) -> Any:
        return pytest.importorskip("pandas")

    def test_evaluations(self) -> None:
        frame = EVALUATION.to_pandas()
        assert frame.to_dict("records") == [
            {
                "model": "m",
                "task": "stsb",
                "engine": "sparsebert",
                "split": "validation",
                "metric": metric,
                "score": score,
                "rows": 1500,
            }
            for metric, score in SCORES["validation"].items()
        ]

    def test_seeds(self) -> None:
        frame = SEEDS.to_pandas()
        assert len(frame) == 4
        means = frame.groupby(["split", "metric"])["score"].mean().to_dict()
        assert means == {
            ("validation", metric): mean for metric, mean in SEEDS.mean()["validation"].items()
        }

    def test_tables(self) -> None:
        wide = TABLE.to_pandas().pivot_table(index="row", columns="task", values="score")
        assert wide["stsb"].to_dict() == {"dense": 86.5, "best": 85.5}

    def test_measurements(self) -> None:
        frame = BENCH.to_pandas().set_index("engine")
        assert frame["median_ms"].to_dict() == {"sparsebert-int8": 2.0, "torch": 8.0}
        assert frame.loc["torch", "precision"] == "fp32"
        assert frame.loc["torch", "texts_per_second"] == 1000
        assert frame.loc["torch", "shape"] == "8x128"

    def test_inspections(self, sparse: Path) -> None:
        found = inspect(sparse)
        frame = found.to_pandas()
        assert len(frame) == len(found.layers)
        pruned = frame[frame["recorded"] == "1:2"]
        assert (pruned["zeros"] == 0.5).all()
        assert pruned["whole"].all()

    def test_findings_of_the_doctor(self, sparse: Path) -> None:
        (sparse / "config.json").write_text("{}")
        report = diagnose(sparse)
        frame = report.to_pandas()
        assert frame["kind"].tolist() == [finding.kind for finding in report.findings]
        assert "error" in frame["severity"].tolist()

    def test_losses_of_upstream_pruning(self) -> None:
        pytest.importorskip("torch")
        from sparsebert.training import UpstreamResult

        history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
        result = UpstreamResult(
            *("m", "o", "1:2", "magnitude", 1, 1, 1, 1, 2, 0, 1.0, 1.0, 1, 1, "fp32"), history
        )
        assert result.to_pandas()["loss"].tolist() == [2.0, 1.0]

    def test_scores_of_fine_tuning(self) -> None:
        pytest.importorskip("torch")
        from sparsebert.training import FinetuneResult

        result = FinetuneResult("m", "o", "stsb", "STS-B", 9, 3, 0, 1.0, 9.0, 3, 1, SCORES)
        assert result.to_pandas()["score"].tolist() == [86.25, 85.5]
        assert "| validation | Pearson | 86.25 |" in result._repr_markdown_()


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"sparsebert\[notebook\]"):
        EVALUATION.to_pandas()


def test_results_show_themselves_as_tables(sparse: Path) -> None:
    assert "| validation | Pearson | 86.25 |" in EVALUATION._repr_markdown_()
    assert SEEDS._repr_markdown_() == SEEDS.row()
    assert TABLE._repr_markdown_().startswith("|  | STS-B, Pearson |")
    assert BENCH._repr_markdown_() == as_markdown(BENCH)
    found = inspect(sparse)
    assert "The recorded pattern 1:2 holds in all its" in repr(found)
    assert len(repr(found)) < 300, "not every layer in one line"
    assert found.layers[0].name in found._repr_markdown_()
    assert diagnose(sparse)._repr_markdown_().startswith("```text\n")


def test_ipython_takes_the_tables(sparse: Path) -> None:
    display = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    for result in (EVALUATION, SEEDS, TABLE, BENCH, inspect(sparse)):
        data, _ = display.format(result)
        assert data["text/markdown"] == result._repr_markdown_()


@pytest.fixture
def in_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    def pretend(shell: object) -> None:
        module = ModuleType("IPython")
        module.get_ipython = lambda: shell  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", module)

    return pretend


def test_bars_are_for_kernels_alone(in_notebook: Callable[[object], None]) -> None:
    def told(label: str, done: int, total: int) -> None:
        pass

    in_notebook(None)
    assert shown(None) is silent
    in_notebook(SimpleNamespace())  # IPython in a terminal
    assert shown(None) is silent
    in_notebook(SimpleNamespace(kernel=object()))
    assert shown(None) is not silent
    assert shown(told) is told
    assert shown(silent) is silent


def test_a_kernel_shows_one_bar_a_stage(
    in_notebook: Callable[[object], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tqdm")
    in_notebook(SimpleNamespace(kernel=object()))
    report = shown(None)
    for done in (0, 2, 4, 4):
        report("packing", done, 4)
    report("writing", 0, 0)
    said = capsys.readouterr().err
    assert "packing: 100%" in said
    assert said.count("4/4") == 1
    assert "writing: 0it" in said

    dense = write_bert(tmp_path / "dense")
    pack(dense, tmp_path / "packed")
    assert "packing: 100%" in capsys.readouterr().err
    pack(dense, tmp_path / "again", progress=silent)
    assert capsys.readouterr().err == ""


def test_a_model_shows_what_it_is(sparse: Path) -> None:
    assert repr(load(sparse, threads=1)).startswith("<sparsebert.Model sparse: encoder, ")
    assert json.loads(json.dumps(inspect(sparse).to_dict()))["whole"]
