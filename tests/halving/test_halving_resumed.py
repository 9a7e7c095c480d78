"""An unfinished halving goes on with what it was begun with, and refuses anything else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import FAST
from sparsebert import halve
from sparsebert.errors import OutputError
from tiny_tasks import write_classification

QUICK: dict[str, Any] = {**FAST, "effort": "quick"}
Change = Callable[[Path], object]


def stop(label: str, done: int, total: int) -> None:
    """Ends a run as Ctrl-C does, once its plan is made and its rows are written."""
    raise KeyboardInterrupt


def rows_swapped(place: Path) -> None:
    path = place / "data" / "train.jsonl"
    first, *rest, last = path.read_text().splitlines()
    path.write_text("\n".join([last, *rest, first]) + "\n")


def labels_renamed(place: Path) -> None:
    for path in (place / "data").iterdir():
        path.write_text(path.read_text().replace('"yes"', '"yep"'))


def other_weights(place: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = place / "model" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    save_file({**tensors, name: tensors[name] + 0.01}, path, {"format": "pt"})


def other_texts(place: Path) -> None:
    path = place / "texts.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rows_swapped, "texts and data"),
        (labels_renamed, "data"),
        (other_weights, "model"),
    ],
)
def test_other_contents_under_the_same_names_are_refused(
    dense: Path, tmp_path: Path, change: Change, told: str
) -> None:
    shutil.copytree(dense, tmp_path / "model")
    data = write_classification(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        halve(tmp_path / "model", tmp_path / "out", data=data, progress=stop, **QUICK)
    change(tmp_path)
    with pytest.raises(OutputError, match=f"an unfinished run with different {told}: use the same"):
        halve(tmp_path / "model", tmp_path / "out", data=data, **QUICK)


def test_other_texts_and_options_are_refused_and_the_same_go_on(
    dense: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"a b c {number} d e" for number in range(30)))
    with pytest.raises(KeyboardInterrupt):
        halve(dense, tmp_path / "out", texts=[texts], progress=stop, **QUICK)
    before = texts.read_text()
    other_texts(tmp_path)
    with pytest.raises(OutputError, match="different texts: use the same again"):
        halve(dense, tmp_path / "out", texts=[texts], **QUICK)
    texts.write_text(before)
    with pytest.raises(OutputError, match="different seed: use the same again"):
        halve(dense, tmp_path / "out", texts=[texts], seed=2, **QUICK)
    said: list[str] = []
    halve(dense, tmp_path / "out", texts=[texts], said=said.append, **QUICK)
    assert "Resuming the unfinished run." in said
    assert not (tmp_path / "out.halving").exists()
