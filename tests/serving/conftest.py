"""Models that several tests of the server share."""

from __future__ import annotations

from typing import Any

import pytest

from served import HEADS


@pytest.fixture(scope="module")
def model(tiny_bert: Any) -> Any:
    """An encoder as `ServedModel` ``tiny``, for one server."""
    from sparsebert.serving import load_models

    (served,) = load_models([f"tiny={tiny_bert()}"], threads=1)
    return served


@pytest.fixture(scope="module")
def models(tiny_bert: Any) -> Any:
    """The models of `HEADS` by name, to compare with what a server of them answers."""
    from sparsebert.inference import load

    return {name: load(tiny_bert(**sizes)) for name, sizes in HEADS.items()}
