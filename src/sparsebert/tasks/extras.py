"""Say which extra to install when a training-side library is missing."""

from __future__ import annotations

from importlib.util import find_spec

from sparsebert.errors import MissingExtraError


def need_extra(feature: str, *modules: str, extra: str = "train") -> None:
    """Raise MissingExtraError if one of the top-level ``modules`` is not installed."""
    for module in modules:
        try:
            found = find_spec(module) is not None
        except (ImportError, ValueError):  # a module blocked with sys.modules[name] = None
            found = False
        if not found:
            raise MissingExtraError(feature, extra)
