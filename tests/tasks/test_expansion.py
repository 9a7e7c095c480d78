"""What the rows of Parquet weigh, against the texts that they are read as."""

from __future__ import annotations

import io
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from sparsebert.tasks.expansion import decoded_bytes

REFERENCES = pa.array(["long " * 200, "b", None] * 40).dictionary_encode()
OFFSETS = pa.array(range(0, 121, 2), pa.int32())
COLUMNS = {
    "plain": REFERENCES,
    "list": pa.ListArray.from_arrays(OFFSETS, REFERENCES),
    "list of fixed size": pa.FixedSizeListArray.from_arrays(REFERENCES, 2),
    "list with nulls": pa.array([None, ["long " * 200] * 9, []] * 20).cast(
        pa.list_(REFERENCES.type)
    ),
    "struct": pa.StructArray.from_arrays([REFERENCES], ["a"]),
    "map": pa.MapArray.from_arrays(OFFSETS, pa.array(["k"] * 120), REFERENCES),
    "list of lists": pa.ListArray.from_arrays(
        pa.array([0, 20, 60], pa.int32()), pa.ListArray.from_arrays(OFFSETS, REFERENCES)
    ),
}


def texts(value: Any) -> int:
    """Characters of all texts in nested Python values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum(map(texts, value))
    return len(value) if isinstance(value, str) else 0


@pytest.mark.parametrize("name", COLUMNS)
def test_a_text_counts_in_every_row_that_refers_to_it(name: str) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": COLUMNS[name]}), file)
    total = 0
    for batch in pq.ParquetFile(file).iter_batches(7):
        told, read = decoded_bytes(batch), texts(batch.to_pylist())
        assert read <= told <= read + 1000  # offsets, numbers of dictionaries, keys
        total += read
    assert total > 20_000
    assert decoded_bytes(batch.slice(0, 0)) < 1000
