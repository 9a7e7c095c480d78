"""Results as pandas' data frames, for those who have pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sparsebert.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


def data_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One line a mapping, one column a key, in their order."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas()", "notebook") from error
    return pd.DataFrame.from_records(list(rows))
