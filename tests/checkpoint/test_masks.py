"""Masks: stored ones are believed while the weights agree, else zeros and records speak."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_folder
from sparsebert.checkpoint import MASKS_NAME, Checkpoint, open_checkpoint, read_masks, write_masks
from sparsebert.errors import CheckpointError, PatternError

QUERY = "encoder.layer.0.attention.self.query.weight"
OUTPUT = "encoder.layer.1.output.dense.weight"
POOLER = "pooler.dense.weight"


def sparse_folder(
    folder: Path,
    names: tuple[str, ...] = (QUERY, OUTPUT),
    record: bool = False,
    n: int = 1,
    m: int = 2,
) -> Path:
    """A model with these matrices pruned by hand, and with or without saying so."""
    config = bert_config()
    tensors = bert_tensors(config)
    for name in names:
        tensors[name] = prune_by_hand(tensors[name], n, m)
    if record:
        config["sparsity"] = {
            "format_version": 1,
            "pattern": f"{n}:{m}",
            "method": "magnitude",
            "layers": list(names),
            "lineage": [],
        }
    return write_folder(folder, config, tensors)


def change(checkpoint: Checkpoint, name: str, place: tuple[int, int], value: float) -> Checkpoint:
    """The same folder with one weight changed."""
    path = checkpoint.path / "model.safetensors"
    tensors = {key: array.copy() for key, array in load_file(path).items()}
    tensors[name][place] = value
    save_file(tensors, path)
    return open_checkpoint(checkpoint.path)


def test_a_dense_model_has_none(tmp_path: Path) -> None:
    assert read_masks(open_checkpoint(sparse_folder(tmp_path / "m", ()))) == {}


@pytest.mark.parametrize("record", [True, False])
def test_zeros_are_read_layer_by_layer(tmp_path: Path, record: bool) -> None:
    """With no record at all, and in the pooler too, as in the reference model."""
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m", (QUERY, OUTPUT, POOLER), record))
    masks = read_masks(checkpoint)
    assert list(masks) == [QUERY, OUTPUT, POOLER]
    for name, mask in masks.items():
        assert np.array_equal(mask, checkpoint.weight(name) != 0)


def test_a_record_of_a_pattern_outside_the_known_ones_is_used(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m", (QUERY,), True, n=3, m=4))
    assert np.array_equal(read_masks(checkpoint)[QUERY], checkpoint.weight(QUERY) != 0)
    unknown = open_checkpoint(sparse_folder(tmp_path / "u", (QUERY,), False, n=3, m=4))
    assert read_masks(unknown) == {}


def test_a_kept_weight_that_is_zero_stays_kept_if_masks_are_stored(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m"))
    masks = read_masks(checkpoint)
    row, column = map(int, np.argwhere(masks[QUERY][:, 1::2])[0] * (1, 2) + (0, 1))
    write_masks(checkpoint.path, masks)
    checkpoint = change(checkpoint, QUERY, (row, column), 0.0)
    assert read_masks(checkpoint)[QUERY][row, column]
    (checkpoint.path / MASKS_NAME).unlink()
    assert not read_masks(checkpoint)[QUERY][row, column]  # the zeros alone cannot tell


def test_masks_come_back_from_the_file(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m"))
    masks = read_masks(checkpoint)
    write_masks(tmp_path / "m", masks)
    write_masks(tmp_path / "other.safetensors", masks)
    assert (tmp_path / "other.safetensors").read_bytes() == (
        tmp_path / "m" / MASKS_NAME
    ).read_bytes()
    stored = load_file(tmp_path / "m" / MASKS_NAME)
    assert stored[OUTPUT].shape == (8, 3)  # 24 inputs, one bit each
    again = read_masks(checkpoint)
    assert all(np.array_equal(again[name], mask) for name, mask in masks.items())


def test_a_layer_the_file_leaves_out_is_read_from_its_zeros(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m", (QUERY, POOLER)))
    masks = read_masks(checkpoint)
    write_masks(checkpoint.path, {QUERY: masks[QUERY]})
    assert list(read_masks(checkpoint)) == [QUERY, POOLER]


def test_a_weight_outside_its_stored_mask_names_the_layer(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m", record=True))
    masks = read_masks(checkpoint)
    write_masks(checkpoint.path, masks)
    place = tuple(map(int, np.argwhere(~masks[OUTPUT])[5]))
    with pytest.raises(PatternError, match=f"'{OUTPUT}'.*1 weights that its mask prunes"):
        read_masks(change(checkpoint, OUTPUT, place, 0.25))


def test_a_broken_record_names_the_layer(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sparse_folder(tmp_path / "m", record=True))
    place = tuple(map(int, np.argwhere(checkpoint.weight(QUERY) == 0)[0]))
    with pytest.raises(PatternError, match=f"'{QUERY}' is recorded as 1:2, but 1 groups"):
        read_masks(change(checkpoint, QUERY, place, 1e-20))


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        (
            "encoder.layer.9.output.dense.weight",
            np.zeros((8, 3), np.uint8),
            "which is not a layer of the model",
        ),
        (
            "embeddings.word_embeddings.weight",
            np.zeros((11, 1), np.uint8),
            "which is not a layer of the model",
        ),
        (QUERY, np.zeros((8, 2), np.uint8), "does not fit"),
        (QUERY, np.zeros((7, 1), np.uint8), "does not fit"),
        (QUERY, np.zeros((8, 1), np.int8), "does not fit"),
        (QUERY, np.zeros(8, np.uint8), "does not fit"),
        (QUERY, np.zeros((8, 1), np.uint8), "does not follow an N:M pattern"),
        (QUERY, np.full((8, 1), 255, np.uint8), "does not follow an N:M pattern"),
    ],
)
def test_damaged_masks_are_refused(
    tmp_path: Path, name: str, array: np.ndarray, complaint: str
) -> None:
    folder = sparse_folder(tmp_path / "m")
    save_file({name: array}, folder / MASKS_NAME)
    with pytest.raises(CheckpointError, match=complaint):
        read_masks(open_checkpoint(folder))


def test_a_masks_file_that_is_none(tmp_path: Path) -> None:
    folder = sparse_folder(tmp_path / "m")
    (folder / MASKS_NAME).write_text("nonsense")
    with pytest.raises(CheckpointError, match=r"masks\.safetensors is not a valid"):
        read_masks(open_checkpoint(folder))


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    write_masks(tmp_path, {QUERY: np.array([[True, False]])})
    header = (tmp_path / MASKS_NAME).read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["sparsebert"]) == {"format_version": 1, "kind": "masks"}
