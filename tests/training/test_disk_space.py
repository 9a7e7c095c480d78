"""A run knows how much disk it needs, and says so before it trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import QUICK
from sparsebert.checkpoint import open_checkpoint
from sparsebert.errors import OutputError
from sparsebert.tasks.own import find_task
from sparsebert.training import callbacks, finetune, prune_upstream
from sparsebert.training.defaults import with_defaults
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.work_folder import disk_needed, remove_left_over
from tiny_tasks import write_classification

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "options",
    [{"epochs": 1}, {"epochs": 4}, {"epochs": 4, "optimizer": "sgd", "embeddings": "frozen"}],
    ids=["one epoch", "four epochs", "sgd, frozen embeddings"],
)
def test_it_is_what_a_run_takes(
    tiny_bert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    model = tiny_bert("encoder", hidden_size=256, intermediate_size=1024)
    data = write_classification(tmp_path / "data", train=16, validation=4)
    taken: list[int] = []
    remove = callbacks._remove_older

    def watch(*arguments: Any, **more: Any) -> None:
        taken.append(size(tmp_path / "out.training"))
        remove(*arguments, **more)
        taken.append(size(tmp_path / "out.training") + size(model))

    monkeypatch.setattr(callbacks, "_remove_older", watch)
    settings = {**QUICK, **options}
    finetune(model, tmp_path / "out", data=data, **settings)
    name = settings.pop("task")
    chosen = with_defaults(
        FinetuneOptions.from_names(settings), open_checkpoint(model), find_task(name, data), rows=16
    )
    needed = disk_needed(open_checkpoint(model), chosen)
    assert needed == pytest.approx(max(taken), rel=0.1)


def test_too_little_is_told_before_the_first_step(
    sparse: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_classification(tmp_path / "data"), tmp_path / "deep" / "out"
    (tmp_path / "texts.txt").write_text("a b c\nd e f\n" * 20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
    why = (
        r"training with its checkpoints takes about [\d.]+ MB of disk space beside .*out, but only "
        r"0.1 MB are"
    )

    def train(label: str, done: int, total: int) -> None:
        assert label not in ("fine-tuning", "distilling")

    with pytest.raises(OutputError, match=why):
        finetune(sparse, out, data=data, progress=train, **QUICK)
    with pytest.raises(OutputError, match=why):
        prune_upstream(dense, out, corpus=tmp_path / "texts.txt", max_length=16, progress=train)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "texts.txt"}


@pytest.mark.parametrize(
    ("files", "goes"),
    [
        ((".lock",), True),
        (("run.json", "checkpoint-4/model.safetensors"), True),
        ((".run.json.partial-0123abcd",), True),
        (("notes.txt",), False),
    ],
)
def test_what_a_killed_run_left_beside_its_output_goes(
    tmp_path: Path, files: tuple[str, ...], goes: bool
) -> None:
    folder = tmp_path / "out.training"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    remove_left_over(tmp_path / "out")
    assert folder.exists() is not goes
