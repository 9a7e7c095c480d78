"""Folders as the authors of NomicBERT and GTE published them, with code and keys of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hub_folders import publish
from sentences import SENTENCES
from sparsebert import load, pack, prune
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.convert import convert
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError
from sparsebert.evaluation.torch_embedding import TorchEmbedder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = list(SENTENCES[:6])


def outputs(folder: Path) -> list[np.ndarray]:
    return load(folder, threads=1).hidden_states(TEXTS)


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module", params=["nomic_bert", "gte"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def native(tiny_bert, family: str) -> Path:
    """A model as transformers saves it, which is with the authors' tensors."""
    rope = {"rope_type": "default", "rope_theta": 20000.0} if family == "gte" else None
    types = {"type_vocab_size": 1} if family == "gte" else {}
    folder: Path = tiny_bert(model_type=family, rope_parameters=rope, **types)
    fused = {"nomic_bert": "encoder.layers.0.attn.Wqkv.weight"}
    name = fused.get(family, "encoder.layer.0.attention.qkv_proj.weight")
    with safe_open(folder / "model.safetensors", "np") as file:
        assert name in file.keys()  # noqa: SIM118
    return folder


def test_the_authors_folder_computes_the_same(tmp_path: Path, family: str, native: Path) -> None:
    folder = publish(tmp_path / "hub", family, native)
    assert largest_difference(outputs(folder), outputs(native)) == 0


def test_every_step_reads_it_and_writes_transformers_own(
    tmp_path: Path, family: str, native: Path
) -> None:
    folder = publish(tmp_path / "hub", family, native)
    prune(folder, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    assert largest_difference(outputs(tmp_path / "packed"), outputs(tmp_path / "sparse")) < 1e-6
    assert "auto_map" not in (tmp_path / "sparse/config.json").read_text()
    model = transformers.AutoModel.from_pretrained(tmp_path / "sparse").eval()
    names = {name for name, _ in model.named_parameters()}
    assert names <= set(load_file(tmp_path / "sparse/model.safetensors"))
    ours = load(tmp_path / "sparse", threads=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "sparse")
    given = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**given).last_hidden_state[0].numpy()
    assert float(np.abs(ours.hidden_states(TEXTS[:1])[0] - theirs).max()) < 2e-5


def test_conversion_makes_a_folder_for_transformers(
    tmp_path: Path, family: str, native: Path
) -> None:
    folder = publish(tmp_path / "hub", family, native)
    with pytest.raises(CheckpointError, match="never run.*sparsebert convert .*hub OUT"):
        TorchEmbedder.load(folder)
    convert(folder, tmp_path / "converted")
    assert largest_difference(outputs(tmp_path / "converted"), outputs(native)) == 0
    theirs = TorchEmbedder.load(tmp_path / "converted")(TEXTS)
    ours = load(tmp_path / "converted").embed(TEXTS, pooling="mean", normalize=False)
    assert float(np.abs(ours - theirs).max()) < 2e-5


def test_a_pickle_is_cut_too(tmp_path: Path, family: str, native: Path) -> None:
    folder = publish(tmp_path / "hub", family, native)
    tensors = load_file(folder / "model.safetensors")
    torch.save({k: torch.tensor(v) for k, v in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    convert(folder, tmp_path / "converted")
    assert largest_difference(outputs(tmp_path / "converted"), outputs(native)) == 0


def test_a_fused_layer_that_does_not_divide_is_refused(
    tmp_path: Path, family: str, native: Path
) -> None:
    folder = publish(tmp_path / "hub", family, native)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in tensors if n.endswith(("Wqkv.weight", "qkv_proj.weight")))
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be split into 3 equal parts"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nomic_bert", {"activation_function": "gelu"}),
        ("nomic_bert", {"activation_function": None}),
        ("nomic_bert", {"causal": True}),
        ("nomic_bert", {"num_experts": 8}),
        ("nomic_bert", {"prenorm": True}),
        ("nomic_bert", {"qkv_proj_bias": True}),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}),
        ("nomic_bert", {"rotary_emb_interleaved": True}),
        ("nomic_bert", {"use_rms_norm": True}),
        ("gte", {"layer_norm_type": "rms_norm"}),
        ("gte", {"logn_attention_scale": True}),
        ("gte", {"pack_qkv": False}),
        ("gte", {"position_embedding_type": "absolute"}),
        ("gte", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}),
        ("gte", {"hidden_act": "mish"}),
    ],
    ids=str,
)
def test_what_the_family_does_not_compute_is_refused(
    tiny_bert, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    folder = publish(tmp_path / "hub", name, tiny_bert(model_type=name), **changes)
    with pytest.raises(UnsupportedArchitectureError, match=next(iter(changes))):
        open_checkpoint(folder)


@pytest.mark.parametrize("base", [0, -1, "10", None, 1e12, True])
def test_damaged_numbers_are_refused(tiny_bert, tmp_path: Path, base: object) -> None:
    native = tiny_bert(model_type="nomic_bert")
    folder = publish(tmp_path / "hub", "nomic_bert", native, rotary_emb_base=base)
    with pytest.raises(CheckpointError, match="rotary_emb_base must be a positive number"):
        open_checkpoint(folder)


@pytest.mark.parametrize("key", ["n_positions", "max_trained_positions"])
@pytest.mark.parametrize("value", ["10", None, 0, [1]])
def test_damaged_lengths_are_refused(tiny_bert, tmp_path: Path, key: str, value: object) -> None:
    native = tiny_bert(model_type="nomic_bert")
    folder = publish(
        tmp_path / "hub", "nomic_bert", native, rotary_scaling_factor=2, **{key: value}
    )
    with pytest.raises(CheckpointError, match=f"{key} must be a positive number"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["nomic_bert", "gte"])
def test_damaged_class_names_are_refused(tiny_bert, tmp_path: Path, name: str) -> None:
    native = tiny_bert(model_type=name)
    folder = publish(tmp_path / "hub", name, native, architectures=[{}])
    with pytest.raises(CheckpointError, match="architectures"):
        open_checkpoint(folder)


def test_fixed_ntk_scaling_turns_by_its_equation(tiny_bert, tmp_path: Path) -> None:
    """The angles of dimension i of d: 1 / ((f b)^(2i/d) f^(2/d))."""
    native = tiny_bert(model_type="gte", type_vocab_size=1)
    scaling = {"type": "ntk", "factor": 8.0}
    folder = publish(tmp_path / "hub", "gte", native, rope_scaling=scaling)
    config = open_checkpoint(folder).config
    size = config.hidden_size // config.num_attention_heads
    layer = config.attention[0]
    i = np.arange(size // 2)
    ours = 1 / (layer.theta ** (2 * i / size)) / layer.factor
    assert ours == pytest.approx(1 / ((8 * 20000) ** (2 * i / size) * 8 ** (2 / size)), rel=1e-12)
    model = transformers.GteModel(
        transformers.GteConfig.from_dict({**config.raw, "architectures": None})
    )
    assert model.rotary_emb.inv_freq.numpy() == pytest.approx(ours, rel=1e-6)


def test_a_base_that_depends_on_the_length_limits_the_length(tiny_bert, tmp_path: Path) -> None:
    native = tiny_bert(model_type="nomic_bert")
    folder = publish(
        tmp_path / "hub", "nomic_bert", native, rotary_scaling_factor=2, max_trained_positions=40
    )
    assert open_checkpoint(folder).config.max_length == 40
