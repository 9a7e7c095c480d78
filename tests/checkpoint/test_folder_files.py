"""A part of a folder that is there but cannot be read is an error, and links lead nowhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentence_folders import with_modules
from sparsebert import load, pack, prune
from sparsebert.errors import CheckpointError

PARTS = [
    "config.json",
    "model.safetensors",
    "masks.safetensors",
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "README.md",
    "LICENSE",
]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD = [pipe, folder, link_to_nothing, link_to_itself, link_to_a_device]


@pytest.fixture
def model(tiny_bert, tmp_path: Path) -> Path:
    return with_modules(tiny_bert(), tmp_path / "st", mode="cls", normalize=True)


def everything(model: Path, out: Path) -> Any:
    """Every step that reads the folder, and an answer of the model that comes out."""
    prune(model, out / "sparse")
    pack(out / "sparse", out / "packed", dtype="int8")
    load(model).embed("a ferry")
    return load(out / "packed").embed("a ferry")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", PARTS)
def test_what_is_no_file_is_not_taken_for_absent(
    model: Path, tmp_path: Path, name: str, odd: Callable[[Path], None]
) -> None:
    path = model / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    odd(path)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
        everything(model, tmp_path / "out")
    assert not [each for each in (tmp_path / "out").iterdir() if each.name != "sparse"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_elses(model: Path, tmp_path: Path) -> None:
    (model / "modules.json").chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read: this user has no permission"):
        prune(model, tmp_path / "sparse")


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "notes.txt", "vocab.txt", "extra.json"])
def test_content_from_outside_does_not_get_into_what_is_written(
    model: Path, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match=f"{name} is a link that leads out of the model"):
        prune(model, tmp_path / "sparse")
    assert not (tmp_path / "sparse").exists()


def test_links_within_the_folder_and_the_hubs_cache(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (model / "NOTICE").write_text("of the authors")
    (model / "LICENSE").symlink_to("NOTICE")
    everything(model, tmp_path / "out")
    assert (tmp_path / "out" / "packed" / "LICENSE").read_text() == "of the authors"
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    (cache / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(model.rglob("*"))):
        target = snapshot / path.relative_to(model)
        if path.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        blob = cache / "blobs" / f"{number:040x}"
        shutil.copyfile(path, blob)
        target.symlink_to(os.path.relpath(blob, target.parent))
    (tmp_path / "again").mkdir()
    everything(snapshot, tmp_path / "again")
    assert (tmp_path / "again" / "packed" / "LICENSE").read_text() == "of the authors"
