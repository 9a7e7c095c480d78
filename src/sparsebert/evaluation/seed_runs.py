"""The same work from several seeds: one after the other here, or spread by a layer above."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sparsebert.progress import Progress, named

Spread = Callable[
    [Callable[..., Any], Mapping[int, Mapping[str, Any]], Progress], Iterator[tuple[int, Any]]
]
"""Calls a function with each seed's arguments; gives seeds with their results as they are done."""


def one_by_one(
    function: Callable[..., Any], arguments: Mapping[int, Mapping[str, Any]], progress: Progress
) -> Iterator[tuple[int, Any]]:
    """The plain `Spread`: in order, in this process."""
    for seed, given in arguments.items():
        yield seed, function(**given, progress=named(progress, f"seed {seed}"))
