"""How one run's arguments differ from another's, in words: a run that goes on must be the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> list[str]:
    """``epochs was 3 and is now 4`` for every name under which the two hold something else."""
    return [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in {**before, **now}
        if name not in ignored and before.get(name) != now.get(name)
    ]
