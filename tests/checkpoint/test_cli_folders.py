"""The verbs that turn folders into folders: convert, prune, pack, unpack; and inspect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from commands import invoke
from sparsebert.checkpoint import open_checkpoint, read_masks


def test_the_whole_way(tmp_path: Path) -> None:
    write_bert(tmp_path / "m")
    pruned = invoke("prune", tmp_path / "m", tmp_path / "sparse")
    assert pruned.exit_code == 0, pruned.output
    assert "12 layers pruned to 1:2, 640 of their 1,280 weights are zero" in pruned.stdout
    packed = invoke("pack", tmp_path / "sparse", tmp_path / "packed", "--dtype", "fp16")
    assert packed.exit_code == 0, packed.output
    assert "12 1:2 layers compressed, 1 dense" in packed.stdout
    unpacked = invoke("unpack", tmp_path / "packed", tmp_path / "back")
    assert unpacked.exit_code == 0, unpacked.output
    assert "values rounded to fp16" in unpacked.stdout
    converted = invoke("convert", tmp_path / "back", tmp_path / "copy")
    assert converted.exit_code == 0, converted.output
    assert "already had safetensors" in converted.stdout
    assert len(read_masks(open_checkpoint(tmp_path / "copy"))) == 12


def test_json_is_one_object_on_standard_output(tmp_path: Path) -> None:
    write_bert(tmp_path / "m")
    for verb, source, out in (
        ("prune", "m", "sparse"),
        ("pack", "sparse", "packed"),
        ("unpack", "packed", "back"),
        ("convert", "back", "copy"),
    ):
        result = invoke(verb, tmp_path / source, tmp_path / out, "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert document["out"] == str(tmp_path / out)
        assert document["seconds"] >= 0
    found = json.loads(invoke("inspect", tmp_path / "packed", "--json").stdout)
    assert (found["form"], found["pattern"], found["whole"]) == ("packed", "1:2", True)
    assert len(found["layers"]) == 13


def test_prune_says_what_was_sparse_already(tmp_path: Path) -> None:
    invoke("prune", write_bert(tmp_path / "m"), tmp_path / "sparse")
    result = invoke("prune", tmp_path / "sparse", tmp_path / "again")
    assert (
        "0 layers pruned to 1:2, 640 of the 1,280 weights of all sparse layers are zero"
        in result.stdout
    )
    assert "by magnitude" not in result.stdout
    assert "12 layers were already 1:2 and keep their masks" in result.stdout


def test_prune_takes_parts_and_patterns(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "m", "sequence-classification")
    options = ["--pattern", "2:4", "--parts", "pooler, head", "--method", "magnitude"]
    assert invoke("prune", source, tmp_path / "sparse", *options).exit_code == 0
    masks = read_masks(open_checkpoint(tmp_path / "sparse"))
    assert list(masks) == ["pooler.dense.weight", "classifier.weight"]


def test_pack_says_when_nothing_is_sparse(tmp_path: Path) -> None:
    result = invoke("pack", write_bert(tmp_path / "m"), tmp_path / "packed")
    assert result.exit_code == 0
    assert "No layer of this model is sparse" in result.stdout


class TestInspect:
    def test_layers_in_a_table(self, tmp_path: Path) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        name = "encoder.layer.1.output.dense.weight"
        tensors[name] = prune_by_hand(tensors[name], 2, 4)
        result = invoke("inspect", write_folder(tmp_path / "m", config, tensors))
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert f"{name}" in lines[12]
        assert lines[12].split()[1:] == ["8", "24", "50.0%", "2:4"]
        assert lines[1].endswith("dense")
        assert "sparse encoder model, 1 of 13 linear layers sparse, 7.1% of" in lines[-1]

    def test_a_whole_pattern_is_said_to_be(self, tmp_path: Path) -> None:
        invoke("prune", write_bert(tmp_path / "m"), tmp_path / "sparse")
        result = invoke("inspect", tmp_path / "sparse")
        assert result.exit_code == 0
        assert "The recorded pattern 1:2 holds in all its 12 layers." in result.stdout

    @pytest.mark.parametrize("masks", [True, False])
    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_a_broken_one_exits_with_1(
        self, tmp_path: Path, masks: bool, options: list[str]
    ) -> None:
        invoke("prune", write_bert(tmp_path / "m"), tmp_path / "sparse")
        dense = load_file(tmp_path / "m" / "model.safetensors")
        save_file(dense, tmp_path / "sparse" / "model.safetensors")
        if not masks:
            (tmp_path / "sparse" / "masks.safetensors").unlink()
        result = invoke("inspect", tmp_path / "sparse", *options)
        assert result.exit_code == 1
        if options:
            assert json.loads(result.stdout)["whole"] is False
        else:
            assert "1:2 BROKEN in 32 groups" in result.stdout
            assert "12 of 13 layers no longer match" in result.stdout


class TestFailures:
    @pytest.mark.parametrize("verb", ["convert", "prune", "pack", "unpack"])
    def test_an_existing_output(self, tmp_path: Path, verb: str) -> None:
        out = write_bert(tmp_path / "out")
        result = invoke(verb, write_bert(tmp_path / "m"), out)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert "exists: remove it, name another folder, or pass --force" in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize("verb", ["convert", "prune", "pack", "unpack", "inspect"])
    def test_no_model(self, tmp_path: Path, verb: str) -> None:
        out = [] if verb == "inspect" else [tmp_path / "out"]
        result = invoke(verb, tmp_path / "none", *out)
        assert result.exit_code == 1
        assert "error: " in result.stderr
        assert "none is not a folder" in result.stderr
        assert "Traceback" not in result.output
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "arguments",
        [
            ["prune", "m", "out", "--pattern", "2:1"],
            ["prune", "m", "out", "--pattern", "half"],
            ["prune", "m", "out", "--method", "luck"],
            ["prune", "m", "out", "--parts", "tail"],
            ["prune", "m", "out", "--parts", ""],
            ["pack", "m", "out", "--dtype", "fp8"],
            ["prune", "m"],
            ["inspect"],
        ],
    )
    def test_wrong_use_exits_with_2(self, arguments: list[str]) -> None:
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr

    @pytest.mark.parametrize("verb", ["convert", "prune", "pack", "unpack"])
    def test_force_replaces(self, tmp_path: Path, verb: str) -> None:
        source = write_bert(tmp_path / "m")
        if verb == "unpack":
            invoke("pack", source, tmp_path / "packed")
            source = tmp_path / "packed"
        result = invoke(verb, source, write_bert(tmp_path / "out"), "--force")
        assert result.exit_code == 0, result.output
