"""Checks whether a finished part is still what its worker wrote.

Parquet pages have checksums, which readers verify on request. The footer has none, so what must not
change unnoticed (number of rows, names and types of columns) is stored again in its metadata.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparsebert.scale.input_files import Location
from sparsebert.scale.parts import Part

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "sparsebert"
_ROWS_AT_ONCE = 1024


def note(counts: Mapping[str, int], schema: pa.Schema) -> str:
    """The value of `KEY` in a part's metadata; ``counts`` has its "part" and "rows"."""
    import pyarrow.parquet as pq

    empty = io.BytesIO()  # as read from a file: list elements have other names there than in memory
    pq.write_table(schema.empty_table(), empty)
    return json.dumps({**counts, "columns_sha256": _digest(pq.read_schema(empty))})


def is_whole(out: Location, part: Part) -> bool:
    """Whether the file of a finished part is undamaged and has all of its rows.

    On this machine's disks, all pages are read and checked; of remote files, only the footer.
    """
    import pyarrow.parquet as pq

    try:
        with out.filesystem.open_input_file(out.child(part.name).path) as source:
            opened = pq.ParquetFile(source, page_checksum_verification=True, buffer_size=1 << 20)
            told = json.loads((opened.metadata.metadata or {})[KEY.encode()])
            groups = map(opened.metadata.row_group, range(opened.num_row_groups))
            rows = {told["rows"], opened.metadata.num_rows, sum(each.num_rows for each in groups)}
            if told["part"] != part.number or rows != {part.rows}:
                return False
            if told["columns_sha256"] != _digest(opened.schema_arrow):
                return False
            if out.is_local:
                for batch in opened.iter_batches(_ROWS_AT_ONCE):
                    batch.validate(full=True)
            return True
    except Exception:  # each kind of damage raises a different exception
        return False


def _digest(schema: pa.Schema) -> str:
    columns = [(field.name, str(field.type)) for field in schema]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()
