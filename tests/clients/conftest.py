"""`sparsebert serve` as a process of its own, for the official clients: `make test-clients`.

The clients have a virtual environment to themselves, without torch; the models are of random
weights, written with numpy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Before the clients are imported: no lists from the internet, no word home.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import pytest

from bert_folders import bert_config, bert_tensors, write_folder
from clients.running import serving
from sparsebert import Model, load
from tiny_models import vocabulary

_LABELS = {
    "embedder": ("encoder", []),
    "classifier": ("sequence-classification", ["no", "maybe", "yes"]),
    "reranker": ("sequence-classification", ["LABEL_0"]),
    "answerer": ("question-answering", []),
}


class Served(NamedTuple):
    """A server's address, and its models as Python has them, to compare with."""

    url: str
    models: dict[str, Model]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base, words = tmp_path_factory.mktemp("models"), vocabulary()
    made = {}
    for name, (head, labels) in _LABELS.items():
        config = bert_config(
            head,
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            max_position_embeddings=64,
            id2label={str(place): label for place, label in enumerate(labels)} or None,
            label2id={label: place for place, label in enumerate(labels)} or None,
        )
        folder = write_folder(base / name, config, bert_tensors(config, head))
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        made[name] = folder
    return made


@pytest.fixture(scope="session")
def served(folders: dict[str, Path]) -> Iterator[Served]:
    """One server of all models."""
    models = {name: load(folder, threads=1) for name, folder in folders.items()}
    with serving(*(f"{name}={folder}" for name, folder in folders.items())) as url:
        yield Served(url, models)


@pytest.fixture(scope="session")
def alone(folders: dict[str, Path]) -> Iterator[dict[str, str]]:
    """The addresses of servers of one model each, for clients that name none of ours."""
    with (
        serving(folders["embedder"]) as embedder,
        serving(folders["classifier"]) as classifier,
        serving(folders["reranker"]) as reranker,
    ):
        yield {"embedder": embedder, "classifier": classifier, "reranker": reranker}
