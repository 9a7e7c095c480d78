"""Safetensors files, mapped to read and streamed to write; the library itself is the judge."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sparsebert.checkpoint import TensorFiles, TensorSpec, write_tensors
from sparsebert.errors import CheckpointError


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file of the format's form around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


class TestReading:
    def test_tensors_are_read_only_views_of_the_file(self, tmp_path: Path) -> None:
        wanted = {
            "a": np.arange(12, dtype=np.float32).reshape(3, 4),
            "b": np.array([1, -2], dtype=np.int64),
            "c": np.array([1.5, -0.0], dtype=np.float16),
            "d": np.array(True),
            "e": np.zeros((0, 3), dtype=np.float32),
        }
        save_file(wanted, tmp_path / "x.safetensors", metadata={"format": "pt", "more": "text"})
        tensors = TensorFiles([tmp_path / "x.safetensors"])
        assert set(tensors) == set(wanted)
        assert len(tensors) == 5
        assert tensors.metadata == {"format": "pt", "more": "text"}
        for name, array in wanted.items():
            assert tensors[name].dtype == array.dtype
            assert tensors[name].shape == array.shape
            assert tensors[name].tobytes() == array.tobytes()
        assert not tensors["a"].flags.writeable
        assert not tensors["a"].flags.owndata
        assert tensors["a"].ctypes.data == tensors["a"].ctypes.data
        assert tensors.spec("c") == TensorSpec("c", "F16", (2,))
        assert tensors.nbytes == 48 + 16 + 4 + 1

    def test_bfloat16_comes_as_its_words(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import save_file as save_torch

        save_torch({"x": torch.tensor([1.0, -2.0]).bfloat16()}, tmp_path / "x.safetensors")
        tensors = TensorFiles([tmp_path / "x.safetensors"])
        assert tensors.spec("x").dtype == "BF16"
        assert tensors["x"].tolist() == [0x3F80, 0xC000]

    def test_unaligned_data_is_copied_into_place(self, tmp_path: Path) -> None:
        header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        text = json.dumps(header).encode()
        text += b" " * ((1 - len(text)) % 4)  # so that the data starts at an odd place
        path = raw_file(tmp_path / "x", text, np.array([1, 2], np.float32).tobytes())
        tensor = TensorFiles([path])["x"]
        assert tensor.tolist() == [1, 2]
        assert tensor.flags.aligned
        assert not tensor.flags.writeable

    def test_what_was_mapped_outlives_the_files_name(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        save_file({"x": np.ones(3, np.float32)}, path)
        tensor = TensorFiles([path])["x"]
        path.unlink()
        assert tensor.tolist() == [1, 1, 1]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x08",
            b"\0" * 8,
            b"not a safetensors file at all",
            (2**63).to_bytes(8, "little") + b"{}",
            (10**6).to_bytes(8, "little") + b"{}",
            (2).to_bytes(8, "little") + b"[]",
            (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        ],
        ids=["empty", "short", "zeros", "text", "huge", "long", "list", "not text"],
    )
    def test_other_files_are_refused_by_name(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a valid safetensors"):
            TensorFiles([path])

    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]},
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
            {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]},
            {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
            {"dtype": "F32"},
        ],
        ids=["beyond", "size", "hole", "backwards", "overflow", "type", "negative", "bare"],
    )
    def test_headers_that_lie_are_refused(self, tmp_path: Path, entry: dict[str, object]) -> None:
        path = raw_file(tmp_path / "m.safetensors", {"x": entry}, bytes(8))
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            TensorFiles([path])

    def test_overlapping_tensors_are_refused(self, tmp_path: Path) -> None:
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        path = raw_file(tmp_path / "m.safetensors", {"x": entry, "y": entry}, bytes(8))
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            TensorFiles([path])

    @pytest.mark.parametrize("cut", [1, 5, 50, 100])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "m.safetensors"
        save_file({"x": np.zeros(32, np.float32)}, path)
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            TensorFiles([path])

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
            TensorFiles([tmp_path / "gone.safetensors"])

    @settings(max_examples=60)
    @given(st.data())
    def test_any_damage_is_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Change bytes anywhere in the header: an error of ours, or whole tensors; no crash."""
        path = tmp_path_factory.mktemp("damage") / "m.safetensors"
        save_file({"x": np.zeros((2, 3), np.float32), "y": np.zeros(4, np.int64)}, path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, 139))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            tensors = TensorFiles([path])
        except CheckpointError:
            return
        for name in tensors:
            _ = tensors[name].sum()


class TestShards:
    def write(self, folder: Path, **weight_map: str) -> None:
        save_file({"x": np.ones(2, np.float32)}, folder / "one.safetensors")
        save_file({"y": np.zeros(3, np.float32)}, folder / "two.safetensors")
        index = {"weight_map": weight_map or {"x": "one.safetensors", "y": "two.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def test_tensors_of_all_shards_are_there(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        tensors = TensorFiles.of_folder(tmp_path)
        assert {name: tensors[name].shape for name in tensors} == {"x": (2,), "y": (3,)}

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        (tmp_path / "two.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"two\.safetensors is missing"):
            TensorFiles.of_folder(tmp_path)

    def test_every_shard_is_validated(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        (tmp_path / "two.safetensors").write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match=r"two\.safetensors is not a valid"):
            TensorFiles.of_folder(tmp_path)

    def test_a_tensor_in_another_shard_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path, x="two.safetensors", y="two.safetensors")
        with pytest.raises(CheckpointError, match="lacks tensor 'x'"):
            TensorFiles.of_folder(tmp_path)

    @pytest.mark.parametrize(
        "name",
        ["../one.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "c:x"],
    )
    def test_shards_outside_the_folder_are_refused(self, tmp_path: Path, name: str) -> None:
        self.write(tmp_path, x=name)
        with pytest.raises(CheckpointError, match=r"index\.json names"):
            TensorFiles.of_folder(tmp_path)

    @pytest.mark.parametrize(
        "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"x": 1}}']
    )
    def test_a_malformed_index_is_refused(self, tmp_path: Path, index: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            TensorFiles.of_folder(tmp_path)

    def test_a_tensor_in_two_shards_is_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        both = {"x": np.ones(2, np.float32), "y": np.ones(1, np.float32)}
        save_file(both, tmp_path / "two.safetensors")
        with pytest.raises(CheckpointError, match="'x' also appears in another file"):
            TensorFiles.of_folder(tmp_path)


class TestWriting:
    def test_the_library_reads_what_was_written(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        arrays = {
            "odd": random.integers(0, 9, 3).astype(np.uint8),
            "f16": random.standard_normal((3, 5)).astype(np.float16),
            "f32": random.standard_normal((7, 9)).astype(np.float32),
            "i64": random.integers(0, 9, (1, 5)),
            "none": np.zeros((0, 4), np.float32),
            "scalar": np.array(3.5, np.float64),
            "bool": np.array([True, False]),
            "wide": random.standard_normal((4, 16)).astype(np.float32),
        }
        types = ["U8", "F16", "F32", "I64", "F32", "F64", "BOOL", "F32"]
        specs = [
            TensorSpec(name, dtype, array.shape)
            for (name, array), dtype in zip(arrays.items(), types, strict=True)
        ]
        path = tmp_path / "out.safetensors"
        write_tensors(path, specs, arrays.values(), {"format": "pt", "ключ": "значение"})
        loaded = load_file(path)
        assert set(loaded) == set(arrays)
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype
            assert loaded[name].shape == array.shape
            assert loaded[name].tobytes() == array.tobytes()
        with safe_open(path, framework="np") as file:
            assert file.metadata() == {"format": "pt", "ключ": "значение"}
        tensors = TensorFiles([path])
        for name in ("f16", "f32", "i64", "scalar", "wide"):
            assert tensors[name].ctypes.data % tensors[name].itemsize == 0
            assert not tensors[name].flags.owndata
        assert tensors["wide"].ctypes.data % 64 == 0
        assert [p.name for p in tmp_path.iterdir()] == ["out.safetensors"]

    @given(st.lists(st.tuples(st.sampled_from(["U8", "F16", "F32", "I64"]), st.integers(0, 70))))
    @settings(max_examples=50, deadline=None)
    def test_every_tensor_is_aligned(
        self, tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[str, int]]
    ) -> None:
        path = tmp_path_factory.mktemp("aligned") / "x.safetensors"
        kinds = {"U8": "u1", "F16": "<f2", "F32": "<f4", "I64": "<i8"}
        specs = [TensorSpec(f"t{i}", dtype, (n,)) for i, (dtype, n) in enumerate(shapes)]
        arrays = [np.full(n, i, kinds[dtype]) for i, (dtype, n) in enumerate(shapes)]
        write_tensors(path, specs, arrays, {})
        tensors = TensorFiles([path])
        for spec, array in zip(specs, arrays, strict=True):
            assert tensors[spec.name].tolist() == array.tolist()
            if array.size:
                assert not tensors[spec.name].flags.owndata  # no copy: it lay aligned
                if array.nbytes % 64 == 0:
                    assert tensors[spec.name].ctypes.data % 64 == 0

    def test_one_tensor_at_a_time_is_asked_for(self, tmp_path: Path) -> None:
        """The next array is made only after the one before is written."""
        alive: list[int] = []

        class Watched(np.ndarray):
            def __del__(self) -> None:
                if self.base is None:
                    alive.append(-1)

        def arrays() -> Iterator[np.ndarray]:
            for _ in range(4):
                alive.append(1)
                assert sum(alive) <= 2  # the one being written may still be held
                yield np.zeros(1000, np.float32).view(Watched).copy()

        specs = [TensorSpec(f"t{i}", "F32", (1000,)) for i in range(4)]
        write_tensors(tmp_path / "x.safetensors", specs, arrays(), {})

    def test_views_with_strides_are_written_in_order(self, tmp_path: Path) -> None:
        array = np.arange(6, dtype=np.float32).reshape(2, 3).T
        write_tensors(tmp_path / "x", [TensorSpec("x", "F32", (3, 2))], [array], {})
        assert load_file(tmp_path / "x")["x"].tolist() == array.tolist()

    def test_types_numpy_lacks_are_carried(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save_torch

        wanted = {
            "bf16": torch.randn(3, 5).bfloat16(),
            "f8": torch.randn(7).to(torch.float8_e4m3fn),
            "c64": torch.tensor([1 + 2j]),
        }
        save_torch(wanted, tmp_path / "a")
        tensors = TensorFiles([tmp_path / "a"])
        specs = [tensors.spec(name) for name in tensors]
        write_tensors(tmp_path / "b", specs, [tensors[name] for name in tensors], {})
        loaded = load_torch(tmp_path / "b")
        for name, tensor in wanted.items():
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8))

    @pytest.mark.parametrize("failure", ["full", "interrupt", "short", "long", "shape", "type"])
    def test_a_failure_leaves_the_old_file_and_no_other(self, tmp_path: Path, failure: str) -> None:
        path = tmp_path / "x.safetensors"
        save_file({"old": np.ones(3, np.float32)}, path)
        before = path.read_bytes()
        good = np.zeros(4, np.float32)

        def arrays() -> Iterator[np.ndarray]:
            yield good
            if failure == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            if failure == "interrupt":
                raise KeyboardInterrupt
            if failure == "shape":
                yield np.zeros(5, np.float32)
            if failure == "type":
                yield np.zeros(4, np.float64)
            if failure == "long":
                yield good
                yield good

        specs = [TensorSpec("a", "F32", (4,)), TensorSpec("b", "F32", (4,))]
        with pytest.raises((OSError, KeyboardInterrupt, ValueError)):
            write_tensors(path, specs, arrays(), {})
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]

    def test_two_tensors_of_one_name_are_refused(self, tmp_path: Path) -> None:
        spec = TensorSpec("a", "U8", (1,))
        with pytest.raises(ValueError, match="same name"):
            write_tensors(tmp_path / "x", [spec, spec], [np.zeros(1, np.uint8)] * 2, {})

    def test_the_file_has_ordinary_permissions(self, tmp_path: Path) -> None:
        ordinary = tmp_path / "plain"
        ordinary.touch()
        write_tensors(tmp_path / "x", [], [], {})
        assert (tmp_path / "x").stat().st_mode == ordinary.stat().st_mode
