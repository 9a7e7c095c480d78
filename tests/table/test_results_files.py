"""Results as they are read: of folders of runs, of results.json, and put together."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import RUNS
from sparsebert.errors import DataError
from sparsebert.table import Table, read_results, read_runs
from sparsebert.table.commands import command
from sparsebert.table.formats import read_tables, write
from table_runs import accuracy, add_model, pearson, result, table_of, write_document


class TestRuns:
    def test_unscored_models_are_told_and_left_out(self, runs: Path) -> None:
        add_model(runs / "best-int8/stsb/seed-3", "stsb", pearson(1, 1), seed=3, evaluated={})
        (runs / "best-int8/stsb/seed-3/evaluation.json").unlink()
        results, notes = read_runs(runs)
        assert notes == ["best-int8, stsb: no scores yet for seed 3."]
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

    def test_options_that_are_no_longer_there_are_left_out(self) -> None:
        arguments = {"epochs": 2, "last_layer_weight": 1.0, "similarity_weight": 0.0}
        steps = [{"step": "distill", "from": "dense", "arguments": arguments}]
        assert command([steps]) == "sparsebert distill dense OUT --epochs 2"

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
            ({"seed": 1}, "has duplicate seeds"),
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
            ({"train_rows": 1.5}, "'train_rows' must be a non-negative integer"),
            ({"seed_numbers": [1]}, "'seed_numbers' must have one distinct seed for each"),
            ({"seed_numbers": [1, 1]}, "'seed_numbers' must have one distinct seed for each"),
            ({"seed_numbers": ["1", "2"]}, "list of non-negative integers"),
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
