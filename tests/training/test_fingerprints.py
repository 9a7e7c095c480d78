"""A run that goes on, and a seed beside others, are of the same contents and not only names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from short_runs import QUICK, interrupt_at
from sparsebert.errors import TrainingError
from sparsebert.pruning import prune
from sparsebert.training import finetune, prune_upstream
from sparsebert.training.seeds import finetune_seeds
from tiny_tasks import write_classification

pytestmark = pytest.mark.usefixtures("short_garbage_collections")

Change = Callable[[Path], object]


def swapped(split: str) -> Change:
    """Two rows of a split change places: as many rows, the same words, another run."""

    def change(folder: Path) -> None:
        path = folder / "data" / f"{split}.jsonl"
        first, *rest, last = path.read_text().splitlines()
        path.write_text("\n".join([last, *rest, first]) + "\n")

    return change


def renamed(folder: Path) -> None:
    """One label is called otherwise, and stands where it stood."""
    for path in (folder / "data").iterdir():
        path.write_text(path.read_text().replace('"yes"', '"yep"'))


def pruned_otherwise(name: str) -> Change:
    """A model of the same name, pattern and masks file, made again of other weights."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        tensors["embeddings.word_embeddings.weight"] = (
            tensors["embeddings.word_embeddings.weight"] + 0.01
        )
        save_file(tensors, path, {"format": "pt"})

    return change


def scored(folder: Path) -> None:
    """What is written about a model does not change it."""
    (folder / "model" / "evaluation.json").write_text("{}")
    (folder / "model" / "README.md").write_text("A card.")


@pytest.fixture
def place(sparse: Path, tmp_path: Path) -> Path:
    """A folder with a copy of a model, and its data."""
    shutil.copytree(sparse, tmp_path / "model")
    write_classification(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swapped("train"), "the training rows changed"),
        (swapped("validation"), "the validation rows changed"),
        (renamed, "the labels changed"),
        (pruned_otherwise("model"), "the model changed"),
    ],
    ids=["train", "validation", "labels", "model"],
)
def test_other_contents_are_refused(place: Path, change: Change, told: str) -> None:
    out, data, model = place / "out", place / "data", place / "model"
    with pytest.raises(KeyboardInterrupt):
        finetune(model, out, data=data, progress=interrupt_at(3), **QUICK)
    scored(place)
    before = {path: path.read_bytes() for path in (data, model) for path in path.iterdir()}
    change(place)
    with pytest.raises(TrainingError, match=f"was started differently: {told}. Use the same"):
        finetune(model, out, data=data, resume=True, **QUICK)
    for path, content in before.items():
        path.write_bytes(content)
    assert finetune(model, out, data=data, resume=True, **QUICK).resumed_from == 3


def test_another_teacher_of_the_same_name_is_refused(place: Path, dense: Path) -> None:
    finetune(dense, place / "teacher", data=place / "data", **QUICK)
    options: dict[str, Any] = {**QUICK, "data": place / "data", "teacher": place / "teacher"}
    with pytest.raises(KeyboardInterrupt):
        finetune(place / "model", place / "out", progress=interrupt_at(3), **options)
    shutil.rmtree(place / "teacher")
    finetune(dense, place / "teacher", data=place / "data", **{**QUICK, "seed": 2})
    with pytest.raises(TrainingError, match="differently: the teacher changed"):
        finetune(place / "model", place / "out", resume=True, **options)


def test_a_run_from_before_there_were_fingerprints_goes_on(place: Path) -> None:
    model, out, data = place / "model", place / "out", place / "data"
    with pytest.raises(KeyboardInterrupt):
        finetune(model, out, data=data, progress=interrupt_at(3), **QUICK)
    run = place / "out.training" / "run.json"
    run.write_text(
        json.dumps({k: v for k, v in json.loads(run.read_text()).items() if k != "contents"})
    )
    assert finetune(model, out, data=data, resume=True, **QUICK).resumed_from == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swapped("train"), "the training rows changed"),
        (renamed, "the labels changed"),
        (pruned_otherwise("model"), "the model changed"),
    ],
    ids=["train", "labels", "model"],
)
def test_seeds_of_other_contents_are_not_counted_together(
    place: Path, change: Change, told: str
) -> None:
    options: dict[str, Any] = {**QUICK, "epochs": 1, "data": place / "data"}
    finetune_seeds(place / "model", place / "out", seeds=(1,), **options)
    scored(place)
    finetune_seeds(place / "model", place / "out", seeds=(1,), **options)
    change(place)
    with pytest.raises(TrainingError, match=rf"seed 1 in .* was trained differently \({told}\)"):
        finetune_seeds(place / "model", place / "out", seeds=(1, 2), **options)


def test_upstream_too(dense: Path, tmp_path: Path) -> None:
    model, corpus, out = tmp_path / "model", tmp_path / "texts.txt", tmp_path / "out"
    shutil.copytree(dense, model)
    lines = [f"a b c {number} d e f" for number in range(40)]
    corpus.write_text("\n".join(lines))
    calibration = tmp_path / "calibration.csv"
    calibration.write_text("\n".join(["body", *lines[:8]]))
    options: dict[str, Any] = {
        "corpus": corpus,
        "method": "wanda",
        "calibration": calibration,
        "text_column": "body",  # of calibration and corpus, where these are tables
        "batch_size": 8,
        "max_length": 16,
    }

    def stop(label: str, done: int, total: int) -> None:
        if label == "distilling" and done == 2:
            interrupt_at(2)("fine-tuning", 2, 5)

    with pytest.raises(KeyboardInterrupt):
        prune_upstream(model, out, progress=stop, **options)
    for path, told in (
        (corpus, "the corpus changed"),
        (calibration, "the calibration texts changed"),
    ):
        before = path.read_text()
        path.write_text(before.replace("a b", "b a", 1))
        with pytest.raises(TrainingError, match=f"was started differently: {told}"):
            prune_upstream(model, out, resume=True, **options)
        path.write_text(before)
    shutil.rmtree(model)
    prune(dense, model, pattern="2:4")
    with pytest.raises(TrainingError, match="was started differently: the model changed"):
        prune_upstream(model, out, resume=True, **options)
    shutil.rmtree(model)
    shutil.copytree(dense, model)
    assert prune_upstream(model, out, resume=True, **options).resumed_from == 2
