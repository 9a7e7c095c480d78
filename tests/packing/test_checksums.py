"""checksums.json: a packed folder that has changed is refused, or accepted by its owner."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from changed_bytes import some_damage, try_damage, write_packed
from sentence_folders import with_modules
from sparsebert.checkpoint.publishing import copy_model
from sparsebert.errors import CheckpointError
from sparsebert.inference.loading import UncheckedWarning, load
from sparsebert.packing import check_answers, open_packed, renew_checksums, unpack

NAME, PACKED = "checksums.json", "packed.safetensors"
TEXT = "A small film."


@pytest.fixture(scope="module", params=["int8", "fp32"])
def original(
    request: Any, tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A packed model that cuts, pools and normalises."""
    root = tmp_path_factory.mktemp("checksums")
    dense = with_modules(tiny_bert(), root / "dense", mode="mean", normalize=True)
    return write_packed(dense, root, dtype=request.param)


@pytest.fixture
def packed(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "packed")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_no_damage_changes_an_answer(packed: Path) -> None:
    found = try_damage(packed, some_damage(packed, each=24, seed=5))
    assert found["silent"] == 0
    assert found["refused"] > 100


def test_the_definition(packed: Path) -> None:
    """As docs/packed-format.md gives it, by an implementation of CRC-32 from its polynomial."""

    def crc32(content: bytes) -> str:
        crc = 0xFFFFFFFF
        for byte in content:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        return f"{crc ^ 0xFFFFFFFF:08x}"

    document = json.loads((packed / NAME).read_text())
    assert document["format_version"] == 1
    assert set(document["files"]) == {
        "1_Pooling/config.json",
        "config.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name, checksum in document["files"].items():
        assert checksum == crc32((packed / name).read_bytes())
    content = (packed / PACKED).read_bytes()
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    assert document["header"] == crc32(header)
    tensors = load_file(packed / PACKED)
    assert document["tensors"].keys() == tensors.keys()
    for name in list(tensors)[:5]:
        assert document["tensors"][name] == crc32(tensors[name].tobytes())


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("config.json", lambda path: edit(path, lambda c: c.update(x=1)), "has changed since"),
        (
            "tokenizer.json",
            lambda path: path.write_text(path.read_text() + " "),
            "has changed since",
        ),
        ("tokenizer_config.json", lambda path: path.unlink(), "is missing"),
        ("modules.json", lambda path: path.write_text("[]"), "has changed since"),
    ],
)
def test_an_edited_file_is_named_with_what_to_do(
    packed: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    change: Callable[[Path], Any],
    complaint: str,
) -> None:
    change(packed / file)
    monkeypatch.chdir(packed.parent)  # of a long path a message shows the two ends
    folder = Path(packed.name)
    with pytest.raises(CheckpointError, match=complaint) as raised:
        load(folder)
    assert str(folder / file) in str(raised.value)
    assert f"`sparsebert inspect {folder} --accept`" in str(raised.value)
    renew_checksums(folder)
    load(folder)


def test_a_damaged_tensor_is_named(packed: Path, tmp_path: Path) -> None:
    content = bytearray((packed / PACKED).read_bytes())
    content[-1] ^= 1
    (packed / PACKED).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged: tensor '.+' has changed since"):
        open_packed(packed)
    with pytest.raises(CheckpointError, match="damaged"):
        unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_model(original: Path, packed: Path, tmp_path: Path) -> None:
    """Whole files that do not belong together."""
    other = shutil.copytree(original, tmp_path / "other")
    edit(other / "config.json", lambda config: config.update(layer_norm_eps=1e-3))
    renew_checksums(other)
    shutil.copy(other / "config.json", packed)
    with pytest.raises(CheckpointError, match=r"config\.json has changed since"):
        load(packed)


def test_an_older_folder_loads_with_a_note(packed: Path, run: Any) -> None:
    expected = load(packed).embed(TEXT)
    (packed / NAME).unlink()
    with pytest.warns(UncheckedWarning, match=f"inspect {packed} --accept"):
        assert np.array_equal(load(packed).embed(TEXT), expected)
    code, out, _ = run("inspect", packed)
    assert code == 0
    assert "packed without checksums" in out
    code, out, _ = run("inspect", packed, "--accept")
    assert code == 0
    said = "Its files are unchanged since it was packed, and so are its answers, to the bit."
    assert said in out
    load(packed)


def test_a_copy_in_memory_outlives_the_file(packed: Path) -> None:
    """What of a mapped file is cut off while it is in use ends the process."""
    expected = load(packed, threads=1).embed(TEXT)
    model = load(packed, threads=1, copied=True)
    again = model.with_own_engine()
    with (packed / PACKED).open("r+b") as file:
        file.truncate(100)
    for each in (model, again):
        assert np.array_equal(each.embed(TEXT), expected)


def test_what_is_made_of_it(packed: Path, tmp_path: Path) -> None:
    """A copy has them, and an unpacked folder is another."""
    load(copy_model(packed, tmp_path / "copy"))
    unpack(packed, tmp_path / "dense")
    assert not (tmp_path / "dense" / NAME).exists()


def test_cards_and_licences_may_be_edited(packed: Path) -> None:
    (packed / "README.md").write_text("mine")
    (packed / "LICENSE").write_text("mine")
    load(packed)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.pop("tensors"), "damaged"),
        (lambda c: c.pop("header"), "damaged"),
        (lambda c: c.update(format_version="1"), "damaged"),
        (lambda c: c.update(files=[]), "damaged"),
        (lambda c: c["files"].update({"config.json": 7}), "damaged"),
        (lambda c: c["files"].update({"config.json": "0"}), "damaged"),
        (lambda c: c.update(format_version=2), "format version 2"),
        (lambda c: c["files"].update({"../dense/config.json": "00000000"}), "is missing"),
    ],
)
def test_damaged_checksums(
    packed: Path, change: Callable[[dict[str, Any]], Any], complaint: str
) -> None:
    edit(packed / NAME, change)
    with pytest.raises(CheckpointError, match=complaint):
        load(packed)


def test_without_them_numbers_that_are_not_finite_are_looked_for(packed: Path, run: Any) -> None:
    """An infinite bias would saturate an activation, and nothing else would tell."""
    tensors = load_file(packed / PACKED)
    content = bytearray((packed / PACKED).read_bytes())
    bias = "encoder.layer.0.output.dense.bias"
    place = content.index(tensors[bias].tobytes())
    content[place : place + 4] = np.float32(np.inf).tobytes()
    (packed / PACKED).write_bytes(content)
    code, _, error = run("inspect", packed, "--accept")
    assert code == 1
    assert f"tensor '{bias}' holds 1 values that are NaN or infinite" in error
    (packed / NAME).unlink()
    with pytest.raises(CheckpointError, match=bias):
        open_packed(packed)


class TestAnswers:
    def test_are_asked_again(self, packed: Path) -> None:
        found = check_answers(open_packed(packed))
        assert found is not None
        assert found.exact
        assert found.difference == 0

    def test_of_another_instruction_set_are_near(
        self, packed: Path, isa: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPARSEBERT_ISA", isa)
        found = check_answers(open_packed(packed))
        assert found is not None
        assert found.fine

    @pytest.mark.parametrize("by", [1e-3, 1.0])
    def test_that_differ(self, packed: Path, run: Any, by: float) -> None:
        """In int8 any difference is one, in floats more than instructions may make."""

        def change(document: dict[str, Any]) -> None:
            answers = document["answers"]
            answers["crc32"] = "00000000"
            answers["values"][0] += by * max(map(abs, answers["values"]))

        edit(packed / NAME, change)
        code, out, _ = run("inspect", packed)
        assert code == 1
        assert "BROKEN: its files are unchanged since it was packed, but its answers are not" in out

    @pytest.mark.parametrize("values", [None, [], [1.0], ["x"] * 64, 7])
    def test_that_are_no_numbers(self, packed: Path, values: Any) -> None:
        edit(packed / NAME, lambda document: document["answers"].update(values=values))
        assert check_answers(open_packed(packed)) is None
