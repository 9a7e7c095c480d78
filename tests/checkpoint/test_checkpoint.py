"""Opening model folders: every head and spelling that is out there, and every way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, write_bert, write_folder
from sparsebert.checkpoint import Head, open_checkpoint
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

HEADS = [head.value for head in Head]
TensorsChange = Callable[[dict[str, np.ndarray]], Any]


def change_tensors(folder: Path, change: TensorsChange) -> Path:
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class TestOpening:
    @pytest.mark.parametrize("head", HEADS)
    def test_what_transformers_saves_opens(self, tiny_bert: Any, head: str) -> None:
        """Every parameter of the transformers model is found under its canonical name."""
        folder = tiny_bert(head)
        checkpoint = open_checkpoint(folder)
        assert checkpoint.config.head.value == head
        stored = load_file(folder / "model.safetensors")
        assert set(checkpoint.stored_name.values()) == set(stored)
        for name in checkpoint.used:
            array = stored[checkpoint.stored_name[name]]
            assert not name.startswith("bert.")
            assert checkpoint.weight(name).tobytes() == array.tobytes()
            assert not checkpoint.weight(name).flags.owndata

    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("prefixed", [True, False])
    def test_with_and_without_the_prefix(self, tmp_path: Path, head: str, prefixed: bool) -> None:
        config = bert_config(head)
        tensors = {
            ("" if name.startswith(("cls.", "classifier", "qa_")) or not prefixed else "bert.")
            + name.removeprefix("bert."): array
            for name, array in bert_tensors(config, head).items()
        }
        checkpoint = open_checkpoint(write_folder(tmp_path / "m", config, tensors))
        name = "encoder.layer.1.attention.self.query.weight"
        assert checkpoint.stored_name[name] == ("bert." if prefixed else "") + name
        assert checkpoint.weight(name).shape == (8, 8)

    def test_the_names_of_2018_are_read(self, tmp_path: Path) -> None:
        config = bert_config("masked-lm")
        tensors = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): array
            for name, array in bert_tensors(config, "masked-lm").items()
        }
        checkpoint = open_checkpoint(write_folder(tmp_path / "m", config, tensors))
        stored = checkpoint.stored_name["encoder.layer.0.output.LayerNorm.weight"]
        assert stored == "bert.encoder.layer.0.output.LayerNorm.gamma"
        assert "cls.predictions.transform.LayerNorm.bias" in checkpoint.used

    def test_extras_are_known_but_not_used(self, tmp_path: Path) -> None:
        def add(tensors: dict[str, np.ndarray]) -> None:
            tensors["bert.embeddings.position_ids"] = np.arange(16)[None]
            tensors["cls.seq_relationship.weight"] = np.zeros((2, 8), np.float32)

        folder = change_tensors(write_bert(tmp_path / "m", "masked-lm"), add)
        checkpoint = open_checkpoint(folder)
        assert checkpoint.stored_name["embeddings.position_ids"] == "bert.embeddings.position_ids"
        assert "embeddings.position_ids" not in checkpoint.used
        assert "cls.seq_relationship.weight" not in checkpoint.used

    def test_the_decoder_of_a_masked_lm_may_be_there_or_tied(self, tmp_path: Path) -> None:
        decoder = "cls.predictions.decoder.weight"
        folder = write_bert(tmp_path / "m", "masked-lm")
        assert decoder not in open_checkpoint(folder).stored_name

        def untie(tensors: dict[str, np.ndarray]) -> None:
            tensors[decoder] = np.zeros((11, 8), np.float32)
            tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")

        checkpoint = open_checkpoint(change_tensors(folder, untie))
        assert decoder in checkpoint.used
        bias = checkpoint.stored_name["cls.predictions.bias"]
        assert bias == "cls.predictions.decoder.bias"

    def test_an_untied_decoder_must_be_there(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m", "masked-lm", tie_word_embeddings=False)
        with pytest.raises(CheckpointError, match=r"lacks .*cls\.predictions\.decoder\.weight"):
            open_checkpoint(folder)

    def test_an_adapter_beside_the_weights_is_not_passed_over(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        with pytest.raises(CheckpointError, match=r"PEFT adapter .*merge_and_unload"):
            open_checkpoint(folder)

    def test_the_pooler_may_be_missing_where_nothing_reads_it(self, tmp_path: Path) -> None:
        def without(tensors: dict[str, np.ndarray]) -> None:
            for name in [name for name in tensors if "pooler" in name]:
                del tensors[name]

        plain = open_checkpoint(change_tensors(write_bert(tmp_path / "plain"), without))
        assert not [name for name in plain.used if "pooler" in name]
        classifier = write_bert(tmp_path / "classifier", "sequence-classification")
        with pytest.raises(CheckpointError, match=r"pooler\.dense\.weight"):
            open_checkpoint(change_tensors(classifier, without))

    def test_half_a_pooler_is_damage(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")
        change_tensors(folder, lambda tensors: tensors.pop("pooler.dense.bias"))
        with pytest.raises(CheckpointError, match=r"lacks .*pooler\.dense\.bias"):
            open_checkpoint(folder)

    def test_shards_open(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        weight_map = {}
        for number, name in enumerate(tensors):
            shard = f"model-{number % 3 + 1:05}-of-00003.safetensors"
            weight_map[name] = shard
        for shard in set(weight_map.values()):
            save_file({n: tensors[n] for n, s in weight_map.items() if s == shard}, folder / shard)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        checkpoint = open_checkpoint(folder)
        for name, array in tensors.items():
            assert checkpoint.weight(name).tobytes() == array.tobytes()

    def test_half_precision_is_widened(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save_torch

        for dtype in (torch.float16, torch.bfloat16):
            folder = write_bert(tmp_path / str(dtype))
            tensors = load_torch(folder / "model.safetensors")
            halves = {name: tensor.to(dtype) for name, tensor in tensors.items()}
            save_torch(halves, folder / "model.safetensors")
            checkpoint = open_checkpoint(folder)
            for name, half in halves.items():
                assert checkpoint.weight(name).dtype == np.float32
                assert np.array_equal(checkpoint.weight(name), half.float().numpy())

    def test_linear_layers_in_order(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(write_bert(tmp_path / "m", "sequence-classification"))
        encoder = checkpoint.linear_layers()
        assert len(encoder) == 12
        assert [layer.name for layer in encoder[:6]] == [
            "encoder.layer.0.attention.self.query.weight",
            "encoder.layer.0.attention.self.key.weight",
            "encoder.layer.0.attention.self.value.weight",
            "encoder.layer.0.attention.output.dense.weight",
            "encoder.layer.0.intermediate.dense.weight",
            "encoder.layer.0.output.dense.weight",
        ]
        assert (encoder[4].rows, encoder[4].columns) == (24, 8)
        assert (encoder[5].rows, encoder[5].columns) == (8, 24)
        assert encoder[0].stored_as == "bert.encoder.layer.0.attention.self.query.weight"
        others = checkpoint.linear_layers(("pooler", "head"))
        assert [(layer.name, layer.part) for layer in others] == [
            ("pooler.dense.weight", "pooler"),
            ("classifier.weight", "head"),
        ]

    def test_the_word_embeddings_are_not_a_linear_layer(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(write_bert(tmp_path / "m", "masked-lm"))
        names = [layer.name for layer in checkpoint.linear_layers(("head",))]
        assert names == ["cls.predictions.transform.dense.weight"]

    def test_ten_layers_and_more_are_in_order(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(write_bert(tmp_path / "m", num_hidden_layers=11))
        names = [layer.name for layer in checkpoint.linear_layers()]
        assert names[-1] == "encoder.layer.10.output.dense.weight"
        assert names[12].startswith("encoder.layer.2.")


class TestRefusing:
    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="nowhere is not a folder"):
            open_checkpoint(tmp_path / "nowhere")
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match="is a file"):
            open_checkpoint(tmp_path / "file")
        with pytest.raises(CheckpointError, match="no model was named"):
            open_checkpoint("")

    def test_a_folder_without_a_config(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"not a model folder: it has no config\.json"):
            open_checkpoint(tmp_path)

    def test_a_folder_without_weights(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="has no weights"):
            open_checkpoint(folder)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
    def test_a_folder_of_pickles_says_how_to_convert_it(self, tmp_path: Path, name: str) -> None:
        folder = write_bert(tmp_path / "m")
        (folder / "model.safetensors").unlink()
        (folder / name).touch()
        with pytest.raises(CheckpointError, match="run `sparsebert convert .*m OUT`"):
            open_checkpoint(folder)

    def test_a_packed_folder_says_how_to_unpack_it(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")
        (folder / "model.safetensors").rename(folder / "packed.safetensors")
        with pytest.raises(CheckpointError, match="sparsebert unpack"):
            open_checkpoint(folder)

    def test_an_unsupported_model_is_named_before_its_tensors(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m", model_type="deberta")
        (folder / "model.safetensors").write_bytes(b"whatever")
        with pytest.raises(UnsupportedArchitectureError, match="'deberta'"):
            open_checkpoint(folder)

    def test_missing_tensors_are_named(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m")

        def remove(tensors: dict[str, np.ndarray]) -> None:
            for name in [name for name in tensors if ".layer.1." in name]:
                del tensors[name]

        with pytest.raises(CheckpointError, match=r"layer\.1\.attention\.self.*and 13 more"):
            open_checkpoint(change_tensors(folder, remove))

    def test_more_layers_than_the_config_has(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m", num_hidden_layers=3)
        config = bert_config(num_hidden_layers=2)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="more layers than the 2"):
            open_checkpoint(folder)

    @pytest.mark.parametrize("name", sorted(bert_tensors(bert_config())))
    def test_every_shape_is_checked(self, tmp_path: Path, name: str) -> None:
        def grow(tensors: dict[str, np.ndarray]) -> None:
            tensors[name] = np.concatenate([tensors[name], tensors[name]])

        with pytest.raises(CheckpointError, match=f"'{name}' has shape"):
            open_checkpoint(change_tensors(write_bert(tmp_path / "m"), grow))

    def test_labels_must_match_the_classifier(self, tmp_path: Path) -> None:
        folder = write_bert(tmp_path / "m", "sequence-classification")
        config = bert_config("sequence-classification", id2label={"0": "a", "1": "b"})
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"'classifier.weight' has shape \[3, 8\]"):
            open_checkpoint(folder)

    @pytest.mark.parametrize("dtype", [np.int8, np.float64, np.int64, np.bool_])
    def test_weights_of_other_types(self, tmp_path: Path, dtype: Any) -> None:
        def retype(tensors: dict[str, np.ndarray]) -> None:
            tensors["pooler.dense.weight"] = tensors["pooler.dense.weight"].astype(dtype)

        with pytest.raises(CheckpointError, match=r"'pooler\.dense\.weight' is stored as"):
            open_checkpoint(change_tensors(write_bert(tmp_path / "m"), retype))

    def test_one_tensor_under_two_names(self, tmp_path: Path) -> None:
        def double(tensors: dict[str, np.ndarray]) -> None:
            tensors["bert.pooler.dense.bias"] = tensors["pooler.dense.bias"]

        with pytest.raises(CheckpointError, match="which are two names of one tensor"):
            open_checkpoint(change_tensors(write_bert(tmp_path / "m"), double))

    @pytest.mark.parametrize(
        ("layers", "pattern"),
        [(["encoder.layer.7.output.dense.weight"], "1:2"), (["pooler.dense.weight"], "1:3")],
    )
    def test_a_record_of_what_the_model_cannot_have(
        self, tmp_path: Path, layers: list[str], pattern: str
    ) -> None:
        record = {"format_version": 1, "pattern": pattern, "layers": layers, "lineage": []}
        folder = write_bert(tmp_path / "m", sparsity=record)
        with pytest.raises(CheckpointError, match="'sparsity'"):
            open_checkpoint(folder)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_counted(self, tmp_path: Path, value: float) -> None:
        def spoil(tensors: dict[str, np.ndarray]) -> None:
            tensors["pooler.dense.weight"][3, 4:6] = value

        checkpoint = open_checkpoint(change_tensors(write_bert(tmp_path / "m"), spoil))
        assert np.isfinite(checkpoint.finite_weight("pooler.dense.bias")).all()
        with pytest.raises(CheckpointError, match=r"'pooler\.dense\.weight' holds 2 values"):
            checkpoint.finite_weight("pooler.dense.weight")


def test_the_real_model_opens(minilm: Path) -> None:
    checkpoint = open_checkpoint(minilm)
    assert checkpoint.config.head is Head.ENCODER
    assert len(checkpoint.linear_layers()) == 36
    assert checkpoint.pooling is not None
    assert checkpoint.pooling.normalize
    shape = checkpoint.weight("embeddings.word_embeddings.weight").shape
    assert shape == (30522, 384)
