"""Models that the tests of several libraries share: read them, do not write into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from embedding_folders import original_colbert
from sentence_folders import with_settings
from sparsebert.packing import pack
from tiny_models import TinyBert


@pytest.fixture(scope="session")
def encoder(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed encoder."""
    folder = tmp_path_factory.mktemp("integrations") / "packed"
    pack(tiny_bert(), folder, dtype="fp32")
    return folder


@pytest.fixture(scope="session")
def ranker(tiny_bert: TinyBert) -> Path:
    """A cross-encoder with one label."""
    return tiny_bert("sequence-classification", num_labels=1)


@pytest.fixture(scope="session")
def colbert(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-vector model."""
    return original_colbert(tmp_path_factory.mktemp("integrations") / "colbert", tiny_bert())


@dataclass(frozen=True)
class Prompted:
    """A folder, and the prompts that stand before its queries and documents."""

    folder: Path
    query: str
    document: str


@pytest.fixture(
    params=[
        ({"prompts": {"query": "wall: "}, "default_prompt_name": "query"}, "wall: ", ""),
        ({"prompts": {"query": "wall: ", "passage": "ferry: "}}, "wall: ", "ferry: "),
        ({"prompts": {"other": "wall: "}, "default_prompt_name": "other"}, "wall: ", "wall: "),
    ],
    ids=["query", "both", "default"],
)
def prompted(encoder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Prompted:
    settings, query, document = request.param
    return Prompted(with_settings(encoder, tmp_path / "prompted", **settings), query, document)
