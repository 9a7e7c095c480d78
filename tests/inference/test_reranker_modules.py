"""Re-rankers and classifiers whose head are modules: sentence-transformers' own scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sentences import SENTENCES
from sparsebert import finetune, halve, load, pack, prune
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.training import prune_upstream

theirs = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")

PAIRS = [(SENTENCES[0], text) for text in SENTENCES[1:8]]


def saved(folder: Path, base: Path, mode: str, labels: int, **options: Any) -> Any:
    """A CrossEncoder of Transformer, Pooling and Dense, as the library itself writes it."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(3)
    identity = torch.nn.Identity()
    modules = [
        Transformer(str(base)),
        Pooling(32, mode),
        Dense(32, 48, activation_function=torch.nn.GELU(), use_residual=True),
        LayerNorm(48),
        Dense(48, labels, activation_function=identity, module_output_name="scores"),
    ]
    model = theirs.CrossEncoder(modules=modules, device="cpu", **options)
    model.save(str(folder))
    return theirs.CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("family", "mode", "options"),
    [
        ("bert", "cls", {}),
        ("modernbert", "mean", {"activation_fn": torch.nn.Identity()}),
        ("roberta", "weightedmean", {}),
    ],
)
def test_scores(tiny_bert, tmp_path: Path, family: str, mode: str, options: Any) -> None:
    model = saved(tmp_path / "st", tiny_bert(model_type=family), mode, 1, **options)
    expected = model.predict(PAIRS)
    ours = load(tmp_path / "st")
    found = [each[0]["score"] for each in ours.classify(PAIRS, batch_size=3)]
    assert np.abs(found - expected).max() < 2e-5
    ranked = ours.rerank(PAIRS[0][0], [text for _, text in PAIRS])
    assert [each["index"] for each in ranked] == np.argsort(-expected, kind="stable").tolist()
    assert ours.logits([]).shape == (0, 1)
    # Every step takes the modules and their weights along.
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.CrossEncoder(str(tmp_path / "sparse"), device="cpu").predict(PAIRS)
    halved = load(tmp_path / "packed").classify(PAIRS)
    assert np.abs([each[0]["score"] for each in halved] - again).max() < 2e-5


def test_several_labels(tiny_bert, tmp_path: Path) -> None:
    model = saved(tmp_path / "st", tiny_bert(), "mean", 3)
    expected = torch.softmax(torch.tensor(model.predict(PAIRS)), dim=1).numpy()
    for each, row in zip(load(tmp_path / "st").classify(PAIRS), expected, strict=True):
        assert {label["label"]: label["score"] for label in each} == pytest.approx(
            {f"LABEL_{place}": float(score) for place, score in enumerate(row)}, abs=2e-5
        )


def test_weights_in_several_files(tiny_bert, tmp_path: Path) -> None:
    expected = saved(tmp_path / "st", tiny_bert(), "mean", 2).predict(PAIRS)
    layer = tmp_path / "st" / "2_Dense"
    whole = load_file(layer / "model.safetensors")
    (layer / "model.safetensors").unlink()
    files = {name: f"model-{place}.safetensors" for place, name in enumerate(whole)}
    for name, file in files.items():
        save_file({name: whole[name]}, layer / file)
    (layer / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    pack(tmp_path / "st", tmp_path / "packed", dtype="fp32")
    assert np.abs(load(tmp_path / "packed").logits(PAIRS) - expected).max() < 2e-5


def test_no_training_puts_another_head_beside_it(tiny_bert, tmp_path: Path) -> None:
    for library in ("transformers", "accelerate", "pyarrow"):
        pytest.importorskip(library)
    saved(tmp_path / "st", tiny_bert(), "mean", 2)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": a, "label": len(a) % 2}) + "\n" for _, a in PAIRS * 2)
    )
    with pytest.raises(TrainingError, match=r"whose head is a module after .* not fine-tune"):
        finetune(tmp_path / "st", tmp_path / "out", task="custom", data=rows)
    with pytest.raises(CheckpointError, match="halve cannot measure what such a model keeps"):
        halve(tmp_path / "st", tmp_path / "out", texts=[rows], effort="quick", bench=False)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.thorough
def test_upstream_the_encoder_learns_what_the_head_reads(tiny_bert, tmp_path: Path) -> None:
    for library in ("transformers", "accelerate", "pyarrow"):
        pytest.importorskip(library)
    saved(tmp_path / "st", tiny_bert(), "mean", 2)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SENTENCES))
    prune_upstream(
        tmp_path / "st", tmp_path / "out", corpus=lines, method="magnitude", epochs=1, max_length=24
    )
    expected = theirs.CrossEncoder(str(tmp_path / "out"), device="cpu").predict(PAIRS)
    assert np.abs(load(tmp_path / "out").logits(PAIRS) - expected).max() < 2e-5


def test_it_embeds_nothing(tiny_bert, tmp_path: Path) -> None:
    saved(tmp_path / "st", tiny_bert(), "mean", 1)
    model = load(tmp_path / "st")
    for pooling in (None, "cls"):
        with pytest.raises(CheckpointError, match="makes scores .*, not an embedding"):
            model.embed("a", pooling=pooling)


def test_the_server_gives_the_same(tiny_bert, tmp_path: Path) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.serving import load_models

    query, texts = PAIRS[0][0], [text for _, text in PAIRS]
    expected = saved(tmp_path / "st", tiny_bert(), "weightedmean", 1).predict(PAIRS)
    served = serving(load_models([tmp_path / "st"], threads=1, workers=2))
    with served as url, httpx.Client(base_url=url) as client:
        ranked = client.post("/rerank", json={"query": query, "texts": texts}).json()
        scores = {each["index"]: each["score"] for each in ranked}
        assert [scores[place] for place in range(len(texts))] == pytest.approx(expected, abs=2e-5)
        found = client.post("/predict", json={"inputs": [list(pair) for pair in PAIRS]}).json()
        assert [each[0]["score"] for each in found] == pytest.approx(expected, abs=2e-5)
        assert client.post("/embed", json={"inputs": "a"}).status_code == 424
        named = client.get("/v2/models/st").json()["outputs"]
        assert named == [{"name": "logits", "datatype": "FP32", "shape": [-1, 1]}]
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(given)], "data": given}
            for name, given in (("text", [query] * len(texts)), ("text_pair", texts))
        ]
        answered = client.post("/v2/models/st/infer", json={"inputs": inputs}).json()
        logits = np.array(answered["outputs"][0]["data"])
        assert 1 / (1 + np.exp(-logits)) == pytest.approx(expected, abs=2e-5)
