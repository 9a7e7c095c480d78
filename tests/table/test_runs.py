"""The experiments in runs/: what they would run, what they skip, and the search for settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from checkout import RUNS, load_script
from sparsebert.cli import app as command_line
from tiny_models import TinyBert
from tiny_tasks import letters, write_classification, write_regression, write_rows

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts need bash")


def run_script(
    name: str, *arguments: object, expect: int = 0, **environment: str
) -> tuple[list[str], str]:
    """Lines of standard output, and standard error."""
    done = subprocess.run(
        ["bash", str(RUNS / name), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout.splitlines(), done.stderr


def minilm(out: Path, *, expect: int = 0, **environment: str) -> list[str]:
    """The commands of runs/minilm.sh, with folder names shortened."""
    lines, _ = run_script(
        "minilm.sh", "MODEL", "DATA", out, "--dry-run", expect=expect, **environment
    )
    return [line.replace(str(out), "R").replace(f"{RUNS}/recipes/", "") for line in lines]


def base(out: Path, **environment: str) -> list[str]:
    """The commands of runs/base.sh, with folder names shortened."""
    lines, _ = run_script("base.sh", "MODEL", "DATA", out, "--dry-run", **environment)
    return [line.replace(str(out), "R").replace(f"{RUNS}/recipes/", "") for line in lines]


class TestMinilm:
    def test_one_task_and_seed(self, tmp_path: Path) -> None:
        lines = minilm(tmp_path, TASKS="qqp", SEEDS="2", CORPUS="a b")
        tune = "--task qqp --data DATA/qqp --recipe"
        rest = "--seed 2 --max-rows 10000 --epochs 3"
        assert lines == [
            "sparsebert prune MODEL R/models/embedding --method second-order --calibration "
            "DATA/stsb --corpus a --corpus b --pairs 0.3 --max-rows 250000 --embeddings frozen "
            "--resume",
            "sparsebert pack R/models/embedding R/models/embedding-int8 --dtype int8",
            "sparsebert evaluate R/models/embedding-int8 --task stsb --data DATA/stsb --zero-shot",
            f"sparsebert finetune MODEL R/dense/qqp/seed-2 {tune} dense.yaml {rest} --resume",
            "sparsebert prune MODEL R/models/oneshot",
            f"sparsebert finetune R/models/oneshot R/oneshot/qqp/seed-2 {tune} oneshot.yaml {rest} "
            "--resume",
            "sparsebert prune R/dense/qqp/seed-2 R/models/best/qqp/seed-2 --method second-order "
            "--calibration DATA/qqp --calibration-rows 1024 --task qqp",
            f"sparsebert finetune R/models/best/qqp/seed-2 R/best/qqp/seed-2 {tune} best.yaml "
            f"{rest} --teacher R/dense/qqp/seed-2 --resume",
            "sparsebert pack R/best/qqp/seed-2 R/best-int8/qqp/seed-2 --dtype int8",
            "sparsebert evaluate R/best-int8/qqp/seed-2 --task qqp --data DATA/qqp --save",
            "sparsebert prune R/dense/qqp/seed-2 R/models/shared/qqp/seed-2 --method second-order "
            "--calibration DATA/qqp --calibration-rows 1024 --task qqp --shared-rows 128",
            f"sparsebert finetune R/models/shared/qqp/seed-2 R/shared/qqp/seed-2 {tune} "
            f"shared.yaml {rest} --teacher R/dense/qqp/seed-2 --resume",
            "sparsebert pack R/shared/qqp/seed-2 R/shared-int8/qqp/seed-2 --dtype int8",
            "sparsebert evaluate R/shared-int8/qqp/seed-2 --task qqp --data DATA/qqp --save",
            "sparsebert table R --json --out R/results.json",
            "sparsebert table R",
        ]

    def test_other_patterns(self, tmp_path: Path) -> None:
        lines = minilm(tmp_path, TASKS="mrpc", SEEDS="1", ROWS="dense 1of4 1of4-int8")
        given = "--task mrpc --data DATA/mrpc"
        assert lines[1:5] == [
            "sparsebert prune R/dense/mrpc/seed-1 R/models/1of4/mrpc/seed-1 --method second-order "
            "--calibration DATA/mrpc --calibration-rows 1024 --task mrpc --pattern 1:4",
            f"sparsebert finetune R/models/1of4/mrpc/seed-1 R/1of4/mrpc/seed-1 {given} --recipe "
            "best.yaml --seed 1 --teacher R/dense/mrpc/seed-1 --resume",
            "sparsebert pack R/1of4/mrpc/seed-1 R/1of4-int8/mrpc/seed-1 --dtype int8",
            f"sparsebert evaluate R/1of4-int8/mrpc/seed-1 {given} --save",
        ]

    def test_seeds_and_rows_of_each_task(self, tmp_path: Path) -> None:
        lines = [line.split() for line in minilm(tmp_path, ROWS="dense")]
        tunings = [line for line in lines if line[1] == "finetune"]
        outs = [line[3] for line in tunings]
        seeds = {
            run: sum(out.startswith(f"R/dense/{run}/") for out in outs)
            for run in ("rte", "mrpc", "stsb", "sst2", "qnli", "qqp", "mnli", "squad", "sst2-full")
        }
        assert list(seeds.values()) == [5, 5, 5, 5, 3, 3, 3, 3, 1]
        assert len(outs) == sum(seeds.values())
        assert [int(out[-1]) for out in outs] == sorted(int(out[-1]) for out in outs)
        part = {line[3].split("/")[2] for line in tunings if "--max-rows" in line}
        assert part == {"sst2", "qnli", "qqp", "mnli", "squad"}
        (whole,) = [line for line in tunings if line[3] == "R/dense/sst2-full/seed-1"]
        assert whole[whole.index("--data") + 1] == "DATA/sst2"
        assert whole[whole.index("--task") + 1] == "sst2"

    def test_rte_begins_from_the_mnli_model(self, tmp_path: Path) -> None:
        asked = {"TASKS": "rte", "SEEDS": "2 3", "ROWS": "dense oneshot"}
        lines = [line.split()[1:4] for line in minilm(tmp_path, **asked)]
        assert lines[:-2] == [
            ["finetune", "MODEL", "R/dense/mnli/seed-1"],
            ["finetune", "R/dense/mnli/seed-1", "R/dense/rte/seed-2"],
            ["prune", "R/dense/mnli/seed-1", "R/models/oneshot-rte"],
            ["finetune", "R/models/oneshot-rte", "R/oneshot/rte/seed-2"],
            ["finetune", "R/dense/mnli/seed-1", "R/dense/rte/seed-3"],
            ["finetune", "R/models/oneshot-rte", "R/oneshot/rte/seed-3"],
        ]
        for run in ("dense/rte/seed-2", "dense/rte/seed-3"):
            (tmp_path / run).mkdir(parents=True)
            (tmp_path / run / "training.json").touch()
        lines = [line.split()[1:4] for line in minilm(tmp_path, **{**asked, "ROWS": "dense"})]
        assert len(lines) == 2  # the tables

    def test_what_is_done_is_not_done_again(self, tmp_path: Path) -> None:
        for name in (
            "models/oneshot/config.json",
            "models/embedding/config.json",
            "models/embedding-int8/config.json",
            "dense/mrpc/seed-1/training.json",
            "best/mrpc/seed-1/training.json",
            "best-int8/mrpc/seed-1/config.json",
        ):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
        (tmp_path / "oneshot/mrpc/seed-1.training").mkdir(parents=True)  # begun, and to be resumed
        lines = minilm(tmp_path, TASKS="mrpc", SEEDS="1", ROWS="dense oneshot best best-int8")
        assert [line.split()[1:4] for line in lines[:-2]] == [
            ["finetune", "R/models/oneshot", "R/oneshot/mrpc/seed-1"],
            ["evaluate", "R/best-int8/mrpc/seed-1", "--task"],
        ]

    def test_what_another_machine_scored_is_not_run(self, tmp_path: Path) -> None:
        def made(*scored: str) -> list[str]:
            results = [
                {"model": model, "row": row, "task": "mrpc", "seeds": [60]}
                for model, row in [*(("MODEL", row) for row in scored), ("another", "dense")]
            ]
            (tmp_path / "results.json").write_text(json.dumps(results))
            lines = minilm(
                tmp_path / "runs",
                TASKS="mrpc",
                SEEDS="1",
                ROWS="dense oneshot best best-int8",
                SCORED=str(tmp_path / "results.json"),
            )
            outs = [line.split()[3] for line in lines if line.split()[1] in ("finetune", "pack")]
            return [out.split("/")[1] for out in outs]

        assert made() == ["dense", "oneshot", "best", "best-int8"]
        assert made("dense", "oneshot", "best", "best-int8") == []
        assert made("dense", "best", "best-int8") == ["oneshot"]
        # What is left is made from models that the other machine has not handed on.
        assert made("dense", "oneshot", "best") == ["dense", "best", "best-int8"]
        assert made("dense", "oneshot", "best-int8") == ["dense", "best"]

    def test_a_tasks_own_recipe_wins(self, tmp_path: Path) -> None:
        (tmp_path / "recipes").mkdir()
        (tmp_path / "recipes/dense-stsb.yaml").touch()
        lines = minilm(
            tmp_path / "runs",
            TASKS="stsb mrpc",
            SEEDS="1",
            ROWS="dense",
            RECIPES=str(tmp_path / "recipes"),
        )
        assert f"--recipe {tmp_path}/recipes/dense-stsb.yaml" in lines[0]
        assert f"--recipe {tmp_path}/recipes/dense.yaml" in lines[1]

    def test_failures_are_told_and_hold_up_only_what_needs_them(self, tmp_path: Path) -> None:
        program = tmp_path / "sparsebert"
        program.write_text(
            '#!/usr/bin/env bash\necho "$1 $3" >> "$LOG"\n'
            'case "$1 $3" in *oneshot/rte*) exit 1 ;; "finetune "*) mkdir -p "$3";'
            ' touch "$3/training.json" "$3/model.safetensors" ;; esac\n'
        )
        program.chmod(0o755)
        _, told = run_script(
            "minilm.sh",
            *("M", "D", tmp_path / "runs"),
            expect=1,
            SPARSEBERT=str(program),
            LOG=str(tmp_path / "log"),
            TASKS="rte mrpc",
            SEEDS="1",
            ROWS="oneshot",
        )
        assert told.rstrip().splitlines()[-2] == "1 steps failed:"
        assert (tmp_path / "runs/oneshot/mrpc/seed-1/training.json").is_file()
        # Scored, and not needed any more.
        assert not (tmp_path / "runs/oneshot/mrpc/seed-1/model.safetensors").exists()

    @pytest.mark.parametrize("arguments", [(), ("M", "D"), ("M", "D", "R", "--dry"), (*"MDRX4",)])
    def test_wrong_use(self, arguments: tuple[str, ...]) -> None:
        _, told = run_script("minilm.sh", *arguments, expect=2)
        assert told.startswith("usage: ")

    def test_a_row_that_there_is_not(self, tmp_path: Path) -> None:
        arguments = ("minilm.sh", "MODEL", "DATA", tmp_path, "--dry-run")
        _, told = run_script(*arguments, expect=2, ROWS="dense bset-int8")
        assert told == "error: ROWS names no row: bset-int8\n"

    def test_whatever_the_order_of_the_rows(self, tmp_path: Path) -> None:
        """What a row is made from comes before it."""
        chosen = {"TASKS": "mrpc", "SEEDS": "1"}
        wanted = minilm(tmp_path, ROWS="dense best best-int8 1of4 1of4-int8", **chosen)
        found = minilm(tmp_path, ROWS="best-int8 1of4-int8 1of4 dense best", **chosen)
        assert found == wanted


class TestBase:
    def test_one_task_and_seed(self, tmp_path: Path) -> None:
        lines = base(tmp_path, TASKS="mrpc", SEEDS="1", ROWS="dense shared shared-int8")
        tune = "--task mrpc --data DATA/mrpc --recipe"
        assert lines == [
            f"sparsebert finetune MODEL R/dense/mrpc/seed-1 {tune} base-dense.yaml --seed 1 "
            "--resume",
            "sparsebert prune R/dense/mrpc/seed-1 R/models/shared/mrpc/seed-1 --method "
            "second-order --calibration DATA/mrpc --calibration-rows 1024 --task mrpc "
            "--shared-rows 128",
            f"sparsebert finetune R/models/shared/mrpc/seed-1 R/shared/mrpc/seed-1 {tune} "
            "base-shared.yaml --seed 1 --teacher R/dense/mrpc/seed-1 --resume",
            "sparsebert pack R/shared/mrpc/seed-1 R/shared-int8/mrpc/seed-1 --dtype int8",
            "sparsebert evaluate R/shared-int8/mrpc/seed-1 --task mrpc --data DATA/mrpc --save",
            "sparsebert table R --json --out R/results.json",
            "sparsebert table R",
        ]

    def test_all_tasks_have_a_seed_before_the_small_ones_have_three(self, tmp_path: Path) -> None:
        lines = [line.split() for line in base(tmp_path, ROWS="dense")]
        outs = [line[3].split("/")[2:] for line in lines if line[1] == "finetune"]
        assert [int(seed[-1]) for _, seed in outs] == [1] * 8 + [2] * 4 + [3] * 4
        assert {task for task, seed in outs if seed == "seed-3"} == {"stsb", "mrpc", "rte", "sst2"}

    def test_what_another_machine_scored_is_not_run(self, tmp_path: Path) -> None:
        def made(*scored: str) -> list[str]:
            results = [
                {"model": model, "row": row, "task": "mrpc", "seeds": [60]}
                for model, row in [*(("MODEL", row) for row in scored), ("another", "dense")]
            ]
            (tmp_path / "results.json").write_text(json.dumps(results))
            named = str(tmp_path / "results.json")
            lines = base(tmp_path / "runs", TASKS="mrpc", SEEDS="1", SCORED=named)
            outs = [line.split()[3] for line in lines if line.split()[1] in ("finetune", "pack")]
            return [out.split("/")[1] for out in outs]

        assert made() == ["dense", "best", "best-int8", "shared", "shared-int8"]
        assert made("dense", "best", "best-int8") == ["dense", "shared", "shared-int8"]
        assert made("dense", "best", "shared") == [
            *("dense", "best", "best-int8", "shared", "shared-int8")
        ]


def test_bert_base(tmp_path: Path) -> None:
    lines, _ = run_script(
        "bert-base-glue-squad.sh", tmp_path, "--dry-run", CORPUS="wiki", TASKS="mnli squad"
    )
    verbs = [line.split()[1] for line in lines]
    assert verbs == [
        *["prune"] * 2,
        *["finetune", "finetune", "finetune", "pack", "evaluate"] * 2,
        *["table"] * 4,
    ]
    assert f"--teacher {tmp_path}/dense/squad" in lines[9]
    assert "--seeds 5" in lines[9]
    _, told = run_script("bert-base-glue-squad.sh", tmp_path, "--dry-run", expect=1, CORPUS="")
    assert "name unlabelled texts" in told


def test_collect(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    line = {"task": "rte", "metric": "accuracy", "train_rows": 1, "command": ""}
    results = tmp_path / "found.json"
    results.write_text(
        json.dumps([{**line, "row": row, "seeds": [60, 61]} for row in ("dense", "best")])
    )
    program = f"{sys.executable} -m sparsebert"
    run_script("collect.sh", results, tmp_path, SPARSEBERT=program)
    found = json.loads((tmp_path / "results.json").read_text())
    assert [each["row"] for each in found] == ["dense", "best"]
    assert "| 1:2 + distillation | 100.0 ~ |" in (tmp_path / "accuracy.md").read_text()
    assert "<svg" in (tmp_path / "accuracy.svg").read_text()
    run_script("collect.sh", expect=2)


def test_the_commands_know_these_options(tmp_path: Path) -> None:
    """Every command of the scripts names only options that the command line has."""
    lines = minilm(tmp_path, TASKS="rte sst2", SEEDS="1")
    lines += base(tmp_path, TASKS="rte", SEEDS="1")
    lines += run_script("bert-base-glue-squad.sh", tmp_path, "--dry-run", CORPUS="wiki")[0]
    verbs = command_line.typer.main.get_command(command_line.app).commands
    for line in lines:
        _, verb, *words = line.split()
        known = {name for option in verbs[verb].params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize(
    "path", sorted((RUNS / "recipes").glob("*.yaml")), ids=lambda path: path.name
)
def test_recipes_are_whole(path: Path) -> None:
    from sparsebert.training.recipe import read_recipe

    assert read_recipe(path)["learning_rate"] > 0
    assert yaml.safe_load(path.read_text())["version"] == 1


@pytest.fixture(scope="module")
def search() -> ModuleType:
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    return load_script(RUNS / "search.py")


class TestSearch:
    def call(self, search: ModuleType, *arguments: object) -> int:
        code: int = search.main([str(argument) for argument in arguments])
        return code

    def test_the_grid(self, search: ModuleType) -> None:
        axes = [search.one_axis(text) for text in ("learning_rate=3e-5,1e-4", "epochs=2,3")]
        assert search.points(axes) == [
            {"learning_rate": rate, "epochs": epochs} for rate in (3e-5, 1e-4) for epochs in (2, 3)
        ]

    @pytest.mark.parametrize("text", ["epochs", "epochs=", "=3", "a-b=3", "epochs=1,,2"])
    def test_no_grid(self, search: ModuleType, text: str, capsys: Any) -> None:
        with pytest.raises(SystemExit):
            search.parse(["M", "D", "O", "--task", "rte", "--row", "dense", "--grid", text])
        assert "is not OPTION=VALUE" in capsys.readouterr().err

    def test_scores_held_out_rows_and_goes_on(
        self, search: ModuleType, tiny_bert: TinyBert, tmp_path: Path, capsys: Any
    ) -> None:
        data = write_regression(tmp_path / "data", train=40)
        (data / "validation.jsonl").write_text("never read")
        out = tmp_path / "out"
        asked = (tiny_bert("encoder"), data, out, "--task", "stsb", "--row", "dense")
        assert self.call(search, *asked, "--grid", "learning_rate=1e-3") == 0
        first = out / "stsb/dense/points/learning_rate=0.001/seed-1/training.json"
        before = first.stat().st_mtime_ns
        record = json.loads(first.read_text())
        assert record["rows"] == {"train": 32, "validation": 8}

        assert self.call(search, *asked, "--grid", "learning_rate=1e-3,1e-30") == 0
        assert first.stat().st_mtime_ns == before
        found = json.loads((out / "stsb/dense/search.json").read_text())
        assert {each["point"] for each in found["tried"]} == {
            "learning_rate=0.001",
            "learning_rate=1e-30",
        }
        means = [each["mean"] for each in found["tried"]]
        assert means == sorted(means, reverse=True)
        best = found["tried"][0]
        assert best["mean"] == pytest.approx(sum(best["scores"][0]["validation"].values()) / 2)
        assert (out / "stsb/dense/best").resolve().parent.name == best["point"]
        assert len(list(out.rglob("model.safetensors"))) == 1
        assert f"| {best['point']} | " in capsys.readouterr().out

        # Scores of another model, of other rows or settings do not stand beside these.
        other = write_regression(tmp_path / "other", train=40)
        for changed, told in (
            ((tmp_path / "model", *asked[1:]), "model was"),
            ((asked[0], other, *asked[2:]), "data was"),
            ((asked[0], other, *asked[2:-1], "best"), "data was"),
            ((*asked, "--max-rows", 30), "max_rows was None and is now 30"),
        ):
            assert self.call(search, *changed, "--grid", "learning_rate=1e-3") == 1
            assert told in capsys.readouterr().err
        # A point that diverged with one of its seeds is not ranked by the others.
        (first.parents[1] / "seed-2.failed").write_text("the loss is nan")
        assert self.call(search, *asked, "--grid", "learning_rate=1e-30") == 0
        found = json.loads((out / "stsb/dense/search.json").read_text())
        assert [each["point"] for each in found["tried"]] == ["learning_rate=1e-30"]

    def test_points_that_diverge_are_left_out(
        self, search: ModuleType, tiny_bert: TinyBert, tmp_path: Path, capsys: Any
    ) -> None:
        data = write_classification(tmp_path / "data", train=40)
        asked = (tiny_bert("encoder"), data, tmp_path / "out", "--task", "custom", "--row", "x")
        grid = ("--grid", "learning_rate=1e30", "--grid", "epochs=4", "--grid", "optimizer=sgd")
        assert self.call(search, *asked, *grid) == 1
        assert "every point of the grid diverged" in capsys.readouterr().err

    def test_mistakes_are_told_in_a_line(
        self, search: ModuleType, tiny_bert: TinyBert, tmp_path: Path, capsys: Any
    ) -> None:
        data = write_classification(tmp_path / "data", train=10)
        asked = (tiny_bert("encoder"), data, tmp_path / "out", "--task", "custom", "--row", "x")
        assert self.call(search, *asked, "--grid", "epoch=3") == 1
        assert "error: 'epoch' is not an option of fine-tuning" in capsys.readouterr().err


class TestLayers:
    @pytest.fixture
    def layers(self) -> ModuleType:
        pytest.importorskip("torch")
        pytest.importorskip("pyarrow")
        return load_script(RUNS / "layers.py")

    @pytest.mark.parametrize(
        ("model_type", "changed"),
        [
            ("bert", "bert.encoder.layer.1.attention.self.value.weight"),
            ("distilbert", "distilbert.transformer.layer.1.attention.v_lin.weight"),
        ],
    )
    def test_the_layer_that_differs_is_found(
        self,
        layers: ModuleType,
        tiny_bert: TinyBert,
        tmp_path: Path,
        capsys: Any,
        model_type: str,
        changed: str,
    ) -> None:
        from safetensors.numpy import load_file, save_file

        dense = tiny_bert(
            "sequence-classification",
            model_type=model_type,
            num_labels=1,
            problem_type="regression",
        )
        sparse = Path(shutil.copytree(dense, tmp_path / "sparse"))
        weights = load_file(dense / "model.safetensors")
        weights[changed] = weights[changed] * 0.5
        save_file(weights, sparse / "model.safetensors", metadata={"format": "pt"})
        data = write_regression(tmp_path / "data")
        assert layers.main([str(each) for each in (dense, sparse, data)] + ["--task", "stsb"]) == 0

        title, _, head, _, *rows = capsys.readouterr().out.splitlines()
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
        columns = cells[0]
        found = {row[0]: dict(zip(columns, row, strict=True)) for row in cells[1:]}
        assert list(found) == ["embeddings", "0", "1", "the rest"]
        dense_score = title.split("dense ")[1].split(", ")[0]
        for row, values in found.items():
            for column in columns[2:-1]:
                vanished = "" if row in ("embeddings", "the rest") else "0.0"
                if column == "all of it":
                    vanished = "0.0"
                if row == "1" and column in ("attention.self.value", "all of it"):
                    vanished = "100.0"
                assert values[column].removeprefix("-") == vanished, (row, column)
        assert found["1"]["score then"] == dense_score
        errors = [float(found[row]["error after it"]) for row in ("embeddings", "0", "1")]
        assert errors[:2] == [0, 0]
        assert errors[2] == pytest.approx(hidden_error(dense, sparse, data), abs=0.01)

    def test_how_far_two_classifiers_are_apart(
        self, layers: ModuleType, tiny_bert: TinyBert, tmp_path: Path, capsys: Any
    ) -> None:
        import torch
        import transformers

        kind = {"num_labels": 2, "intermediate_size": 40}
        folders = [tiny_bert("sequence-classification", seed=seed, **kind) for seed in (1, 2)]
        rows = [{"sentence": letters(np.random.default_rng(i), "x"), "label": 0} for i in range(20)]
        data = write_rows(tmp_path / "data" / "validation.jsonl", rows).parent
        assert layers.main([*map(str, folders), str(data), "--task", "sst2"]) == 0
        told = capsys.readouterr().out.splitlines()[0]

        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0])
        chances = []
        for folder in folders:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
            with torch.inference_mode():
                logits = [
                    model(**tokenizer(row["sentence"], return_tensors="pt")).logits for row in rows
                ]
            chances.append(torch.cat(logits).double().softmax(1).numpy())
        dense, sparse = chances
        agreement = 100 * np.mean(dense.argmax(1) == sparse.argmax(1))
        divergence = np.mean(np.sum(dense * np.log(dense / sparse), 1))
        assert told.endswith(f", agreement {agreement:.1f}, divergence {divergence:.3f}")

    @pytest.mark.parametrize(
        ("sizes", "told"),
        [({"num_hidden_layers": 1}, "differ in shape"), ({}, "give the same answers")],
    )
    def test_models_that_cannot_be_compared(
        self,
        layers: ModuleType,
        tiny_bert: TinyBert,
        tmp_path: Path,
        capsys: Any,
        sizes: dict[str, int],
        told: str,
    ) -> None:
        kind = {"num_labels": 1, "problem_type": "regression"}
        dense, sparse = (
            tiny_bert("sequence-classification", **kind, **each) for each in ({}, sizes)
        )
        data = write_regression(tmp_path / "data")
        assert layers.main([str(each) for each in (dense, sparse, data)] + ["--task", "stsb"]) == 1
        assert told in capsys.readouterr().err


def hidden_error(dense: Path, sparse: Path, data: Path) -> float:
    """100 |sparse - dense|^2 / |dense|^2 of the last hidden states, row by row by transformers."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(dense)
    models = [transformers.AutoModel.from_pretrained(each).eval() for each in (dense, sparse)]
    difference = size = 0.0
    for line in (data / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        tokens = tokenizer(row["sentence1"], row["sentence2"], return_tensors="pt")
        with torch.inference_mode():
            wanted, found = (each(**tokens).last_hidden_state for each in models)
        difference += float((found - wanted).square().sum())
        size += float(wanted.square().sum())
    return 100 * difference / size
