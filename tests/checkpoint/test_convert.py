"""Old pickled weights: converted exactly, tied tensors once, and code in them never run."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.convert import convert
from sparsebert.errors import (
    CheckpointError,
    MissingExtraError,
    OutputError,
    UnsupportedArchitectureError,
)
from sparsebert.pruning import prune

torch = pytest.importorskip("torch")


def torch_state(config: dict[str, Any], head: str = "encoder") -> OrderedDict[str, Any]:
    return OrderedDict(
        (name, torch.from_numpy(array)) for name, array in bert_tensors(config, head).items()
    )


def pickled(folder: Path, head: str = "encoder", state: Any = None, **options: Any) -> Path:
    """A folder with pytorch_model.bin, as it was usual until 2023."""
    config = bert_config(head)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("[PAD]\n")
    state = torch_state(config, head) if state is None else state
    torch.save(state, folder / "pytorch_model.bin", **options)
    return folder


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_what_torch_saved_converts_and_equals(tmp_path: Path, zipped: bool) -> None:
    head = "sequence-classification"
    state = torch_state(bert_config(head), head)
    state["bert.embeddings.position_ids"] = torch.arange(16)[None]
    source = pickled(tmp_path / "old", head, state, _use_new_zipfile_serialization=zipped)
    result = convert(source, tmp_path / "new")
    assert result.source_format == "pytorch"
    assert result.tensors == len(state)
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert set(written) == set(state)
    for name, tensor in state.items():
        assert written[name].dtype == tensor.numpy().dtype
        assert np.array_equal(written[name], tensor.numpy())
    checkpoint = open_checkpoint(tmp_path / "new")
    assert checkpoint.config.raw["sparsity"]["lineage"][0]["step"] == "convert"
    assert (tmp_path / "new" / "vocab.txt").is_file()
    assert not (tmp_path / "new" / "pytorch_model.bin").exists()


def test_transformers_loads_the_result(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    convert(pickled(tmp_path / "old", "masked-lm"), tmp_path / "new")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new")
    wanted = open_checkpoint(tmp_path / "new").weight("encoder.layer.0.output.dense.weight")
    loaded = model.bert.encoder.layer[0].output.dense.weight.detach().numpy()
    assert np.array_equal(loaded, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_type(tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file as load_torch

    kind = getattr(torch, dtype)
    state = {name: tensor.to(kind) for name, tensor in torch_state(bert_config()).items()}
    convert(pickled(tmp_path / "old", state=state), tmp_path / "new")
    written = load_torch(tmp_path / "new" / "model.safetensors")
    for name, tensor in state.items():
        assert written[name].dtype == kind
        assert torch.equal(written[name], tensor)


def test_a_tied_decoder_is_stored_once(tmp_path: Path) -> None:
    state = torch_state(bert_config("masked-lm"), "masked-lm")
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    result = convert(pickled(tmp_path / "old", "masked-lm", state), tmp_path / "new")
    assert result.tied == ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in written
    assert "bert.embeddings.word_embeddings.weight" in written


def test_a_decoder_of_its_own_is_kept(tmp_path: Path) -> None:
    state = torch_state(bert_config("masked-lm"), "masked-lm")
    state["cls.predictions.decoder.weight"] = torch.ones(11, 8)
    result = convert(pickled(tmp_path / "old", "masked-lm", state), tmp_path / "new")
    assert result.tied == []
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert np.array_equal(written["cls.predictions.decoder.weight"], np.ones((11, 8)))


def test_other_tensors_that_share_memory_and_strided_ones(tmp_path: Path) -> None:
    state = torch_state(bert_config())
    shared = torch.randn(8, 8)
    state["encoder.layer.0.attention.self.query.weight"] = shared
    state["encoder.layer.0.attention.self.key.weight"] = shared
    state["encoder.layer.0.attention.self.value.weight"] = shared.T
    state["pooler.dense.weight"] = torch.nn.Parameter(torch.randn(16, 8)[::2])
    convert(pickled(tmp_path / "old", state=state), tmp_path / "new")
    written = load_file(tmp_path / "new" / "model.safetensors")
    for name in state:
        assert np.array_equal(written[name], state[name].detach().numpy())


def test_names_of_2018_become_todays(tmp_path: Path) -> None:
    state = torch_state(bert_config("question-answering"), "question-answering")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }
    convert(pickled(tmp_path / "old", "question-answering", old), tmp_path / "new")
    assert set(load_file(tmp_path / "new" / "model.safetensors")) == set(state)


def test_shards_become_one_file(tmp_path: Path) -> None:
    state = torch_state(bert_config())
    source = pickled(tmp_path / "old")
    (source / "pytorch_model.bin").unlink()
    weight_map = {
        name: f"pytorch_model-0000{number % 2 + 1}-of-00002.bin"
        for number, name in enumerate(state)
    }
    for shard in set(weight_map.values()):
        torch.save({n: state[n] for n, s in weight_map.items() if s == shard}, source / shard)
    index = source / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    convert(source, tmp_path / "new")
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert all(np.array_equal(written[name], tensor.numpy()) for name, tensor in state.items())
    assert not (tmp_path / "new" / index.name).exists()

    (source / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin is missing"):
        convert(source, tmp_path / "again")
    index.write_text(json.dumps({"weight_map": {"x": "../evil.bin"}}))
    with pytest.raises(CheckpointError, match="only plain file names"):
        convert(source, tmp_path / "again")
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no 'weight_map'"):
        convert(source, tmp_path / "again")


def test_a_sparse_model_stays_sparse(tmp_path: Path) -> None:
    """The reference model's own case: zeros in encoder and pooler, and no record of them."""
    names = ["encoder.layer.0.output.dense.weight", "pooler.dense.weight"]
    state = torch_state(bert_config())
    for name in names:
        state[name] = torch.from_numpy(prune_by_hand(state[name].numpy()))
    convert(pickled(tmp_path / "old", state=state), tmp_path / "new")
    assert list(read_masks(open_checkpoint(tmp_path / "new"))) == names


def test_masks_are_kept(tmp_path: Path) -> None:
    """A kept weight that happens to be zero cannot be told from a pruned one without them."""
    sparse = tmp_path / "sparse"
    prune(write_bert(tmp_path / "dense"), sparse)
    convert(sparse, tmp_path / "new")
    masks = (tmp_path / "new" / "masks.safetensors").read_bytes()
    assert masks == (sparse / "masks.safetensors").read_bytes()


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


class TestRefusing:
    @pytest.mark.parametrize("how", ["torch", "torch-legacy", "pickle", "among weights"])
    def test_a_pickle_that_would_run_code_does_not(self, tmp_path: Path, how: str) -> None:
        proof = tmp_path / "it-ran"
        evil: Any = Runs(proof)
        source = pickled(tmp_path / "old")
        path = source / "pytorch_model.bin"
        if how == "pickle":
            path.write_bytes(pickle.dumps(evil))
        elif how == "among weights":
            torch.save({**torch_state(bert_config()), "x": evil}, path)
        else:
            torch.save(evil, path, _use_new_zipfile_serialization=how == "torch")
        with pytest.raises(CheckpointError, match="refused by torch's weights-only loader"):
            convert(source, tmp_path / "new")
        assert not proof.exists()
        assert not (tmp_path / "new").exists()
        # The bait is live: an ordinary unpickling does run it.
        pickle.loads(pickle.dumps(evil))
        assert proof.exists()

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut short"])
    def test_damage(self, tmp_path: Path, content: bytes) -> None:
        source = pickled(tmp_path / "old")
        (source / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin was refused"):
            convert(source, tmp_path / "new")

    def test_a_truncated_archive(self, tmp_path: Path) -> None:
        path = pickled(tmp_path / "old") / "pytorch_model.bin"
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(CheckpointError, match="refused"):
            convert(path.parent, tmp_path / "new")

    @pytest.mark.parametrize(
        ("state", "complaint"),
        [
            ([1, 2], "contains a list"),
            ({}, "contains no tensors"),
            ({"epoch": 3}, "'epoch' is not a tensor"),
            ({"state_dict": {"x": 1}}, "'state_dict' is not a tensor"),
            ({7: torch.zeros(1)}, "entry 7 is not a tensor"),
            ({"x": torch.zeros(2, 2).to_sparse()}, "only plain dense tensors"),
            ({"x": torch.zeros(2, dtype=torch.complex64)}, "only plain dense tensors"),
        ],
    )
    def test_what_is_no_state_dict(self, tmp_path: Path, state: Any, complaint: str) -> None:
        source = pickled(tmp_path / "old", state=state)
        with pytest.raises(CheckpointError, match=complaint):
            convert(source, tmp_path / "new")

    def test_a_model_that_would_not_open_is_not_handed_out(self, tmp_path: Path) -> None:
        state = torch_state(bert_config())
        del state["encoder.layer.1.output.dense.weight"]
        with pytest.raises(CheckpointError, match=r"lacks .*layer\.1\.output\.dense\.weight"):
            convert(pickled(tmp_path / "old", state=state), tmp_path / "new")
        assert [path.name for path in tmp_path.iterdir()] == ["old"]

    def test_other_architectures_before_anything_is_opened(self, tmp_path: Path) -> None:
        source = pickled(tmp_path / "old")
        (source / "config.json").write_text(json.dumps(bert_config(model_type="gpt2")))
        (source / "pytorch_model.bin").write_bytes(b"never read")
        with pytest.raises(UnsupportedArchitectureError, match="'gpt2'"):
            convert(source, tmp_path / "new")

    def test_a_folder_without_weights_or_config(self, tmp_path: Path) -> None:
        source = pickled(tmp_path / "old")
        (source / "pytorch_model.bin").rename(source / "packed.safetensors")
        with pytest.raises(CheckpointError, match="sparsebert unpack"):
            convert(source, tmp_path / "new")
        (source / "packed.safetensors").unlink()
        with pytest.raises(CheckpointError, match="no weights to convert"):
            convert(source, tmp_path / "new")
        (source / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            convert(source, tmp_path / "new")

    def test_an_existing_output(self, tmp_path: Path) -> None:
        source, out = pickled(tmp_path / "old"), write_bert(tmp_path / "out")
        with pytest.raises(OutputError, match="exists"):
            convert(source, out)
        convert(source, out, force=True)
        with pytest.raises(OutputError, match="is the model itself"):
            convert(source, source, force=True)

    @pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cpu", "2.0.0a0", "unknown"])
    def test_torch_that_is_too_old(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(CheckpointError, match=r"too old .* install torch 2\.10 or newer"):
            convert(pickled(tmp_path / "old"), tmp_path / "new")

    def test_no_torch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = pickled(tmp_path / "old")
        monkeypatch.setitem(__import__("sys").modules, "torch", None)
        with pytest.raises(MissingExtraError, match=r"sparsebert\[train\]"):
            convert(source, tmp_path / "new")


def test_safetensors_are_written_anew_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_bert(tmp_path / "m", "token-classification")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    result = convert(source, tmp_path / "new")
    assert result.source_format == "safetensors"
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "new" / "model.safetensors")
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in after.items()
    }


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(pickled(tmp_path / "old"), tmp_path / "new", progress=lambda *step: told.append(step))
    count = len(torch_state(bert_config()))
    assert told[0] == ("converting old", 0, count)
    assert told[-1] == ("converting old", count, count)
