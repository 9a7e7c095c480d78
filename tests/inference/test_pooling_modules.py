"""Modules of sentence-transformers behind the transformer: its own embeddings, from our engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sentences import SENTENCES
from sparsebert import load, pack, prune
from sparsebert.errors import CheckpointError, InputError
from sparsebert.evaluation.torch_embedding import TorchEmbedder

theirs = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")

TEXTS = [*SENTENCES[:9], "a"]
PROMPT = "Represent the sentence: "


def modules(*kinds: Any) -> list[Any]:
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    torch.manual_seed(3)
    made = {
        "tanh": lambda: Dense(32, 24),
        "gelu": lambda: Dense(32, 32, activation_function=torch.nn.GELU()),
        "residual": lambda: Dense(32, 24, use_residual=True),
        "narrow": lambda: Dense(64, 20, bias=False, activation_function=torch.nn.Identity()),
        "relu": lambda: Dense(24, 40, activation_function=torch.nn.ReLU()),
        "sigmoid": lambda: Dense(32, 16, activation_function=torch.nn.Sigmoid()),
        "silu": lambda: Dense(32, 16, activation_function=torch.nn.SiLU()),
        "norm": lambda: LayerNorm(32),
        "normalize": Normalize,
    }
    return [made[kind]() for kind in kinds]


def saved(folder: Path, base: Path, modes: Any, *kinds: str, **pooling: Any) -> Any:
    """A model of sentence-transformers, and its folder as the library itself writes it."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    parts = [Transformer(str(base)), Pooling(32, modes, **pooling), *modules(*kinds)]
    model = theirs.SentenceTransformer(modules=parts, device="cpu")
    for module in parts[2:]:
        for name, parameter in module.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter)
    model.save(str(folder))
    return model


@pytest.mark.parametrize(
    ("modes", "kinds"),
    [
        ("weightedmean", ()),
        ("lasttoken", ("normalize",)),
        (("cls", "mean"), ()),
        (("max", "weightedmean", "mean_sqrt_len_tokens", "lasttoken"), ("normalize",)),
        ("cls", ("tanh", "normalize")),
        ("mean", ("norm", "gelu")),
        ("max", ("residual",)),
        ("mean", ("normalize", "tanh", "relu")),
        (("mean", "lasttoken"), ("narrow", "normalize")),
        ("max", ("sigmoid",)),
        ("mean", ("silu", "normalize")),
    ],
    ids=str,
)
def test_embeddings(tiny_bert, tmp_path: Path, modes: Any, kinds: tuple[str, ...]) -> None:
    model = saved(tmp_path / "st", tiny_bert(), modes, *kinds)
    expected = model.encode(TEXTS, batch_size=4)
    ours = load(tmp_path / "st")
    found = ours.embed(TEXTS, batch_size=3)
    assert found.shape == expected.shape == (len(TEXTS), ours.embedding_width())
    assert np.abs(found - expected).max() < 2e-5
    assert np.abs(ours.embed(TEXTS[0]) - expected[0]).max() < 2e-5
    assert ours.embed([]).shape == (0, expected.shape[1])
    assert np.abs(TorchEmbedder.load(tmp_path / "st")(TEXTS) - expected).max() < 2e-5
    # Every step takes the modules and their weights along.
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SentenceTransformer(str(tmp_path / "sparse"), device="cpu").encode(TEXTS)
    assert np.abs(load(tmp_path / "packed").embed(TEXTS) - again).max() < 2e-5


@pytest.mark.parametrize("kinds", [(), ("normalize",), ("tanh", "normalize")])
@pytest.mark.parametrize("dimensions", [10, 100])
def test_fewer_dimensions(
    tiny_bert, tmp_path: Path, kinds: tuple[str, ...], dimensions: int
) -> None:
    """The folder's own truncation, which is behind its Normalize; only a caller's is before one."""
    saved(tmp_path / "whole", tiny_bert(), "mean", *kinds)
    model = theirs.SentenceTransformer(
        str(tmp_path / "whole"), device="cpu", truncate_dim=dimensions
    )
    model.save(str(tmp_path / "st"))
    expected = model.encode(TEXTS)
    ours = load(tmp_path / "st")
    assert ours.embedding_width() == expected.shape[1] == min(dimensions, 24 if kinds[1:] else 32)
    assert np.abs(ours.embed(TEXTS) - expected).max() < 2e-5
    assert np.abs(TorchEmbedder.load(tmp_path / "st")(TEXTS) - expected).max() < 2e-5
    unit = model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(ours.embed(TEXTS, normalize=True) - unit).max() < 2e-5
    shorter = model.encode(TEXTS, truncate_dim=6, normalize_embeddings=True)
    assert np.abs(ours.embed(TEXTS, dimensions=6, normalize=True) - shorter).max() < 2e-5
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SentenceTransformer(str(tmp_path / "sparse"), device="cpu").encode(TEXTS)
    assert np.abs(load(tmp_path / "packed").embed(TEXTS) - again).max() < 2e-5


@pytest.mark.parametrize("wrong", [0, -1, True, "8", 8.5])
def test_dimensions_that_are_no_number(tiny_bert, tmp_path: Path, wrong: Any) -> None:
    saved(tmp_path / "st", tiny_bert(), "mean")
    file = tmp_path / "st" / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "truncate_dim": wrong}))
    with pytest.raises(
        CheckpointError, match="'truncate_dim' must be an integer of at least 1, not"
    ):
        load(tmp_path / "st")


@pytest.mark.parametrize("modes", ["mean", "cls", "weightedmean", ("max", "lasttoken")])
def test_prompts_that_are_not_pooled(tiny_bert, tmp_path: Path, modes: Any) -> None:
    layers = ["norm"] if isinstance(modes, str) else []
    model = saved(tmp_path / "st", tiny_bert(), modes, *layers, include_prompt=False)
    ours = load(tmp_path / "st")
    for prompt in (PROMPT, ""):
        expected = model.encode(TEXTS, prompt=prompt or None)
        assert np.abs(ours.embed(TEXTS, prompt=prompt) - expected).max() < 2e-5
    plain = load(tiny_bert()).embed(TEXTS, pooling="mean")
    assert not np.allclose(ours.embed(TEXTS, prompt=PROMPT)[:, :8], plain[:, :8], atol=1e-3)


def test_the_callers_pooling_goes_through_the_layers(tiny_bert, tmp_path: Path) -> None:
    saved(tmp_path / "st", tiny_bert(), "mean", "tanh")
    other = saved(tmp_path / "other", tiny_bert(), "cls", "tanh").encode(TEXTS)
    assert np.abs(load(tmp_path / "st").embed(TEXTS, pooling="cls") - other).max() < 2e-5
    assert load(tmp_path / "st").embed(TEXTS, dimensions=7, normalize=True).shape == (10, 7)


def test_the_callers_pooling_does_not_fit_layers_for_several(tiny_bert, tmp_path: Path) -> None:
    saved(tmp_path / "st", tiny_bert(), ("mean", "max"), "narrow")
    model = load(tmp_path / "st")
    for ask in (lambda: model.embed(TEXTS, pooling="cls"), lambda: model.embedding_width("cls")):
        with pytest.raises(InputError, match=r"take 2 poolings \(mean, max\) at once"):
            ask()
    saved(tmp_path / "unit", tiny_bert(), ("mean", "max"), "normalize")
    assert load(tmp_path / "unit").embed(TEXTS, pooling="cls").shape == (10, 32)


class TestDamage:
    @pytest.fixture
    def folder(self, tiny_bert, tmp_path: Path) -> Path:
        saved(tmp_path / "st", tiny_bert(), "mean", "tanh")
        return tmp_path / "st"

    def refused(self, folder: Path, complaint: str) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            load(folder).embed("a")

    def test_weights(self, folder: Path) -> None:
        file = folder / "2_Dense" / "model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, "linear.weight": tensors["linear.weight"][:, :-1].copy()}, file)
        self.refused(folder, r"tensor 'linear.weight' is F32 \[24, 31\], but config.json requires")
        save_file({**tensors, "linear.bias": np.full(24, np.nan, np.float32)}, file)
        self.refused(folder, "linear.bias")
        save_file({"linear.weight": tensors["linear.weight"]}, file)
        self.refused(folder, "lacks the tensor 'linear.bias'")
        file.unlink()
        self.refused(folder, "has no model.safetensors")

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"activation_function": "os.system"}, "activation_function 'os.system' is not supp"),
            ({"activation_function": "torch.nn.Mish"}, "'torch.nn.Mish' is not supported"),
            ({"use_residual": True}, "lacks the tensor 'residual.weight'"),
            ({"module_input_name": "token_embeddings"}, "works on 'token_embeddings', but"),
            ({"in_features": 0}, "in_features must be an integer from 1 to 16777216, not 0"),
            (
                {"in_features": 64},
                "2_Dense: this layer takes vectors of 64 numbers, but gets .* 32",
            ),
            ({"out_features": None}, "lacks 'out_features'"),
            ({"bias": "yes"}, "bias must be true or false, not 'yes'"),
        ],
    )
    def test_settings(self, folder: Path, change: dict[str, Any], complaint: str) -> None:
        file = folder / "2_Dense" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        self.refused(folder, complaint)


def test_the_server_gives_the_same(tiny_bert, tmp_path: Path) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.serving import load_models

    saved(tmp_path / "st", tiny_bert(), ("mean", "lasttoken"), "narrow", include_prompt=False)
    settings = {"prompts": {"query": PROMPT}, "default_prompt_name": "query"}
    (tmp_path / "st" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    model = load(tmp_path / "st")
    expected = model.embed(TEXTS, normalize=True)
    assert np.abs(expected - model.embed(TEXTS, normalize=True, prompt="")).max() > 1e-3
    with (
        serving(load_models([f"st={tmp_path / 'st'}"], threads=1)) as url,
        httpx.Client(base_url=url) as client,
    ):

        def ask(path: str, **body: Any) -> Any:
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            return response.json()

        assert np.abs(np.array(ask("/embed", inputs=TEXTS)) - expected).max() < 1e-6
        plain = ask("/embed", inputs=TEXTS, normalize=False, prompt_name="")
        assert np.abs(np.array(plain) - model.embed(TEXTS, normalize=False, prompt="")).max() < 1e-6
        found = [each["embedding"] for each in ask("/v1/embeddings", input=TEXTS)["data"]]
        assert np.abs(np.array(found) - expected).max() < 1e-6
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
        (output,) = ask("/v2/models/st/infer", inputs=[tensor])["outputs"]
        assert output["shape"] == [len(TEXTS), 20]
        found = np.reshape(output["data"], output["shape"])
        assert np.abs(found - model.embed(TEXTS)).max() < 1e-6
        assert client.get("/v2/models/st").json()["outputs"][0]["shape"] == [-1, 20]
        assert client.post("/embed", json={"inputs": "a", "dimensions": 21}).status_code == 422
        assert client.get("/info").json()["models"][0]["model_type"] == {
            "embedding": {"pooling": "mean+lasttoken"}
        }
