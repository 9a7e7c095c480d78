"""docs/packed-format.md: every element of a packed file is where the page says, read one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from bert_folders import write_bert
from checkout import CHECKOUT
from sparsebert import pack, prune, unpack

PAGE = CHECKOUT / "docs" / "packed-format.md"
# Neither tiles, groups, panels nor blocks of rows come out even.
SIZES = {"hidden_size": 12, "intermediate_size": 72}
Parts = dict[str, np.ndarray]
Element = Callable[[Parts, int, int], float]


def bit(word: Any, index: int) -> bool:
    return bool(int(word) >> index & 1)


def one_of_two(parts: Parts, row: int, column: int) -> float:
    panel, pair, odd = column // 64, column % 64 // 2, column % 2
    kept = bit(parts["bits"][panel, row], pair) == odd
    return parts["values"][panel, row, pair] if kept else 0


def any_other(m: int) -> Element:
    def element(parts: Parts, row: int, column: int) -> float:
        width = 64 // m * m
        panel, within = divmod(column, width)
        word = parts["bits"][panel, row]
        before = sum(bit(word, each) for each in range(within))
        return parts["values"][panel, row, before] if bit(word, within) else 0

    return element


def shared(rows: int) -> Element:
    def element(parts: Parts, row: int, column: int) -> float:
        pair, odd = divmod(column, 2)
        kept = bit(parts["bits"][row // rows, pair // 8], pair % 8) == odd
        return parts["values"][row, pair] if kept else 0

    return element


def pairs(parts: Parts, row: int, column: int) -> float:
    (tile, r), (group, within) = divmod(row, 16), divmod(column, 8)
    i, odd = divmod(within, 2)
    kept = bit(parts["bits"][tile, group], 4 * r + i) == odd
    return parts["values"][tile, group, r, i] if kept else 0


def shared_pairs(rows: int) -> Element:
    def element(parts: Parts, row: int, column: int) -> float:
        (tile, r), (pair, odd) = divmod(row, 16), divmod(column, 2)
        kept = bit(parts["bits"][row // rows, pair // 8], pair % 8) == odd
        return parts["values"][tile, pair // 4, r, pair % 4] if kept else 0

    return element


def dense(parts: Parts, row: int, column: int) -> float:
    (tile, r), (group, within) = divmod(row, 16), divmod(column, 8)
    return parts["values"][tile, 2 * group + within % 2, r, within // 2]


def table(parts: Parts, row: int, column: int) -> float:
    return parts["values"][row, column]


def reader(entry: dict[str, Any]) -> Element:
    """What the page says of such an entry."""
    rows, layout, pattern = entry.get("shared_rows", 1), entry.get("layout"), entry["pattern"]
    if layout in ("dense", "table", "pairs"):
        return {"dense": dense, "table": table, "pairs": pairs}[layout]
    if layout == "shared-pairs":
        return shared_pairs(rows)
    if pattern == "1:2":
        return one_of_two if rows == 1 else shared(rows)
    return any_other(int(pattern.partition(":")[2]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "dense"
    return write_bert(folder, "sequence-classification", **SIZES)


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("pattern", "rows"), [("1:2", 1), ("1:2", 16), ("2:4", 1), ("1:3", 1), (None, 1)]
)
def test_every_element(
    model: Path, tmp_path: Path, dtype: str, pattern: str | None, rows: int
) -> None:
    source = model
    if pattern:
        prune(model, source := tmp_path / "sparse", pattern=pattern, shared_rows=rows)
    pack(source, tmp_path / "packed", dtype=dtype)
    unpack(tmp_path / "packed", tmp_path / "again")
    found = set()
    with (
        safe_open(tmp_path / "packed" / "packed.safetensors", "numpy") as packed,
        safe_open(tmp_path / "again" / "model.safetensors", "numpy") as plain,
    ):
        record = json.loads(packed.metadata()["sparsebert"])
        assert record["format_version"] == (2 if rows > 1 else 1)
        assert record["dtype"] == dtype
        assert ("quantized" in record) == (dtype == "int8")
        entries = {**record["compressed"], **record.get("quantized", {})}
        stored = set(packed.keys())
        for name in plain.keys():  # noqa: SIM118, it is no dict
            wanted = plain.get_tensor(name)
            if name not in entries:
                np.testing.assert_array_equal(packed.get_tensor(name), wanted)
                continue
            entry = entries[name]
            found.add((entry.get("layout"), entry["pattern"], entry.get("shared_rows", 1)))
            assert entry["shape"] == list(wanted.shape)
            assert name not in stored
            parts = {
                part: packed.get_tensor(f"{name}.{part}")
                for part in ("values", "bits", "scales")
                if f"{name}.{part}" in stored
            }
            element = reader(entry)
            read = np.array(
                [
                    [element(parts, row, column) for column in range(wanted.shape[1])]
                    for row in range(wanted.shape[0])
                ],
                np.float32,
            )
            if "scales" in parts:
                read *= parts["scales"][:, None]
            np.testing.assert_array_equal(read, wanted)
    layouts = {"1:2": "pairs" if rows == 1 else "shared-pairs", None: "dense"}
    if dtype == "int8":
        assert {layout for layout, *_ in found} == {
            layouts.get(pattern, "panels"),
            "dense",
            "table",
        }
    elif pattern:
        assert found == {(None, pattern, rows)}


def test_the_reader_on_the_page(model: Path, tmp_path: Path) -> None:
    prune(model, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="int8")
    unpack(tmp_path / "packed", tmp_path / "again")
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    namespace: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), namespace)
    name = "bert.encoder.layer.1.output.dense.weight"
    file = str(tmp_path / "packed" / "packed.safetensors")
    with safe_open(tmp_path / "again" / "model.safetensors", "numpy") as plain:
        np.testing.assert_array_equal(namespace["read_pairs"](file, name), plain.get_tensor(name))
