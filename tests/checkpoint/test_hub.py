"""Model ids on the hub: what is asked for, and how its failures are told. No network is used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bert_folders import write_bert
from sparsebert.checkpoint import open_checkpoint, resolve_model
from sparsebert.errors import CheckpointError

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


class Stand:
    """A stand-in for snapshot_download that holds one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repo: str, **arguments: Any) -> str:
        self.calls.append({"repo": repo, **arguments})
        return str(self.folder)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand(write_bert(tmp_path / "snapshots" / "0123abc"))
    monkeypatch.setattr(hub, "snapshot_download", stand)
    monkeypatch.chdir(tmp_path)
    return stand


def test_an_id_is_downloaded_without_pickles(stand: Stand) -> None:
    assert resolve_model("org/model") == stand.folder
    (call,) = stand.calls
    assert call["repo"] == "org/model"
    assert "*.safetensors" in call["allow_patterns"]
    assert not [pattern for pattern in call["allow_patterns"] if pattern.endswith(".bin")]


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "0123abc"])
def test_an_id_may_name_a_revision(stand: Stand, revision: str) -> None:
    assert resolve_model(f"org/model@{revision}") == stand.folder
    assert (stand.calls[0]["repo"], stand.calls[0]["revision"]) == ("org/model", revision)
    assert open_checkpoint(f"org/model@{revision}").source == f"org/model@{revision}"


def test_two_revisions_are_refused(stand: Stand) -> None:
    with pytest.raises(CheckpointError, match="another revision, v2, is given"):
        resolve_model("org/model@v1", revision="v2")
    assert stand.calls == []


def test_only_convert_asks_for_pickles(stand: Stand) -> None:
    resolve_model("org/model", pickles=True)
    assert "pytorch_model*.bin" in stand.calls[0]["allow_patterns"]


def test_the_lineage_names_the_id(stand: Stand) -> None:
    assert open_checkpoint("org/model").source == "org/model"


def test_a_model_of_pickles_says_how_to_convert_it(stand: Stand) -> None:
    (stand.folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="run `sparsebert convert org/model OUT`"):
        open_checkpoint("org/model")


def test_a_folder_comes_before_an_id(stand: Stand, tmp_path: Path) -> None:
    write_bert(tmp_path / "org" / "model")
    assert resolve_model("org/model") == Path("org/model")
    assert stand.calls == []


@pytest.mark.parametrize(
    "model",
    ["/no/folder", "./sparse", "a/b/c", "../x", "~/m", "a b", "a/b@", "a/b@../x", "a/b@c@d"],
)
def test_paths_are_not_taken_for_ids(stand: Stand, model: str) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        resolve_model(model)
    assert stand.calls == []


def test_a_path_object_is_a_folder_or_nothing(stand: Stand) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        resolve_model(Path("org/model"))
    assert stand.calls == []


@pytest.mark.parametrize(
    "failure",
    [
        OSError("no connection"),
        ValueError("bad id"),
        errors.LocalEntryNotFoundError("offline, and not in the cache"),
        errors.OfflineModeIsEnabled("offline mode"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_its_failures_are_ours(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=f"org/model is not a folder.*{failure}"):
        resolve_model("org/model")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="pip install huggingface_hub"):
        resolve_model("org/model")
