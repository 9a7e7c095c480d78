"""One file per attack, in tests/hostile: each is refused with a message, within time and memory.

Complete model folders are made around the files, and read in a process that `watched` watches.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsebert
from model_folders import write_classifier, write_trained
from sparsebert.diagnosis import diagnose
from sparsebert.errors import SparsebertError
from sparsebert.table.formats import write
from watched import Watch

HOSTILE = Path(__file__).parents[1] / "hostile"
# The file of a small classifier that those of a folder stand in for.
NAMES = {
    "config": "config.json",
    "tokenizer": "tokenizer.json",
    "weights": "model.safetensors",
    "pickle": "pytorch_model.bin",
    "records": "training.json",
}
READERS = {"pickle": "convert", "records": "doctor", "data": "task", "table": "table"}
READERS |= {"recipe": "recipe"}
ROWS = (".jsonl", ".gz", ".parquet")  # what batch jobs read too
# Read as they are meant, and within limits: the doctor tells what is wrong and does not refuse.
ANSWERED = {"records"}


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    if sys.platform != "linux":
        pytest.skip("peak memory is read from /proc: on Linux")
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    with Watch() as watch:
        yield watch


def attacks() -> list[Path]:
    return sorted(file for file in HOSTILE.glob("*/*") if file.parent.name != "__pycache__")


@pytest.mark.parametrize("attack", attacks(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_it_is_refused(watch: Watch, attack: Path, tmp_path: Path) -> None:
    kind = attack.parent.name
    path = tmp_path / attack.name
    if kind in NAMES:
        path = tmp_path / "model"
        if kind == "records":
            write_trained(path)
        else:
            write_classifier(path, as_it_is=kind == "tokenizer")
        if kind == "pickle":
            (path / "model.safetensors").unlink()
        shutil.copyfile(attack, path / NAMES[kind])
    else:
        shutil.copyfile(attack, path)
    readers = [READERS.get(kind, "answer")]
    readers += ["rows"] if kind == "data" and path.suffix in ROWS else []
    readers += ["steps"] if kind == "tokenizer" else []  # which may copy what they cannot read
    for reader in readers:
        before = watch.refused
        assert watch.fault(reader, path, attack.stat().st_size) is None
        assert watch.refused == before + 1 or kind in ANSWERED or reader in ("rows", "steps")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "half \ud800", "loop"], ids=ascii)
def test_names_that_no_folder_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    model, named = write_classifier(tmp_path / "model"), f"{tmp_path}/{name}"
    for step in (
        lambda: sparsebert.load(named),
        lambda: sparsebert.inspect(named),
        lambda: sparsebert.prune(named, tmp_path / "out"),
        lambda: sparsebert.prune(model, named),
        lambda: sparsebert.pack(model, named),
        lambda: diagnose(named),
        lambda: write(named),
    ):
        with pytest.raises(SparsebertError) as found:
            step()
        assert str(found.value).isprintable()
    assert not (tmp_path / "out").exists()
