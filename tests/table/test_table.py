"""The table of the card: hand-made runs and results, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from checkout import RUNS
from commands import Run
from sparsebert.errors import DataError, OutputError
from sparsebert.table import Result, Table, read_results, read_runs
from sparsebert.table.formats import as_card, read_tables, write
from sparsebert.table.layout import as_markdown, tables

Scores = dict[str, dict[str, float]]


def write_document(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def add_model(
    folder: Path,
    task: str,
    scores: Scores,
    *,
    seed: int = 1,
    rows: int = 100,
    evaluated: Scores | None = None,
    **options: Any,
) -> None:
    """What `finetune` leaves of a model, without its weights; ``evaluated``: packed and scored."""
    arguments = {"task": task, "data": task, "seed": seed, "epochs": 3.0, **options}
    steps: list[dict[str, Any]] = [
        {"step": "prune", "from": "org/dense", "arguments": {"pattern": "1:2"}},
        {"step": "finetune", "from": "sparse", "arguments": arguments},
    ]
    if evaluated is not None:
        steps.append({"step": "pack", "from": f"seed-{seed}", "arguments": {"dtype": "int8"}})
        write_document(folder / "evaluation.json", {"task": task, "scores": evaluated})
    write_document(folder / "config.json", {"sparsity": {"lineage": steps}})
    write_document(
        folder / "training.json",
        {"arguments": arguments, "rows": {"train": rows}, "scores": scores},
    )


def pearson(first: float, second: float) -> Scores:
    return {"validation": {"pearson": first, "spearman": second}}


def accuracy(value: float) -> Scores:
    return {"validation": {"accuracy": value}}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for seed, value in ((1, 79.0), (2, 81.0)):
        add_model(root / f"dense/stsb/seed-{seed}", "stsb", pearson(value, 50), seed=seed)
    for seed, value in ((1, 72.0), (2, 72.0)):
        add_model(root / f"oneshot/stsb/seed-{seed}", "stsb", pearson(value, 40), seed=seed)
    for seed, value in ((1, 80.0), (2, 79.0)):
        add_model(root / f"best/stsb/seed-{seed}", "stsb", pearson(value, 50), seed=seed)
        add_model(
            root / f"best-int8/stsb/seed-{seed}",
            "stsb",
            pearson(value, 50),
            seed=seed,
            evaluated=pearson(value - 1, 49),
        )
    add_model(root / "dense/rte", "rte", accuracy(60))
    add_model(root / "best/rte", "rte", accuracy(57), rows=90)
    mnli = {"validation_mismatched": {"accuracy": 72.0}, "validation_matched": {"accuracy": 70.0}}
    add_model(root / "dense/mnli/seed-1", "mnli", mnli)
    return root


def table_of(runs: Path) -> Table:
    return Table(read_runs(runs)[0])


def cells(markdown: str, row: str) -> list[list[str]]:
    """The cells of all lines that begin with ``row``."""
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {row} |")]
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]


class TestNumbers:
    def test_share_of_dense_kept(self, runs: Path) -> None:
        table = table_of(runs)
        columns = {column.run: column for column in table.columns()}
        # Pearson 72 of 80, Spearman 40 of 50.
        assert table.share("oneshot", columns["stsb"]) == pytest.approx((90 + 80) / 2)
        # Pearson 79.5 of 80, Spearman 50 of 50; RTE 57 of 60.
        best = (100 * 79.5 / 80 + 100) / 2
        assert table.share("best", columns["stsb"]) == pytest.approx(best)
        assert table.mean_share("best") == (pytest.approx((best + 95) / 2), 2)
        assert table.seed_shares("best", columns["stsb"]) == pytest.approx(
            [100, (100 * 79 / 80 + 100) / 2]
        )
        assert table.share("oneshot", columns["rte"]) is None
        assert table.share("dense", columns["stsb"]) == 100

    def test_markdown(self, runs: Path) -> None:
        text = as_markdown(table_of(runs))
        assert text.splitlines()[0] == (
            "|  | MNLI-m/mm, accuracy | STS-B, Pearson/Spearman | RTE, accuracy |"
        )
        # Deviations by hand: of 79 and 81 sqrt(2), of 80 and 79 sqrt(1/2).
        assert (round(math.sqrt(2), 1), round(math.sqrt(0.5), 1)) == (1.4, 0.7)
        (dense,) = cells(text, "dense")
        assert dense == ["70.0 / 72.0 (1)", "80.0 ± 1.4 / 50.0 ± 0.0 (2)", "60.0 (1)"]
        scores, shares = cells(text, "1:2 + distillation")
        assert scores == ["", "79.5 ± 0.7 / 50.0 ± 0.0 (2)", "57.0 (1)"]
        assert shares == ["", "99.7 ~", "95.0", "97.34 (of 2)"]
        assert cells(text, "1:2")[1] == ["", "85.0", "", "85.00 (of 1)"]
        assert "- RTE, 1:2 + distillation: trained on 90 rows, dense on 100: not" in text
        assert "MNLI-m/mm 100, STS-B 100, RTE 100/90" in text

    def test_int8_is_what_was_scored_after_packing(self, runs: Path) -> None:
        (found,) = [
            each
            for each in table_of(runs).results
            if each.row == "best-int8" and each.metric == "pearson"
        ]
        assert found.seeds == (79.0, 78.0)
        assert found.train_rows == 100

    def test_compared_with_dense_of_the_same_seeds(self, runs: Path) -> None:
        before = {row: table_of(runs).mean_share(row) for row in ("oneshot", "best")}
        add_model(runs / "dense/stsb/seed-4", "stsb", pearson(20, 10), seed=4)
        table = table_of(runs)
        assert {row: table.mean_share(row) for row in before} == before
        assert not [each for each in table.warnings() if "STS-B" in each]
        # Beside seeds 1 and 2, while all three tell how far seeds differ: 35 and 23 points.
        assert cells(as_markdown(table), "1:2")[1][1] == "85.0 ~"

    def test_seeds_that_dense_lacks_are_told(self, runs: Path) -> None:
        add_model(runs / "oneshot/stsb/seed-4", "stsb", pearson(60, 40), seed=4)
        table = table_of(runs)
        assert "STS-B, 1:2: seeds 1, 2, 4, but dense has 1, 2." in table.warnings()
        (stsb,) = (column for column in table.columns() if column.run == "stsb")
        assert table.share("oneshot", stsb) == pytest.approx((100 * 68 / 80 + 80) / 2)

    def test_without_dense_there_is_no_share(self) -> None:
        text = as_markdown(Table([result(row="best")]))
        assert "no row dense" in text
        assert "Share of dense kept" not in text

    def test_no_share_of_nothing(self) -> None:
        table = Table([result(seeds=(0.0,)), result(row="best")])
        assert table.share("best", table.columns()[0]) is None

    def test_variants_stand_beside_their_task_and_are_not_averaged(self) -> None:
        table = Table(
            [
                result(task="sst2", seeds=(90.0,)),
                result(task="sst2", run="sst2-full", seeds=(92.0,)),
                result(task="sst2", row="best", seeds=(81.0,)),
                result(task="sst2", run="sst2-full", row="best", seeds=(92.0,)),
            ]
        )
        assert [column.title for column in table.columns()] == ["SST-2", "SST-2 (full)"]
        assert table.mean_share("best") == (pytest.approx(90), 1)
        assert "SST-2 (full) is not counted in the mean" in as_markdown(table)

    def test_rows_and_tasks_of_ones_own(self) -> None:
        table = Table(
            [
                result(row="wanda", task="custom"),
                result(row="best-int8", task="rte"),
                result(row="a", task="rte"),
            ]
        )
        assert table.rows() == ["best-int8", "a", "wanda"]
        assert [column.task for column in table.columns()] == ["rte", "custom"]

    def test_shares_of_ones_own_tasks(self) -> None:
        own = [
            result(task="custom", run=run, row=row, seeds=(seed,))
            for row, seed in (("dense", 80.0), ("best", 76.0))
            for run in ("reviews", "tickets")
        ]
        table = Table(own)
        assert [column.title for column in table.columns()] == ["reviews", "tickets"]
        assert table.mean_share("best") == (pytest.approx(95), 2)
        assert cells(as_markdown(table), "1:2 + distillation")[1] == [
            "95.0",
            "95.0",
            "95.00 (of 2)",
        ]

    def test_a_variant_alone_has_shares_and_no_mean(self) -> None:
        pair = [
            result(task="sst2", run="sst2-full", row=row, seeds=(seed,))
            for row, seed in (("dense", 80.0), ("best", 76.0))
        ]
        table = Table(pair)
        assert table.compared_rows() == ["best"]
        assert table.mean_share("best") is None
        assert cells(as_markdown(table), "1:2 + distillation")[1] == ["95.0", ""]


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "task": "rte",
        "row": "dense",
        "metric": "accuracy",
        "seeds": (60.0,),
        "train_rows": 10,
        "command": "",
        "split": "validation",
        **changes,
    }
    fields = {"run": fields["task"], "seed_numbers": tuple(range(len(fields["seeds"]))), **fields}
    return Result(**fields)


class TestModels:
    def test_each_model_has_its_own_dense(self) -> None:
        small, base = tables(
            [
                result(model="small", seeds=(50.0,)),
                result(model="base", seeds=(80.0,)),
                result(model="small", row="best", seeds=(25.0,)),
                result(model="base", row="best", seeds=(60.0,)),
            ]
        )
        assert [small.model, base.model] == ["small", "base"]
        assert small.mean_share("best") == (50, 1)
        assert base.mean_share("best") == (75, 1)
        with pytest.raises(DataError, match="one table is of one model, not of a and b"):
            Table([result(model="a"), result(model="b", row="best")])

    def test_named_by_the_lineage(self, tmp_path: Path) -> None:
        add_model(tmp_path / "dense/rte", "rte", accuracy(60))
        (found,) = read_runs(tmp_path)[0]
        assert found.model == "dense"  # from org/dense

    def test_written_below_each_other(self, tmp_path: Path, run: Run) -> None:
        rows = [result(model=model, row=row) for model in ("a", "b") for row in ("dense", "best")]
        lines = [row.as_dict() for row in rows]
        write_document(tmp_path / "results.json", lines)
        code, out, _ = run("table", tmp_path / "results.json")
        assert code == 0
        assert [line for line in out.splitlines() if line.startswith("#")] == ["## a", "## b"]
        code, out, _ = run("table", tmp_path / "results.json", "--json")
        assert json.loads(out) == lines
        code, out, _ = run("table", tmp_path / "results.json", "--model", "b", "--json")
        assert json.loads(out) == lines[2:]
        code, _, told = run("table", tmp_path / "results.json", "--model", "c")
        assert (code, told) == (1, "error: there are no results of the model 'c', but of a, b.\n")
        code, _, told = run("table", tmp_path / "results.json", "--format", "card")
        assert code == 1
        assert "a card is of one model, and these are a, b: name one by --model." in told

    def test_drawn_below_each_other(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        found = [
            Table([result(model=model), result(model=model, row="best")]) for model in ("a", "b")
        ]
        panels = shares_figure(found).axes
        assert [panel.get_title(loc="left") for panel in panels] == ["a", "b"]


class TestRuns:
    def test_unscored_models_are_told_and_left_out(self, runs: Path) -> None:
        add_model(runs / "best-int8/stsb/seed-3", "stsb", pearson(1, 1), seed=3, evaluated={})
        (runs / "best-int8/stsb/seed-3/evaluation.json").unlink()
        results, notes = read_runs(runs)
        assert notes == ["best-int8, stsb: seed 3 has no scores yet."]
        assert all(3 not in each.seed_numbers for each in results)

    def test_what_is_no_run_is_passed_by(self, runs: Path) -> None:
        before = read_runs(runs)
        write_document(runs / "models/oneshot/config.json", {"sparsity": {"lineage": []}})
        write_document(runs / "models/hub/config.json", {})
        (runs / "dense/stsb/.seed-3.partial-00").mkdir()
        (runs / "dense/stsb/seed-3.training").mkdir()
        (runs / "notes.txt").write_text("")
        assert read_runs(runs) == before

    def test_commands_come_from_the_lineage(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            folder = tmp_path / f"best-int8/rte/seed-{seed}"
            options = {"learning_rate": 1e-4, "teacher": "seed-1", "dropout": None}
            add_model(folder, "rte", accuracy(1), seed=seed, evaluated=accuracy(60), **options)
        (found,) = read_runs(tmp_path)[0]
        commands = found.command.split(" && ")
        tune = shlex.split(commands[1])
        assert commands[0] == "sparsebert prune org/dense sparse --pattern 1:2"
        assert tune[:4] == ["sparsebert", "finetune", "sparse", "TUNED"]
        assert tune[tune.index("--seeds") + 1] == "1,2"
        assert tune[tune.index("--learning-rate") + 1] == "0.0001"
        assert tune[tune.index("--teacher") + 1] == "TEACHER"
        assert tune[tune.index("--epochs") + 1] == "3.0"  # what is chosen by the model is told
        assert "--batch-size" not in tune  # at its default
        assert "--dropout" not in tune
        assert commands[2] == "sparsebert pack TUNED OUT --dtype int8"
        assert commands[3:] == ["sparsebert evaluate OUT --task rte --data rte"]

    def test_a_step_that_all_seeds_share_has_its_own(self, tmp_path: Path) -> None:
        """Every seed begins from the one model that learnt another task; merged or not."""
        for seed in (1, 2, 3):
            folder = tmp_path / f"{'there' if seed > 2 else 'here'}/best/rte/seed-{seed}"
            add_model(folder, "rte", accuracy(60), seed=seed)
            steps = [
                {"step": "finetune", "from": "dense", "arguments": {"task": "mnli", "seed": 1}},
                {"step": "finetune", "from": "seed-1", "arguments": {"task": "rte", "seed": seed}},
                {"step": "prune", "from": f"seed-{seed}", "arguments": {"pattern": "1:2"}},
                {"step": "finetune", "from": f"seed-{seed}", "arguments": {"seed": seed}},
            ]
            write_document(folder / "config.json", {"sparsity": {"lineage": steps}})
        for places, seeds in ((["here"], "1,2"), (["here", "there"], "1,2,3")):
            (table,), notes = read_tables([tmp_path / place for place in places])
            (found,) = table.ordered()
            assert found.command.split(" && ") == [
                "sparsebert finetune dense TUNED --task mnli --seed 1",
                f"sparsebert finetune TUNED TUNED-2 --task rte --seeds {seeds}",
                "sparsebert prune TUNED-2 PRUNED --pattern 1:2",
                f"sparsebert finetune PRUNED OUT --seeds {seeds}",
            ]
            assert notes == []

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no scores"):
            read_runs(tmp_path)
        with pytest.raises(DataError, match="is not a folder of runs"):
            read_runs(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"rows": 50}, "differ in train_rows"),
            ({"task": "mrpc"}, "differ in task"),
            ({"scores": {"validation": {"f1": 1.0}}}, "different splits or metrics"),
            ({"seed": 1}, "holds a seed twice"),
            ({"scores": {"validation": {"accuracy": "high"}}}, "'high', not a score"),
            ({"scores": {"validation": {"accuracy": 1e9}}}, "not a score"),
            ({"scores": {"validation": 3}}, "is damaged"),
        ],
    )
    def test_seeds_that_do_not_belong_together(
        self, tmp_path: Path, change: dict[str, Any], told: str
    ) -> None:
        add_model(tmp_path / "dense/rte/seed-1", "rte", accuracy(60))
        fields = {"task": "rte", "scores": accuracy(61), "seed": 2, **change}
        add_model(tmp_path / "dense/rte/seed-2", fields.pop("task"), fields.pop("scores"), **fields)
        with pytest.raises(DataError, match=told):
            read_runs(tmp_path)

    @pytest.mark.parametrize(
        "content", ["{", "[]", "{}", '{"arguments": 3, "scores": {"a": 1}}', "\0"]
    )
    def test_damaged_files(self, runs: Path, content: str) -> None:
        (runs / "dense/rte/training.json").write_text(content)
        if content == "{}":  # as good as unscored
            assert not [
                each for each in table_of(runs).results if each.run == "rte" and each.row == "dense"
            ]
            return
        with pytest.raises(DataError, match=r"training\.json"):
            read_runs(runs)

    @pytest.mark.parametrize("lineage", [3, ["prune"], [{"step": "prune", "arguments": "a"}]])
    def test_a_damaged_lineage(self, runs: Path, lineage: Any) -> None:
        config = {"sparsity": {"lineage": lineage}}
        write_document(runs / "best-int8/stsb/seed-1/config.json", config)
        with pytest.raises(DataError, match=r"seed-1: its config\.json.* is damaged"):
            read_runs(runs)


LINE = {
    "task": "mnli",
    "row": "dense",
    "metric": "accuracy",
    "seeds": [70, 71.5],
    "train_rows": 10,
    "command": "c",
}


class TestResultsFile:
    def test_the_least_that_a_line_may_say(self, tmp_path: Path) -> None:
        write_document(tmp_path / "r.json", [{**LINE, "machine": "an extra key"}])
        (found,) = read_results(tmp_path / "r.json")
        assert found.seeds == (70.0, 71.5)
        assert (found.split, found.run) == ("validation_matched", "mnli")
        assert found.seed_numbers == (1, 2)

    def test_back_and_forth(self, runs: Path, tmp_path: Path) -> None:
        write(runs, format="json", out=tmp_path / "results.json")
        write(tmp_path / "results.json", format="json", out=tmp_path / "again.json")
        text = (tmp_path / "results.json").read_text()
        assert text == (tmp_path / "again.json").read_text()
        for line in json.loads(text):
            assert {"task", "row", "metric", "seeds", "train_rows", "command"} <= set(line)
        for format in ("markdown", "card"):
            write(runs, format=format, out=tmp_path / "one")
            write(tmp_path / "results.json", format=format, out=tmp_path / "two")
            assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"task": 3}, "'task' must be text"),
            ({"row": ""}, "'row' must be text"),
            ({"seeds": []}, "'seeds' is empty"),
            ({"seeds": 3}, "'seeds' must be a list"),
            ({"seeds": [True]}, "True is not a score"),
            ({"seeds": [101]}, "101 is not a score"),
            ({"seeds": [None]}, "None is not a score"),
            ({"train_rows": 1.5}, "'train_rows' must be a whole number"),
            ({"seed_numbers": [1]}, "'seed_numbers' must name each"),
            ({"seed_numbers": [1, 1]}, "'seed_numbers' must name each"),
            ({"seed_numbers": ["1", "2"]}, "list of whole numbers"),
            ({"command": None}, "'command' must be text"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path: Path, change: dict[str, Any], told: str) -> None:
        write_document(tmp_path / "r.json", [LINE, {**LINE, **change}])
        with pytest.raises(DataError, match=f"result 2.*{told}"):
            read_results(tmp_path / "r.json")

    @pytest.mark.parametrize("content", ["{}", "3", "[3]", "[", "[[]]"])
    def test_what_is_no_list_of_results(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(DataError, match=r"r\.json"):
            read_results(tmp_path / "r.json")

    def test_a_result_that_appears_twice(self) -> None:
        with pytest.raises(DataError, match="appears twice"):
            Table([result(), result()])


class TestMerging:
    """Seeds that were run at different places."""

    def test_seeds_count_together(self, tmp_path: Path) -> None:
        for seed, value in ((1, 60.0), (3, 66.0)):
            add_model(tmp_path / f"here/dense/rte/seed-{seed}", "rte", accuracy(value), seed=seed)
        add_model(tmp_path / "there/dense/rte/seed-2", "rte", accuracy(63), seed=2)
        add_model(tmp_path / "there/best/rte/seed-2", "rte", accuracy(62), seed=2)
        (table,), notes = read_tables([tmp_path / "here", tmp_path / "there"])
        dense, best = table.ordered()
        assert (dense.seed_numbers, dense.seeds) == ((1, 2, 3), (60, 63, 66))
        assert (best.seed_numbers, best.seeds) == ((2,), (62,))
        assert "--seeds 1,2,3" in dense.command
        assert "--seed 2" in best.command
        assert notes == []

    def test_of_one_seed_given_twice_the_last_counts(self, tmp_path: Path) -> None:
        for place, value in (("old", 60.0), ("new", 61.0)):
            add_model(tmp_path / f"{place}/dense/rte/seed-1", "rte", accuracy(value))
            add_model(tmp_path / f"{place}/dense/stsb/seed-1", "stsb", pearson(value, 50))
        write(tmp_path / "old", format="json", out=tmp_path / "old.json")
        (table,), _ = read_tables([tmp_path / "old.json", tmp_path / "new"])
        assert [each.seeds for each in table.ordered()] == [(61.0,), (50.0,), (61.0,)]
        assert "--seed 1" in table.ordered()[0].command

    def test_a_result_that_was_made_anew_says_how(self, tmp_path: Path) -> None:
        """Trained again otherwise, no seed of the first is left, and nothing is said of it."""
        add_model(tmp_path / "old/dense/rte/seed-1", "rte", accuracy(60), rows=90, dropout=0.1)
        for seed in (1, 2):
            place = tmp_path / f"new/dense/rte/seed-{seed}"
            add_model(place, "rte", accuracy(61), seed=seed, dropout=0.2)
        (table,), notes = read_tables([tmp_path / "old", tmp_path / "new"])
        (dense,) = table.ordered()
        assert (dense.seeds, notes) == ((61, 61), [])
        assert "--dropout 0.2" in dense.command

    def test_what_does_not_belong_together(self, tmp_path: Path) -> None:
        add_model(tmp_path / "a/dense/rte/seed-1", "rte", accuracy(60), rows=100)
        add_model(tmp_path / "b/dense/rte/seed-2", "rte", accuracy(60), rows=90, seed=2)
        add_model(tmp_path / "c/dense/rte/seed-3", "rte", accuracy(60), seed=3, dropout=0.2)
        with pytest.raises(DataError, match="dense, rte: seeds 1 were trained on 100 rows"):
            read_tables([tmp_path / "a", tmp_path / "b"])
        (table,), (note,) = read_tables([tmp_path / "a", tmp_path / "c"])
        assert "dense, rte: seeds 1 and seeds 3 were made by different commands" in note
        assert table.ordered()[0].seed_numbers == (1, 3)

    def test_a_place_that_names_a_result_twice(self, tmp_path: Path) -> None:
        write_document(tmp_path / "r.json", [LINE, LINE])
        with pytest.raises(DataError, match="appears twice"):
            read_tables([tmp_path / "r.json", tmp_path / "r.json"])

    def test_collecting_keeps_what_was_collected(self, tmp_path: Path) -> None:
        """The script behind docs/results.json, on two machines one after the other."""
        script = RUNS / "collect.sh"
        for seed in (1, 2):
            runs = tmp_path / f"machine-{seed}"
            for row in ("dense", "best"):
                add_model(runs / f"{row}/rte/seed-{seed}", "rte", accuracy(60), seed=seed)
            (tmp_path / "docs").mkdir(exist_ok=True)
            subprocess.run(
                ["bash", str(script), str(runs), str(tmp_path / "docs")],
                env={**os.environ, "SPARSEBERT": f"{sys.executable} -m sparsebert"},
                check=True,
            )
        found = read_results(tmp_path / "docs/results.json")
        assert [each.seed_numbers for each in found] == [(1, 2), (1, 2)]
        assert "60.0 ± 0.0 (2)" in (tmp_path / "docs/accuracy.md").read_text()
        assert (tmp_path / "docs/accuracy.svg").is_file()


class TestCard:
    def test_the_hub_reads_the_scores_of_one_row(self, runs: Path) -> None:
        card = ModelCard(as_card(table_of(runs)), ignore_metadata_errors=False)
        assert card.data.model_name == "1:2 int8"
        found = {each.metric_type: each for each in card.data.eval_results or []}
        assert set(found) == {"pearsonr", "spearmanr"}
        assert found["pearsonr"].metric_value == 78.5
        assert found["pearsonr"].dataset_type == "nyu-mll/glue"
        assert found["pearsonr"].metric_name == "Pearson, percent, mean of 2 seeds, deviation 0.71"
        assert "| 1:2 int8 | " in card.content

    def test_both_halves_of_mnli(self, runs: Path) -> None:
        card = ModelCard(as_card(table_of(runs), "dense"), ignore_metadata_errors=False)
        found = [
            (each.dataset_split, each.metric_value)
            for each in card.data.eval_results or []
            if each.dataset_config == "mnli"
        ]
        assert found == [("validation_matched", 70.0), ("validation_mismatched", 72.0)]

    def test_questions(self) -> None:
        table = Table([result(task="squad", metric="exact_match", seeds=(60.0,))])
        (found,) = ModelCard(as_card(table)).data.eval_results
        assert (found.task_type, found.dataset_type) == ("question-answering", "rajpurkar/squad")
        assert found.metric_name == "exact match, percent, mean of 1 seed"

    def test_ones_own_data_has_no_name_on_the_hub(self) -> None:
        card = ModelCard(as_card(Table([result(task="custom")])))
        assert card.data.eval_results is None

    def test_a_row_that_is_not_there(self, runs: Path) -> None:
        with pytest.raises(DataError, match="no row 'wanda': the rows are dense, oneshot"):
            as_card(table_of(runs), "wanda")


class TestPlot:
    def test_a_dot_for_each_seed(self, runs: Path) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import as_svg, shares_figure

        figure = shares_figure([table_of(runs)])
        (axes,) = figure.axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["STS-B", "RTE"]
        dots = sorted(
            x for each in axes.collections for x, _ in each.get_offsets() if _is_dots(each)
        )
        best = [100, (100 * 79 / 80 + 100) / 2]
        packed = [(100 * 79 / 80 + 98) / 2, (100 * 78 / 80 + 98) / 2]
        dense = [(100 * 79 / 80 + 100) / 2, (100 * 81 / 80 + 100) / 2]
        assert dots == pytest.approx(sorted([*best, *packed, *dense, 85, 85, 100, 95]))
        svg = as_svg([table_of(runs)])
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert svg == as_svg([table_of(runs)])

    def test_the_legend_of_all_rows_is_within_the_picture(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        rows = ("dense", "oneshot", "best", "best-int8")
        figure = shares_figure([Table([result(row=row) for row in rows])])
        figure.canvas.draw()
        (legend,) = figure.legends
        (left, _), (right, _) = legend.get_window_extent().get_points()
        assert len(legend.get_texts()) == 4
        assert 0 <= left < right <= figure.bbox.width

    def test_each_pattern_has_a_colour_that_its_int8_row_shares(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        patterns = ["best", "shared64", "shared", "2of4", "1of4"]
        rows = ["dense", "oneshot", *(f"{row}{end}" for row in patterns for end in ("", "-int8"))]
        (legend,) = shares_figure([Table([result(row=row) for row in rows])]).legends
        entries = dict(zip(rows, legend.legend_handles, strict=True))
        colours = {row: entry.get_color() for row, entry in entries.items()}
        assert len(set(colours.values())) == 2 + len(patterns)
        for row in patterns:
            assert colours[row] == colours[f"{row}-int8"]
            assert entries[f"{row}-int8"].get_markerfacecolor() == "white"

    def test_ones_own_task(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        own = [result(task="custom", run="reviews", row=row) for row in ("dense", "best")]
        (axes,) = shares_figure([Table(own)]).axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["reviews"]

    def test_nothing_to_plot(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import as_svg

        with pytest.raises(DataError, match="nothing to plot"):
            as_svg([Table([result(), result(row="best", task="mrpc")])])


def _is_dots(drawn: Any) -> bool:
    from matplotlib.collections import PathCollection

    return isinstance(drawn, PathCollection)


class TestCommand:
    def test_markdown_and_notes(self, runs: Path, run: Run) -> None:
        add_model(runs / "dense/stsb/seed-3", "stsb", {}, seed=3)
        code, told, notes = run("table", runs)
        assert code == 0
        assert told.startswith("|  | MNLI-m/mm, accuracy | ")
        assert notes == "note: dense, stsb: seed 3 has no scores yet.\n"

    def test_json_is_the_list(self, runs: Path, run: Run, tmp_path: Path) -> None:
        code, told, _ = run("table", runs, "--json", "--out", tmp_path / "results.json")
        assert (code, told) == (0, "")
        found = json.loads((tmp_path / "results.json").read_text())
        assert found[0]["task"] == "mnli"
        code, told, _ = run("table", tmp_path / "results.json", "--json")
        assert json.loads(told) == found

    def test_some_rows_alone(self, runs: Path, run: Run) -> None:
        code, told, _ = run("table", runs, "--rows", "best-int8,oneshot")
        assert code == 0
        rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")]
        assert [row for row in rows if row not in ("", "---")] == [
            *("dense", "1:2", "1:2 int8"),
            *("1:2", "1:2 int8"),
        ]
        code, _, told = run("table", runs, "--rows", "best,wanda")
        assert code == 1
        assert "there is no row 'wanda': the rows are best, best-int8, dense, oneshot." in told

    def test_wrong_use(self, runs: Path, run: Run, tmp_path: Path) -> None:
        assert run("table", runs, "--format", "html")[0] == 2
        assert run("table", runs, "--row", "best")[0] == 2
        code, _, told = run("table", tmp_path / "absent")
        assert code == 1
        assert told.startswith("error: ")

    def test_a_file_that_cannot_be_written(self, runs: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="could not be written"):
            write(runs, out=tmp_path / "no/such/folder/table.md")
