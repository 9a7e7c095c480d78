"""Models that the tests of several libraries share: read them, do not write into them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
