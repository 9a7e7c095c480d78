"""A packed file from anywhere: refused with a reason, never computed with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bert_folders import write_bert
from sparsebert.errors import (
    CheckpointError,
    UnsupportedArchitectureError,
)
from sparsebert.packing import open_packed, pack, to_dense, unpack
from sparsebert.pruning import prune

QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"
PACKED = "packed.safetensors"
PLAIN = {"pattern": None, "shared_rows": 1}
# Neither size is a multiple of 16 rows, 8 inputs or 64 columns.
ODD = {"hidden_size": 36, "intermediate_size": 52, "num_attention_heads": 3}


def sparse_bert(folder: Path, head: str = "encoder", pattern: str = "1:2", **sizes: int) -> Path:
    dense = write_bert(folder / "dense", head, **sizes)
    prune(dense, folder / "sparse", pattern=pattern)
    return folder / "sparse"


def altered(
    packed: Path,
    target: Path,
    document: Callable[[dict[str, Any]], Any] | None = None,
    tensors: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Path:
    """A copy of the folder with its metadata or tensors changed."""
    target.mkdir()
    (target / "config.json").write_bytes((packed / "config.json").read_bytes())
    arrays = {name: array.copy() for name, array in load_file(packed / PACKED).items()}
    with safe_open(packed / PACKED, framework="np") as file:
        meta = json.loads(file.metadata()["sparsebert"])
    if tensors is not None:
        tensors(arrays)
    if document is not None:
        found = document(meta)
        meta = found if isinstance(found, str) else meta
    text = meta if isinstance(meta, str) else json.dumps(meta)
    save_file(arrays, target / PACKED, metadata={"sparsebert": text})
    return target


def read_or_refused(packed: Path, folder: Path, data: st.DataObject) -> None:
    """Change some bytes, half of the time in the header: no crash, and no other error."""
    (folder / "config.json").write_bytes((packed / "config.json").read_bytes())
    content = bytearray((packed / PACKED).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    end = header if data.draw(st.booleans()) else len(content)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    (folder / PACKED).write_bytes(content)
    try:
        weights = open_packed(folder).weights
    except CheckpointError:
        return
    for weight in weights.values():
        to_dense(weight)


class TestFloats:
    @pytest.fixture(scope="class")
    def packed(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("hostile")
        pack(sparse_bert(folder, "sequence-classification"), folder / "packed")
        return folder / "packed"

    def test_an_unaltered_copy_opens(self, packed: Path, tmp_path: Path) -> None:
        copy = altered(packed, tmp_path / "copy")
        assert len(open_packed(copy).weights) == len(open_packed(packed).weights)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda m: "nonsense", "metadata is damaged"),
            (lambda m: "[]", "metadata is damaged"),
            (lambda m: "[" * 100_000, "metadata is damaged"),
            (lambda m: m.pop("format_version") and None, "metadata is damaged"),
            (lambda m: m.update(format_version=3), "format version 3"),
            (lambda m: m.update(format_version=True), "metadata is damaged"),
            (lambda m: m.update(format_version="1"), "metadata is damaged"),
            (
                lambda m: m.update(dtype="int3"),
                "'int3', but this version of sparsebert supports only",
            ),
            (lambda m: m.update(dtype=None), "metadata is damaged"),
            (lambda m: m.update(dtype="fp16"), "says that it is packed as fp16, but"),
            (lambda m: m.update(dtype="int8"), "says that it is packed as int8, but"),
            (lambda m: m.update(compressed=[]), "metadata is damaged"),
            (lambda m: m["compressed"].update({"bert." + QUERY: 7}), "metadata is damaged"),
            (
                lambda m: m["compressed"]["bert." + QUERY].update(pattern="2:1"),
                "metadata is damaged",
            ),
            (lambda m: m["compressed"]["bert." + QUERY].update(pattern="2:4"), "damaged"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[8]), "damaged"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[8, 2**63]), "damaged"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[8, -8]), "damaged"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[8, 8.0]), "damaged"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[8, 10]), "has shape"),
            (lambda m: m["compressed"]["bert." + QUERY].update(shape=[9, 8]), "has shape"),
            (lambda m: m["compressed"].pop("bert." + QUERY) and None, "lacks tensors"),
            (
                lambda m: m["compressed"].update(
                    {"classifier.bias": {"shape": [3, 2], "pattern": "1:2"}}
                ),
                "both plain and compressed",
            ),
            (
                lambda m: m["compressed"].update({"new": {"shape": [3, 2], "pattern": "1:2"}}),
                r"lacks 'new\.values'",
            ),
            (
                lambda m: m["compressed"].update(
                    {f"bert.{QUERY}.values": {"shape": [3, 2], "pattern": "1:2"}}
                ),
                "both plain and compressed|lacks",
            ),
        ],
    )
    def test_metadata_that_lies(
        self, packed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], complaint: str
    ) -> None:
        folder = altered(packed, tmp_path / "copy", document=change)
        with pytest.raises(CheckpointError, match=complaint):
            open_packed(folder)
        with pytest.raises(CheckpointError):
            unpack(folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("part", "change"),
        [
            ("values", lambda a: a[:-1]),
            ("values", lambda a: a[..., :-1]),
            ("values", lambda a: a[0]),
            ("values", lambda a: a[:, :0]),
            ("values", lambda a: a.astype(np.float64)),
            ("values", lambda a: a + 1),  # filling that is not zero
            ("bits", lambda a: a[:, :-1]),
            ("bits", lambda a: a[0]),
            ("bits", lambda a: a.astype(np.uint64)),
            ("bits", lambda a: a.astype(np.int32)),
            ("bits", lambda a: a.astype(np.float32)),
            ("bits", lambda a: a | np.uint32(1 << 31)),  # a pair beyond the last
        ],
    )
    def test_parts_that_do_not_fit(
        self, packed: Path, tmp_path: Path, part: str, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        name = f"bert.{QUERY}.{part}"
        folder = altered(
            packed,
            tmp_path / "copy",
            tensors=lambda t: t.update({name: np.ascontiguousarray(change(t[name]))}),
        )
        with pytest.raises(CheckpointError, match=f"{QUERY}"):
            open_packed(folder)

    def test_only_linear_layers_are_compressed(self, packed: Path, tmp_path: Path) -> None:
        """The engine looks rows of the embeddings up; a compressed one would confuse it."""
        name = "bert.embeddings.token_type_embeddings.weight"

        def embed(tensors: dict[str, np.ndarray]) -> None:
            tensors.pop(name)
            tensors[f"{name}.values"] = np.zeros((1, 2, 32), np.float32)
            tensors[f"{name}.bits"] = np.zeros((1, 2), np.uint32)

        folder = altered(
            packed,
            tmp_path / "copy",
            document=lambda m: m["compressed"].update({name: {"shape": [2, 8], "pattern": "1:2"}}),
            tensors=embed,
        )
        with pytest.raises(CheckpointError, match="is compressed, but is not a linear layer"):
            open_packed(folder)

    def test_missing_parts_and_weights(self, packed: Path, tmp_path: Path) -> None:
        for number, name in enumerate((f"bert.{QUERY}.bits", "bert.embeddings.LayerNorm.bias")):
            folder = altered(
                packed, tmp_path / str(number), tensors=lambda t, name=name: t.pop(name)
            )
            with pytest.raises(CheckpointError, match="lacks"):
                open_packed(folder)

    def test_weights_of_other_types(self, packed: Path, tmp_path: Path) -> None:
        name = "bert.embeddings.LayerNorm.bias"
        folder = altered(
            packed,
            tmp_path / "copy",
            tensors=lambda t: t.update({name: t[name].astype(np.int64)}),
        )
        with pytest.raises(CheckpointError, match="is stored as I64"):
            open_packed(folder)

    def test_a_safetensors_file_of_others(self, packed: Path, tmp_path: Path) -> None:
        folder = altered(packed, tmp_path / "copy")
        save_file(load_file(folder / PACKED), folder / PACKED, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match="lacks sparsebert's metadata"):
            open_packed(folder)

    def test_truncated(self, packed: Path, tmp_path: Path) -> None:
        folder = altered(packed, tmp_path / "copy")
        content = (folder / PACKED).read_bytes()
        for length in (0, 4, 100, len(content) // 2, len(content) - 1):
            (folder / PACKED).write_bytes(content[:length])
            with pytest.raises(CheckpointError, match=r"packed\.safetensors is not a valid"):
                open_packed(folder)

    def test_a_config_of_another_model(self, packed: Path, tmp_path: Path) -> None:
        folder = altered(packed, tmp_path / "copy")
        config = json.loads((folder / "config.json").read_text())
        for change, error in (
            ({"intermediate_size": 48}, CheckpointError),
            ({"num_hidden_layers": 3}, CheckpointError),
            ({"model_type": "albert"}, UnsupportedArchitectureError),
            ({"architectures": ["BertForQuestionAnswering"]}, CheckpointError),
        ):
            (folder / "config.json").write_text(json.dumps({**config, **change}))
            with pytest.raises(error):
                open_packed(folder)

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_any_changed_byte_is_read_or_refused(
        self, packed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        read_or_refused(packed, tmp_path_factory.mktemp("flipped"), data)


class TestInt8:
    @pytest.fixture(scope="class", params=["1:2", "1:2 shared by 16 rows", "2:4"])
    def packed(self, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("hostile")
        sparse = sparse_bert(folder, pattern=request.param, **ODD)
        pack(sparse, folder / "packed", dtype="int8")
        return folder / "packed"

    def refused(self, folder: Path, complaint: str) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            open_packed(folder)
        out = folder.parent / "out"
        with pytest.raises(CheckpointError):
            unpack(folder, out)
        assert not out.exists()

    def test_an_unaltered_copy_opens(self, packed: Path, tmp_path: Path) -> None:
        copy = altered(packed, tmp_path / "copy")
        assert len(open_packed(copy).weights) == len(open_packed(packed).weights)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda m: m.update(quantized=[]), "metadata is damaged"),
            (lambda m: m.update(quantized=None), "metadata is damaged"),
            (lambda m: m.update(dtype="fp32"), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: 7}), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: []}), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: {}}), "metadata is damaged"),
            (lambda m: m["compressed"].update({QUERY: m["quantized"][QUERY]}), "is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout="rows"), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout=["pairs"]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout=None), "two|damaged|lacks"),
            (lambda m: m["quantized"][QUERY].update(layout="dense"), "does not fit"),
            (lambda m: m["quantized"][QUERY].update(layout="table"), "does not fit"),
            (lambda m: m["quantized"][QUERY].update(layout="table", **PLAIN), "is a layer"),
            (lambda m: m["quantized"][QUERY].update(**PLAIN), "does not fit None"),
            (lambda m: m["quantized"][QUERY].update(shared_rows=24), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shared_rows="16"), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(pattern="1:2", shared_rows=32), "damaged"),
            (lambda m: m["quantized"][QUERY].update(pattern="1:3"), "damaged"),
            (lambda m: m["quantized"][QUERY].update(pattern=12), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape="ab"), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 0]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 2**40]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 36.0]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 37]), "does not fit"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 32]), "has shape"),
            (lambda m: m["quantized"][QUERY].update(shape=[37, 36]), "has shape"),
            (lambda m: m["quantized"].pop(QUERY), "lacks tensors"),
            (
                lambda m: m["quantized"][WORDS].update(layout="dense"),
                f"'{WORDS}' is compressed, but is not a linear layer",
            ),
            (
                lambda m: m["quantized"].update(
                    {"pooler.dense.bias": {"shape": [3, 2], "layout": "dense", "pattern": None}}
                ),
                "both plain and compressed",
            ),
            (
                lambda m: m["quantized"].update(
                    {"new": {"shape": [3, 2], "layout": "dense", "pattern": None}}
                ),
                r"lacks 'new\.values'",
            ),
        ],
    )
    def test_metadata_that_lies(
        self, packed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], complaint: str
    ) -> None:
        self.refused(altered(packed, tmp_path / "copy", document=change), complaint)

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            (QUERY, "bits"),
            *(
                (name, part)
                for name in (QUERY, WORDS, "pooler.dense.weight")
                for part in ("values", "scales")
            ),
        ],
    )
    @pytest.mark.parametrize(
        "change",
        [
            lambda a: a[:-1],
            lambda a: a[None],
            lambda a: a.reshape(-1)[:0],
            lambda a: a.astype(np.float64),
            lambda a: a.astype(np.uint16),
            lambda a: np.zeros(a.shape, np.float16),
        ],
        ids=["shorter", "deeper", "empty", "double", "unsigned", "half"],
    )
    def test_parts_of_other_types_and_shapes(
        self, packed: Path, tmp_path: Path, name: str, part: str, change: Any
    ) -> None:
        stored = f"{name}.{part}"
        folder = altered(
            packed,
            tmp_path / "copy",
            tensors=lambda t: t.update({stored: np.ascontiguousarray(change(t[stored]))}),
        )
        self.refused(folder, f"tensor '{name}' is damaged: its {part} are ")

    @pytest.mark.parametrize("name", [QUERY, WORDS, "pooler.dense.weight"])
    @pytest.mark.parametrize("scale", [np.nan, np.inf, -0.5])
    def test_scales_that_are_none(
        self, packed: Path, tmp_path: Path, name: str, scale: float
    ) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            tensors[f"{name}.scales"][1] = scale

        folder = altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{name}' is damaged: its scales are not all finite")

    @pytest.mark.parametrize("name", [QUERY, "pooler.dense.weight"])
    def test_filling_that_is_not_zero(self, packed: Path, tmp_path: Path, name: str) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            values = tensors[f"{name}.values"]
            values[-1, ..., -1] = 1

        folder = altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{name}' is damaged: the padding")

    def test_bits_behind_the_last_column(self, packed: Path, tmp_path: Path) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            bits = tensors[f"{QUERY}.bits"]
            bits[-1, -1] |= bits.dtype.type(1 << (8 * bits.itemsize - 1))

        folder = altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{QUERY}' is damaged: the stored bits")

    @pytest.mark.parametrize("part", ["values", "scales", "bits"])
    def test_missing_parts(self, packed: Path, tmp_path: Path, part: str) -> None:
        folder = altered(packed, tmp_path / "copy", tensors=lambda t: t.pop(f"{QUERY}.{part}"))
        self.refused(folder, f"lacks '{QUERY}.{part}'")

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_changed_byte_is_read_or_refused(
        self, packed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        read_or_refused(packed, tmp_path_factory.mktemp("flipped"), data)
