"""Optional dependencies: which extra to install when one is missing, and results for pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """A pandas data frame with one line a mapping and one column a key, in their order."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas()", "notebook") from error
    return pd.DataFrame.from_records(list(rows))
