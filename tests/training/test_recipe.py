"""Recipes: read, checked, written beside the weights, and the same training again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
yaml = pytest.importorskip("yaml")

from short_runs import QUICK, assert_same_bits
from sparsebert.errors import TrainingError
from sparsebert.options import option_types
from sparsebert.training import finetune
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.recipe import RECIPE_NAME, read_recipe, write_recipe
from tiny_models import TinyBert
from tiny_tasks import write_classification


def written(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_values_are_read_by_name(tmp_path: Path) -> None:
    text = """
    # to be passed on
    version: 1
    epochs: 4
    learning_rate: 1e-4
    weight_decay: 0
    max_length:
    embeddings: used
    """
    found = read_recipe(written(tmp_path, text))
    assert found == {
        "epochs": 4,
        "learning_rate": 1e-4,  # which YAML 1.1 takes for text
        "weight_decay": 0,
        "max_length": None,
        "embeddings": "used",
    }
    assert FinetuneOptions.from_names(found).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "version: 1\nepocs: 3",
            "'epocs' is not an option of fine-tuning: choose from seed, epochs",
        ),
        ("version: 1\nepochs: three", "epochs must be a number, not 'three'"),
        ("version: 1\nbatch_size: 8.5", "batch_size must be an integer, not 8.5"),
        ("version: 1\nbatch_size: yes", "batch_size must be an integer, not True"),
        ("version: 1\noptimizer: 1", "optimizer must be a string, not 1"),
        ("version: 1\nbatch_size:", "batch_size must be an integer, not None"),
        ("version: 1\nepochs: [1, 2]", "'epochs' must be a single value"),
        ("version: 1\nprecision: fp8", "precision must be auto or fp32 or bf16, not 'fp8'"),
        ("version: 1\nseed: 3", "a recipe cannot set the seed"),
        ("version: 2\nepochs: 1", "version 2, but this sparsebert only reads version 1: install a"),
        ("version: one", "version must be a positive integer, not 'one'"),
        ("version: 0", "version must be a positive integer, not 0"),
        ("epochs: 1", "a recipe must have the line 'version: 1'"),
        ("- 1", "not a recipe: it must have lines like 'name: value'"),
        ("", "not a recipe"),
        ("version: 1\n: : :", "is not valid YAML"),
        ("version: 1\nepochs: !!python/object/apply:os.getcwd []", "is not valid YAML: could not"),
        ("version: " + "9" * 9000, "is not valid YAML"),
        ("{" * 3000, "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TrainingError) as error:
        read_recipe(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 900


def test_files_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no\.yaml cannot be read: No such file"):
        read_recipe(tmp_path / "no.yaml")
    with pytest.raises(TrainingError, match=r"cannot be read"):
        read_recipe(tmp_path)
    with pytest.raises(TrainingError, match="larger than 1 MiB"):
        read_recipe(written(tmp_path, "#" * (1 << 20) + "\nversion: 1"))
    (tmp_path / "bytes.yaml").write_bytes(b"version: 1\n\xff")
    with pytest.raises(TrainingError, match="is not valid YAML"):
        read_recipe(tmp_path / "bytes.yaml")


def test_aliases_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(TrainingError, match="'a' must be a single value"):
        read_recipe(written(tmp_path, "version: 1\n" + "\n".join(lines)))


def test_every_option_that_means_something_is_written_and_read_again(tmp_path: Path) -> None:
    sorts = {int: 9, float: 0.25, str: ""}
    values: dict[str, Any] = {
        name: sorts[kind] for name, kind in option_types(FinetuneOptions).items()
    }
    values |= {"optimizer": "sgd", "precision": "fp32", "embeddings": "used", "quantize": "int8"}
    values |= {"method": "gradual", "pattern": "1:2", "shared_rows": 32, "early_stopping": 0}
    values |= {"teacher": "hub/model", "unlabelled": "texts", "task_weight": 0.0}
    options = FinetuneOptions(**values)
    write_recipe(tmp_path, options)
    assert FinetuneOptions.from_names({**read_recipe(tmp_path / RECIPE_NAME), "seed": 9}) == options

    write_recipe(tmp_path, FinetuneOptions())
    found = yaml.safe_load((tmp_path / RECIPE_NAME).read_text())
    assert "temperature" not in found
    assert "pattern" not in found
    assert "max_rows" not in found
    assert (found["version"], found["batch_size"]) == (1, 32)
    assert "epochs" not in found  # left to the model and the rows


def test_where_teacher_and_texts_stood_is_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "taught").mkdir()
    options = FinetuneOptions(
        teacher=str(tmp_path / "taught"), unlabelled=str(tmp_path / "texts.txt")
    )
    write_recipe(tmp_path, options)
    found = yaml.safe_load((tmp_path / RECIPE_NAME).read_text())
    assert (found["teacher"], found["unlabelled"]) == ("taught", "texts.txt")


def test_teacher_and_texts_may_be_given_with_the_run(tmp_path: Path) -> None:
    text = "version: 1\nhidden_weight: 1\nunlabelled_rows: 6\n"
    assert read_recipe(written(tmp_path, text)) == {"hidden_weight": 1, "unlabelled_rows": 6}


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"temperature": 4.0}, "temperature is 4.0 but has no meaning without a teacher"),
            ({"pattern": "2:4"}, "pattern is 2:4 but has no meaning without a method that prunes"),
            ({"method": "gradual", "pattern": "2"}, "'2' is not a pattern"),
            ({"method": "gradual", "early_stopping": 1}, "early_stopping cannot be combined"),
            ({"teacher": "t", "logits_weight": 0.0}, "all 0: there is nothing to learn from"),
            ({"teacher": "t", "temperature": 0.0}, "temperature must be greater than 0"),
            ({"teacher": "t", "task_weight": -1.0}, "task_weight must be at least 0"),
            ({"unlabelled": "t"}, "unlabelled is t but has no meaning without a teacher"),
            ({"teacher": "t", "unlabelled_rows": 9}, "has no meaning without unlabelled texts"),
            ({"teacher": "t", "unlabelled": "u", "unlabelled_rows": 0}, "integer of at least 1"),
            (
                {"teacher": "t", "unlabelled": "u", "task_weight": 0.5},
                "task_weight is 0.5, but unlabelled texts have no labels",
            ),
            ({"quantize": "int4"}, "quantize must be int8, not 'int4'"),
            ({"embeddings": None}, "embeddings must be a string, not None"),
            ({"method": "magnitude"}, "method must be lock or gradual or snip-momentum"),
            ({"lr": 1.0}, "'lr' is not an option of fine-tuning"),
        ],
    )
    def test_they_are_checked_together(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(TrainingError, match=message):
            FinetuneOptions.from_names(given)

    def test_defaults_are_valid_and_typed(self) -> None:
        for field in dataclasses.fields(FinetuneOptions):
            value = getattr(FinetuneOptions(), field.name)
            assert value is None or type(value) is option_types(FinetuneOptions)[field.name], (
                field.name
            )


def test_the_recipe_beside_the_weights_trains_them_again(
    tiny_bert: TinyBert, tmp_path: Path
) -> None:
    data = write_classification(tmp_path / "data")
    options = {name: value for name, value in QUICK.items() if name != "task"}
    options |= {"dropout": 0.05, "weight_decay": 0.2, "embeddings": "used"}
    model = tiny_bert("encoder")
    finetune(model, tmp_path / "one", task="custom", data=data, seed=3, **options)
    recipe = tmp_path / "one" / RECIPE_NAME
    assert "--recipe recipe.yaml --seed 3" in recipe.read_text().splitlines()[0]
    finetune(model, tmp_path / "two", task="custom", data=data, seed=3, recipe=recipe)
    assert_same_bits(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / RECIPE_NAME).read_text() == recipe.read_text()

    result = finetune(
        model, tmp_path / "three", task="custom", data=data, recipe=recipe, epochs=1
    )  # what is given wins
    assert result.steps == 8
    record = json.loads((tmp_path / "three" / "training.json").read_text())["arguments"]
    assert (record["epochs"], record["dropout"], record["seed"]) == (1, 0.05, 1)
