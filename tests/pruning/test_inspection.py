"""What `inspect` sees in dense, sparse, broken and packed folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from sparsebert.errors import CheckpointError
from sparsebert.packing import pack
from sparsebert.pruning import Inspection, LayerReport, inspect, prune

QUERY = "encoder.layer.0.attention.self.query.weight"


def layer(inspection: Inspection, name: str) -> LayerReport:
    return next(layer for layer in inspection.layers if layer.name == name)


def test_a_dense_model(tmp_path: Path) -> None:
    found = inspect(write_bert(tmp_path / "m", "sequence-classification"))
    assert (found.form, found.head, found.pattern) == ("dense", "sequence-classification", None)
    assert len(found.layers) == 14
    assert found.whole
    assert found.zeros == 0
    assert [layer.part for layer in found.layers[-2:]] == ["pooler", "head"]
    assert (found.layers[4].rows, found.layers[4].columns) == (24, 8)


def test_a_pruned_model(tmp_path: Path) -> None:
    prune(write_bert(tmp_path / "m"), tmp_path / "sparse", pattern="2:4")
    found = inspect(tmp_path / "sparse")
    assert (found.form, found.pattern, found.whole) == ("sparse", "2:4", True)
    query = layer(found, QUERY)
    assert (query.zeros, query.pattern, query.recorded) == (0.5, "2:4", "2:4")
    pooler = layer(found, "pooler.dense.weight")
    assert (pooler.zeros, pooler.pattern, pooler.recorded) == (0, None, None)
    assert found.zeros == pytest.approx(0.5 * (1 - 64 / (2 * 640 + 64)))


def test_zeros_that_nothing_records(tmp_path: Path) -> None:
    config = bert_config()
    tensors = bert_tensors(config)
    tensors["pooler.dense.weight"] = prune_by_hand(tensors["pooler.dense.weight"])
    tensors["pooler.dense.weight"][0, :2] = 0  # a pair may hold two zeros
    found = inspect(write_folder(tmp_path / "m", config, tensors))
    assert (found.form, found.pattern, found.whole) == ("sparse", None, True)
    pooler = layer(found, "pooler.dense.weight")
    assert (pooler.pattern, pooler.recorded, pooler.zeros) == ("1:2", None, 33 / 64)


def test_a_broken_pattern_is_counted_and_not_raised(tmp_path: Path) -> None:
    prune(write_bert(tmp_path / "m"), tmp_path / "sparse")
    path = tmp_path / "sparse" / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    zeros = np.argwhere(tensors[QUERY] == 0)
    for row, column in zeros[:3]:
        tensors[QUERY][row, column] = 1e-9
    save_file(tensors, path)
    found = inspect(tmp_path / "sparse")
    assert not found.whole
    query = layer(found, QUERY)
    assert (query.broken_groups, query.revived, query.whole) == (3, 3, False)
    assert (query.recorded, query.pattern) == ("1:2", None)
    assert sum(not layer.whole for layer in found.layers) == 1


def test_a_weight_that_moved_within_its_pair_breaks_the_stored_mask(tmp_path: Path) -> None:
    prune(write_bert(tmp_path / "m"), tmp_path / "sparse")
    path = tmp_path / "sparse" / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    tensors[QUERY][0, :2] = tensors[QUERY][0, 1::-1]
    save_file(tensors, path)
    query = layer(inspect(tmp_path / "sparse"), QUERY)
    assert (query.broken_groups, query.revived, query.whole) == (0, 1, False)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_packed_model(tmp_path: Path, dtype: str) -> None:
    prune(write_bert(tmp_path / "m"), tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype=dtype)
    found, sparse = inspect(tmp_path / "packed"), inspect(tmp_path / "sparse")
    assert (found.form, found.pattern, found.whole) == ("packed", "1:2", True)
    assert found.layers == sparse.layers
    assert found.zeros == sparse.zeros


def test_it_turns_into_json(tmp_path: Path) -> None:
    found = inspect(write_bert(tmp_path / "m"))
    document = json.loads(json.dumps(found.to_dict()))
    assert document["whole"] is True
    assert document["layers"][0]["name"] == QUERY
    assert document["layers"][0]["whole"] is True


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    inspect(write_bert(tmp_path / "m"), progress=lambda *step: told.append(step))
    assert told == [("inspecting", done, 13) for done in range(14)]


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a model folder"):
        inspect(tmp_path)
