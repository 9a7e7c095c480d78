"""Optional dependencies, by the extra that installs them, and names imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sparsebert.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


def need_extra(feature: str, *modules: str, extra: str = "train") -> None:
    """Raise MissingExtraError if one of the top-level ``modules`` is not installed."""
    for module in modules:
        try:
            found = find_spec(module) is not None
        except (ImportError, ValueError):  # a module blocked with sys.modules[name] = None
            found = False
        if not found:
            raise MissingExtraError(feature, extra)


def data_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A pandas data frame with a row per mapping and a column per key, in their order."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas()", "notebook") from error
    return pd.DataFrame.from_records(list(rows))


def imported_on_use(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that imports its names from modules when first used."""

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(where[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
