"""Models that several tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from served import HEADS, serving


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


@pytest.fixture(scope="module")
def url(tiny_bert: Any) -> Iterator[str]:
    """A server of the models of `HEADS`."""
    from sparsebert.serving import load_models

    named = [f"{name}={tiny_bert(**sizes)}" for name, sizes in HEADS.items()]
    with serving(load_models(named, threads=1)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    """An HTTP client of the server at `url`."""
    import httpx

    with httpx.Client(base_url=url, timeout=30) as made:
        yield made
