"""Folders of seeds: trained, stopped, gone on with, refused, scored, packed."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from huggingface_hub import ModelCard

from commands import Run
from sparsebert.checkpoint.seeds import parse_seeds, seed_folders
from sparsebert.errors import CheckpointError, InputError, OutputError, TrainingError
from sparsebert.evaluation.results import SeedScores
from sparsebert.evaluation.seeds import evaluate_seeds
from sparsebert.pruning import prune
from sparsebert.training.seeds import finetune_seeds
from tiny_models import TinyBert
from tiny_tasks import write_classification, write_regression

QUICK: dict[str, Any] = {"task": "custom", "epochs": 1, "learning_rate": 1e-3, "batch_size": 16}


@pytest.fixture(scope="module")
def sparse(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds") / "sparse"
    prune(tiny_bert("encoder"), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classification(tmp_path_factory.mktemp("seeds") / "data", train=32)


@pytest.fixture(scope="module")
def two(sparse: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 1 and 2, to be read only."""
    out = tmp_path_factory.mktemp("seeds") / "two"
    finetune_seeds(sparse, out, data=data, seeds=(1, 2), **QUICK)
    return out


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def weights_time(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_mtime_ns


class Stop(Exception):
    pass


def stop_at(seed: int, step: int) -> Any:
    def progress(label: str, done: int, total: int) -> None:
        if label == f"seed {seed}: fine-tuning" and done == step:
            raise Stop

    return progress


class TestStatistics:
    SCORES = SeedScores(
        "stsb",
        "STS-B",
        {
            1: {"validation": {"pearson": 80.0, "spearman": 70.0}},
            2: {"validation": {"pearson": 82.0, "spearman": 70.0}},
            4: {"validation": {"pearson": 87.0, "spearman": 70.0}},
        },
    )

    def test_mean_and_sample_deviation(self) -> None:
        assert self.SCORES.mean() == {"validation": {"pearson": 83.0, "spearman": 70.0}}
        # Squares 9 + 1 + 16 = 26 about the mean, over n - 1 = 2.
        spread = self.SCORES.deviation()["validation"]
        assert spread["pearson"] == pytest.approx(math.sqrt(13))
        assert spread["spearman"] == 0

    def test_row(self) -> None:
        assert self.SCORES.row() == "STS-B (Pearson/Spearman): 83.0 ± 3.6/70.0 ± 0.0, 3 seeds"

    def test_one_seed_shows_no_spread(self) -> None:
        one = SeedScores("rte", "RTE", {3: {"validation": {"accuracy": 61.25}}})
        assert one.deviation() == {"validation": {"accuracy": None}}
        assert one.row() == "RTE (accuracy): 61.2, 1 seed"

    def test_unscored_seeds(self) -> None:
        none = SeedScores("custom", "custom", {1: {}, 2: {}})
        assert none.mean() == {}
        assert none.row() == ""


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("5", (1, 2, 3, 4, 5)), ("1", (1,)), ("1,3,7", (1, 3, 7)), ("7,", (7,)), ("0, 2", (0, 2))],
)
def test_parse(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", ",", "1,1", "a", "-1", "1.5", "1;2", "1,,2", "9" * 12])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InputError, match="seeds are a count"):
        parse_seeds(text)


class TestFinetune:
    def test_each_seed_is_an_ordinary_folder(self, two: Path) -> None:
        assert list(seed_folders(two)) == [1, 2]
        first, second = (read(two / f"seed-{seed}/training.json") for seed in (1, 2))
        assert (first["arguments"]["seed"], second["arguments"]["seed"]) == (1, 2)
        found = read(two / "seeds.json")
        assert found["seeds"] == {"1": first["scores"], "2": second["scores"]}
        assert found["rows"] == {"train": 32, "validation": 24}
        assert "seed" not in found["arguments"]
        scores = [record["scores"]["validation"]["accuracy"] for record in (first, second)]
        assert found["mean"]["validation"]["accuracy"] == pytest.approx(sum(scores) / 2)
        assert str(two.parent) not in json.dumps(found)

    def test_a_finished_seed_is_left_alone_and_more_may_follow(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        finetune_seeds(sparse, out, data=data, seeds=(2,), **QUICK)
        before = weights_time(out / "seed-2")
        result = finetune_seeds(sparse, out, data=data, seeds=(1, 2), **QUICK)
        assert weights_time(out / "seed-2") == before
        assert list(result.seeds) == [1, 2]
        finetune_seeds(sparse, out, data=data, seeds=(2,), force=True, **QUICK)
        assert weights_time(out / "seed-2") != before

    def test_scores_outlive_the_weights(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        first = finetune_seeds(sparse, out, data=data, seeds=(1,), **QUICK)
        (out / "seed-1/model.safetensors").unlink()
        again = finetune_seeds(sparse, out, data=data, seeds=(1,), **QUICK)
        assert again == first

    def test_stopped_between_and_within_seeds(
        self, sparse: Path, data: Path, two: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with pytest.raises(Stop):
            finetune_seeds(sparse, out, data=data, seeds=(1, 2), progress=stop_at(2, 0), **QUICK)
        assert list(read(out / "seeds.json")["seeds"]) == ["1"]
        before = weights_time(out / "seed-1")
        # What a kill leaves behind: a half-written folder, and no checkpoint to go on from.
        half = out / ".seed-2.partial-0123abcd"
        half.mkdir()
        (half / "config.json").write_text("{")
        (out / "seed-2.training/checkpoint-1").mkdir(parents=True)
        (out / "seed-2.training/run.json").write_text('{"arguments": {}}')
        finetune_seeds(sparse, out, data=data, seeds=(1, 2), **QUICK)
        assert weights_time(out / "seed-1") == before
        assert read(out / "seeds.json")["seeds"] == read(two / "seeds.json")["seeds"]

    def test_an_unfinished_seed_is_resumed(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        out, options = tmp_path / "out", {**QUICK, "epochs": 2}
        with pytest.raises(Stop):
            finetune_seeds(sparse, out, data=data, seeds=(1,), progress=stop_at(1, 3), **options)
        finetune_seeds(sparse, out, data=data, seeds=(1,), **options)
        assert read(out / "seed-1/training.json")["resumed_from_step"] == 2

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"epochs": 2}, "epochs was 1 and is now 2"),
            ({"dropout": 0.2}, "dropout was 0.0 and is now 0.2"),
            ({"task": "sst2"}, "task was 'custom' and is now 'sst2'"),
        ],
    )
    def test_other_options_are_refused(
        self, sparse: Path, data: Path, two: Path, change: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(TrainingError, match=told):
            finetune_seeds(sparse, two, data=data, seeds=(3,), **{**QUICK, **change})
        assert list(seed_folders(two)) == [1, 2]

    @pytest.mark.parametrize("task", ["custom", "stsb"])
    def test_force_trains_again_what_it_is_asked_to_and_refuses_the_rest(
        self, sparse: Path, data: Path, two: Path, tmp_path: Path, task: str
    ) -> None:
        out = tmp_path / "out"
        shutil.copytree(two, out)
        before = weights_time(out / "seed-2")
        options: dict[str, Any] = {**QUICK, "task": task, "force": True}
        options["learning_rate"] = 5e-4
        options["data"] = data if task == "custom" else write_regression(tmp_path / "data", 32)
        with pytest.raises(TrainingError, match="seed 1 in .* was trained differently"):
            finetune_seeds(sparse, out, seeds=(2,), **options)
        assert weights_time(out / "seed-2") == before
        # While seed 2 is still the old one it is not counted.
        with pytest.raises(Stop):
            finetune_seeds(sparse, out, seeds=(1, 2), progress=stop_at(2, 0), **options)
        assert list(read(out / "seeds.json")["seeds"]) == ["1"]
        assert list(finetune_seeds(sparse, out, seeds=(1, 2), **options).seeds) == [1, 2]
        assert read(out / "seeds.json")["arguments"]["learning_rate"] == 5e-4

    def test_ctrl_c_while_a_seed_is_scored_trains_no_other(
        self, sparse: Path, data: Path, tmp_path: Path, ctrl_c: Callable[[], None]
    ) -> None:
        out, pressed = tmp_path / "out", []

        def press(label: str, done: int, total: int) -> None:
            if label.startswith("seed 1: evaluating") and not pressed:
                pressed.append(label)
                ctrl_c()

        with pytest.raises(KeyboardInterrupt):
            finetune_seeds(sparse, out, data=data, seeds=(1, 2), progress=press, **QUICK)
        assert [each.name for each in out.iterdir()] == ["seed-1.training"]
        finetune_seeds(sparse, out, data=data, seeds=(1,), **QUICK)
        assert read(out / "seed-1/training.json")["resumed_from_step"] == 2

    def test_another_model_is_refused(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, two: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingError, match="model was 'sparse' and is now 'model'"):
            finetune_seeds(tiny_bert("encoder"), two, data=data, seeds=(3,), **QUICK)
        prune(tiny_bert("encoder"), tmp_path / "sparse", pattern="2:4")
        with pytest.raises(TrainingError, match="the model was made differently"):
            finetune_seeds(tmp_path / "sparse", two, data=data, seeds=(3,), **QUICK)

    def test_other_data_is_refused(self, sparse: Path, two: Path, tmp_path: Path) -> None:
        other = write_classification(tmp_path / "other")
        with pytest.raises(TrainingError, match="data was 'data' and is now 'other'"):
            finetune_seeds(sparse, two, data=other, seeds=(3,), **QUICK)

    def test_a_model_is_no_folder_of_seeds(self, sparse: Path, data: Path, two: Path) -> None:
        with pytest.raises(OutputError, match="is itself a model"):
            finetune_seeds(sparse, two / "seed-1", data=data, seeds=(1,), **QUICK)

    def test_what_is_no_fine_tuned_model_is_not_counted(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        prune(tiny_bert("encoder"), tmp_path / "out/seed-1")
        with pytest.raises(TrainingError, match="was not made by fine-tuning"):
            finetune_seeds(sparse, tmp_path / "out", data=data, seeds=(2,), **QUICK)

    def test_without_a_validation_split(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        result = finetune_seeds(
            sparse, tmp_path / "out", data=data / "train.jsonl", seeds=(1,), **QUICK
        )
        assert result.row() == ""
        assert read(tmp_path / "out/seeds.json")["mean"] == {}

    def test_the_card_holds_a_model_index(self, sparse: Path, tmp_path: Path) -> None:
        data = write_regression(tmp_path / "data", train=32)
        options = {**QUICK, "task": "stsb"}
        scores = finetune_seeds(sparse, tmp_path / "out", data=data, seeds=(1, 2), **options)
        card = ModelCard.load(tmp_path / "out/README.md", ignore_metadata_errors=False)
        found = {each.metric_type: each for each in card.data.eval_results or []}
        assert set(found) == {"pearsonr", "spearmanr"}
        pearson = found["pearsonr"]
        assert pearson.metric_value == round(scores.mean()["validation"]["pearson"], 2)
        assert (pearson.task_type, pearson.dataset_type, pearson.dataset_config) == (
            "text-classification",
            "nyu-mll/glue",
            "stsb",
        )
        spread = scores.deviation()["validation"]["pearson"]
        assert pearson.metric_name == f"Pearson, percent, mean of 2 seeds, deviation {spread:.2f}"


class TestEvaluate:
    def test_mean_over_all_seeds(self, two: Path, data: Path) -> None:
        scores = evaluate_seeds(two, task="custom", data=data, engine="torch")
        assert scores.seeds == {
            seed: read(two / f"seed-{seed}/training.json")["scores"] for seed in (1, 2)
        }
        kept = read(two / "evaluation.json")
        assert kept["mean"] == scores.mean()
        assert kept["engine"] == "torch"
        one = read(two / "seed-2/evaluation.json")
        assert one["scores"] == scores.seeds[2]
        assert one["model"] == "seed-2"

    def test_missing_seeds(self, two: Path, sparse: Path, data: Path) -> None:
        with pytest.raises(CheckpointError, match="has the seeds 1, 2 but not 3, 4"):
            evaluate_seeds(two, task="custom", data=data, seeds=(1, 2, 3, 4))
        with pytest.raises(CheckpointError, match="is not a folder of seeds"):
            evaluate_seeds(sparse, task="custom", data=data)


class TestCommands:
    def test_the_way_through(
        self,
        sparse: Path,
        data: Path,
        tmp_path: Path,
        run: Run,
    ) -> None:
        task = ("--task", "custom", "--data", data)
        code, told, _ = run(
            "finetune", sparse, tmp_path / "tuned", *task, "--seeds", "1,3", "--epochs", 1
        )
        assert code == 0
        assert told.startswith("custom (accuracy/F1): ")
        assert told.endswith(", 2 seeds\n")

        shutil.copytree(tmp_path / "tuned", tmp_path / "other")
        config = read(tmp_path / "other/seed-1/config.json")
        config["sparsity"]["lineage"][-1]["arguments"]["epochs"] = 2
        (tmp_path / "other/seed-1/config.json").write_text(json.dumps(config))
        packed = tmp_path / "packed"
        code, told, _ = run("pack", tmp_path / "tuned", packed, "--dtype", "int8")
        assert (code, told) == (0, f"{packed}: seeds 1, 3 packed as int8.\n")
        before = (packed / "seed-1/packed.safetensors").stat().st_mtime_ns
        assert run("pack", tmp_path / "tuned", packed, "--dtype", "int8")[0] == 0
        assert (packed / "seed-1/packed.safetensors").stat().st_mtime_ns == before
        for other in (("--dtype", "fp16"), ("--dtype", "int8", "--no-compress")):
            code, _, said = run("pack", tmp_path / "tuned", packed, *other)
            assert (code, "seed-1 was packed with other options" in said) == (1, True)
        code, _, said = run("pack", tmp_path / "other", packed, "--dtype", "int8")
        assert (code, "seed-1 was packed from another model than" in said) == (1, True)
        shutil.copytree(tmp_path / "tuned", tmp_path / "again")
        training = read(tmp_path / "again/seed-3/training.json")
        (tmp_path / "again/seed-3/training.json").write_text(json.dumps({**training, "seconds": 1}))
        code, _, said = run("pack", tmp_path / "again", packed, "--dtype", "int8")
        assert (code, "seed-3 has been trained again since" in said) == (1, True)

        code, told, _ = run("evaluate", packed, *task, "--seeds", "1,3", "--json")
        assert code == 0
        assert json.loads(told)["seeds"].keys() == {"1", "3"}
        assert read(packed / "seed-3/evaluation.json")["engine"] == "sparsebert"
        # The scores of a model are not those of what is made from it.
        assert run("unpack", packed / "seed-3", tmp_path / "unpacked")[0] == 0
        assert not (tmp_path / "unpacked/evaluation.json").exists()

        code, told, _ = run("evaluate", packed / "seed-1", *task, "--save", "--json")
        assert code == 0
        kept = read(packed / "seed-1/evaluation.json")
        assert kept["scores"] == json.loads(told)["scores"]
        assert kept["model"] == "seed-1"

    def test_evaluate_may_train_the_seeds_first(
        self,
        sparse: Path,
        data: Path,
        tmp_path: Path,
        run: Run,
    ) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("version: 1\nepochs: 1\nbatch_size: 16\n")
        asked = ("evaluate", sparse, "--task", "custom", "--data", data, "--seeds", 1)
        code, told, _ = run(
            *asked, "--out", tmp_path / "out", "--recipe", recipe, "--engine", "torch"
        )
        assert code == 0
        assert told.endswith(", 1 seed\n")
        record = read(tmp_path / "out/seed-1/training.json")
        assert record["arguments"]["batch_size"] == 16
        assert read(tmp_path / "out/evaluation.json")["seeds"] == {"1": record["scores"]}
        code, _, told = run(*asked)
        assert code == 1
        assert "is not a folder of seeds" in told

    def test_wrong_use(self, sparse: Path, data: Path, tmp_path: Path, run: Run) -> None:
        task = ("--task", "custom", "--data", data)
        for wrong in (
            ("finetune", sparse, tmp_path / "o", *task, "--seeds", "x"),
            ("finetune", sparse, tmp_path / "o", *task, "--seeds", 2, "--seed", 3),
            ("evaluate", sparse, *task, "--out", tmp_path / "o"),
            ("evaluate", sparse, *task, "--seeds", 2, "--recipe", "r"),
            ("evaluate", sparse, *task, "--seeds", 2, "--max-rows", 3),
            ("evaluate", sparse, *task, "--save", "--split", "train"),
        ):
            assert run(*wrong)[0] == 2, wrong


class TestTeachers:
    def test_each_seed_learns_from_the_teacher_of_its_seed(
        self, sparse: Path, data: Path, two: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        finetune_seeds(sparse, out, data=data, seeds=(1, 2), teacher=two, **QUICK)
        for seed in (1, 2):
            arguments = read(out / f"seed-{seed}/training.json")["arguments"]
            assert arguments["teacher"] == f"seed-{seed}"
        # Again, and nothing is refused although the teachers have different names.
        finetune_seeds(sparse, out, data=data, seeds=(1, 2), teacher=two, **QUICK)
        with pytest.raises(TrainingError, match="has no seed 3"):
            finetune_seeds(sparse, out, data=data, seeds=(3,), teacher=two, **QUICK)
        with pytest.raises(TrainingError, match="teacher was 'seed-1' and is now None"):
            finetune_seeds(sparse, out, data=data, seeds=(3,), **QUICK)
