"""Model folders copied and pushed: what goes along, and what never does.

The pushes go through the real client of the hub to a stand-in for its server.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard

from bert_folders import write_bert
from sparsebert import load, pack, prune, push_to_hub
from sparsebert.checkpoint.model_files import published_files
from sparsebert.checkpoint.publishing import copy_weights
from sparsebert.cli.app import main
from sparsebert.errors import CheckpointError, InputError, OutputError
from sparsebert.evaluation import Evaluation
from sparsebert.evaluation.seeds import save_evaluation
from stand_in_hub import StandInHub, stand_in_hub
from tiny_models import TinyBert

TOKEN = "hf_a_secret_that_nobody_may_read"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with stand_in_hub() as stand:
        real = huggingface_hub.HfApi
        monkeypatch.setattr(huggingface_hub, "HfApi", partial(real, endpoint=stand.address))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()  # one made while offline would stay so
        yield stand
        huggingface_hub.close_session()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    dense = write_bert(tmp_path / "dense", "sequence-classification")
    (dense / "README.md").write_text("---\nlicense: mit\n---\nIts own words.\n")
    (dense / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    prune(dense, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed")
    return tmp_path / "packed"


def test_a_push_is_one_commit_of_the_whole_folder(hub: StandInHub, packed: Path) -> None:
    address = push_to_hub(packed, "org/model", token=TOKEN, base_model="org/dense")
    assert address == f"{hub.address}/o/m/commit/0123"
    (files,) = hub.commits
    assert set(files) == {
        "README.md",
        "checksums.json",
        "config.json",
        "packed.safetensors",
        "tokenizer.json",
        "vocab.txt",
    }
    for name in set(files) - {"README.md"}:
        assert files[name] == (packed / name).read_bytes()
    assert hub.messages == ["Upload packed with sparsebert"]
    assert all(token == f"Bearer {TOKEN}" for _, _, token in hub.requests)


def test_the_card_says_what_the_hub_asks_for(hub: StandInHub, packed: Path) -> None:
    scores = {"validation": {"accuracy": 81.25}}
    evaluation = Evaluation(str(packed), "sst2", "SST-2", "sparsebert", scores, {}, 1.0, 1)
    save_evaluation(evaluation)
    push_to_hub(packed, "org/model", base_model="org/dense")
    text = hub.commits[0]["README.md"].decode()
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.library_name == "sparsebert"
    assert data.tags == ["sparsebert"]
    assert data.base_model == "org/dense"
    assert data.license == "mit"
    assert [each.metric_value for each in data.eval_results or []] == [81.25]
    assert "base_model" not in (packed / "README.md").read_text(), "the folder stays as it was"
    assert json.loads(hub.commits[0]["evaluation.json"])["task"] == "sst2"


def test_a_folder_without_a_card_gets_one(hub: StandInHub, packed: Path) -> None:
    (packed / "README.md").unlink()
    push_to_hub(packed, "org/model")
    text = hub.commits[0]["README.md"].decode()
    assert "library_name: sparsebert" in text
    assert "How it was made" in text


def test_only_the_models_own_files_go_along(packed: Path, tmp_path: Path) -> None:
    (packed / ".env").write_text("SECRET=1")
    (packed / "optimizer.pt").write_bytes(b"pickle")
    (packed / "notes").mkdir()
    (packed / "notes/diary.txt").write_text("private")
    (packed / "LICENSE").write_text("Apache")
    names = {"LICENSE", "README.md", "checksums.json", "config.json", "packed.safetensors"}
    names |= {"tokenizer.json", "vocab.txt"}
    assert set(published_files(packed)) == names
    saved = load(packed).save_pretrained(tmp_path / "saved")
    assert {path.name for path in saved.iterdir()} == names
    ids = [[2, 5, 3]]
    np.testing.assert_array_equal(load(saved).forward(ids), load(packed).forward(ids))


def test_a_link_to_a_file_elsewhere_is_not_published(
    hub: StandInHub, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text("secret")
    (packed / "extra.txt").symlink_to(tmp_path / "credentials")
    with pytest.raises(CheckpointError, match=r"extra.txt is a link that leads out"):
        push_to_hub(packed, "org/model")
    with pytest.raises(CheckpointError, match=r"extra.txt is a link that leads out"):
        load(packed).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    assert hub.requests == []


def test_a_folder_of_the_hubs_cache_is_links_and_may_be_saved(packed: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache/models--org--model/snapshots/0123"
    blobs = tmp_path / "cache/models--org--model/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(packed.iterdir())):
        os.replace(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    saved = load(snapshot).save_pretrained(tmp_path / "saved")
    assert not [path for path in saved.iterdir() if path.is_symlink()]
    load(saved)


def test_saving_replaces_only_when_told(packed: Path, tmp_path: Path) -> None:
    model = load(packed)
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(OutputError, match="exists"):
        model.save_pretrained(tmp_path / "saved")
    model.save_pretrained(tmp_path / "saved", force=True)
    with pytest.raises(OutputError, match="is the model itself"):
        model.save_pretrained(packed, force=True)


def test_weights_alone_join_what_is_there(
    packed: Path, tiny_bert: TinyBert, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/other.json").write_text("{}")
    copy_weights(packed, tmp_path / "there")
    found = {path.name for path in (tmp_path / "there").iterdir()}
    assert found == {"other.json", "config.json", "packed.safetensors"}
    # Of another model, saved here before: the packed file would be read before these.
    dense = tiny_bert()
    (tmp_path / "there/model.safetensors.index.json").write_text("{}")
    copy_weights(dense, tmp_path / "there")
    found = {path.name for path in (tmp_path / "there").iterdir()}
    assert found == {"other.json", "config.json", "model.safetensors"}
    copy_weights(tmp_path / "there", tmp_path / "there")  # on itself
    assert load(tmp_path / "there").nbytes == load(dense).nbytes


def test_a_private_push_never_lands_in_public(hub: StandInHub, packed: Path) -> None:
    hub.public.add("org/model")
    with pytest.raises(OutputError, match="org/model is public on the hub: nothing was pushed"):
        push_to_hub(packed, "org/model", private=True)
    assert hub.commits == []
    push_to_hub(packed, "org/model")
    push_to_hub(packed, "org/other", private=True)
    assert [asked.get("private", asked.get("visibility")) for asked in hub.created[-1:]] in (
        [True],
        ["private"],
    )
    assert len(hub.commits) == 2


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_the_hub_says_is_told_without_the_token(
    hub: StandInHub, packed: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub.refuse = status
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(OutputError, match="could not be pushed to org/model: ") as caught,
    ):
        load(packed).push_to_hub("org/model", token=TOKEN)
    assert hub.requests, "it must have been asked"
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert TOKEN not in told


def test_an_error_that_quotes_the_token_does_not_get_through(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise ValueError(f"Invalid header: Bearer {TOKEN}")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    with pytest.raises(OutputError, match=r"Invalid header: Bearer \.\.\.") as caught:
        push_to_hub(packed, "org/model", token=TOKEN)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"repo_id": "a/b/c"}, "is not a valid repository name"),
        ({"repo_id": "https://hub/x"}, "is not a valid repository name"),
        ({"repo_id": "org/model", "base_model": "../dense"}, "is not a valid hub id"),
    ],
)
def test_names_that_cannot_be(packed: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        push_to_hub(packed, **arguments)


def test_what_is_no_model_is_not_pushed(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        push_to_hub(tmp_path / "absent", "org/model")
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        push_to_hub(tmp_path / "other", "org/model")
    assert hub.requests == []


def test_the_command(hub: StandInHub, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["push", str(packed), "org/model", "--private", "-m", "first", "--pull-request"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["url"] == f"{hub.address}/o/m/discussions/1"
    assert hub.messages == ["first"]
