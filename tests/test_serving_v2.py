"""The Open Inference Protocol: tensors in and out, as KServe's clients write and read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES
from served import serving
from sparsebert import Model, load
from sparsebert.serving import load_models

HEADS: dict[str, dict[str, Any]] = {
    "group/embedder": {"head": "encoder"},  # a name as hub ids are
    "classifier": {"head": "sequence-classification", "num_labels": 3},
    "answerer": {"head": "question-answering"},
    "tagger": {"head": "token-classification"},
    "filler": {"head": "masked-lm"},
}
IDS = [[5, 9, 11, 30], [7, 7], [12, 40, 41]]


@pytest.fixture(scope="module")
def models(tiny_bert) -> dict[str, Model]:
    return {name: load(tiny_bert(**sizes)) for name, sizes in HEADS.items()}


@pytest.fixture(scope="module")
def client(tiny_bert) -> Iterator[Any]:
    named = [f"{name}={tiny_bert(**sizes)}" for name, sizes in HEADS.items()]
    with serving(load_models(named, threads=1)) as url, httpx.Client(base_url=url) as made:
        yield made


def tensor(name: str, data: Any, shape: list[int], datatype: str = "INT64") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def padded(key: str = "input_ids") -> list[dict[str, Any]]:
    """`IDS` in a rectangle with its attention mask; nested data here, flat data there."""
    width = max(map(len, IDS))
    ids = [row + [0] * (width - len(row)) for row in IDS]
    mask = [place < len(row) for row in IDS for place in range(width)]
    shape = [len(IDS), width]
    return [tensor(key, ids, shape), tensor("attention_mask", [int(on) for on in mask], shape)]


def infer(client: Any, model: str, *, version: str = "", **body: Any) -> dict[str, np.ndarray]:
    response = client.post(f"/v2/models/{model}{version}/infer", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    assert (found["model_name"], found["model_version"]) == (model, "1")
    assert found.get("id") == body.get("id")
    assert {each["datatype"] for each in found["outputs"]} == {"FP32"}
    return {
        each["name"]: np.array(each["data"], np.float32).reshape(each["shape"])
        for each in found["outputs"]
    }


def refusal(client: Any, status: int, model: str, **body: Any) -> str:
    response = client.post(f"/v2/models/{model}/infer", json=body)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


def test_texts(client, models):
    texts = tensor("text", list(SENTENCES[:4]), [4], "BYTES")
    found = infer(client, "group/embedder", inputs=[texts], id="a7")
    expected = models["group/embedder"].embed(SENTENCES[:4])
    assert found["embedding"] == pytest.approx(expected, abs=5e-7)
    pairs = [texts, tensor("text_pair", list(SENTENCES[4:8]), [4, 1], "BYTES")]
    found = infer(client, "classifier", inputs=pairs, version="/versions/1")
    expected = models["classifier"].logits(list(zip(SENTENCES[:4], SENTENCES[4:8])))
    assert found["logits"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["classifier", "answerer", "tagger"])
def test_token_ids_and_padding(client, models, name):
    found = infer(client, name, inputs=padded())["logits"]
    expected = models[name].forward(IDS)
    if name == "classifier":
        assert found == pytest.approx(expected, abs=1e-6)
        return
    for rows, mine in zip(found, expected, strict=True):
        assert rows[: len(mine)] == pytest.approx(mine, abs=1e-6)
        assert not rows[len(mine) :].any()


def test_type_ids_and_chosen_outputs(client, models):
    types = [[0, 0, 1, 1]]
    found = infer(
        client,
        "classifier",
        inputs=[tensor("input_ids", IDS[0], [1, 4]), tensor("token_type_ids", types, [1, 4])],
        outputs=[{"name": "embedding"}, {"name": "logits"}],
    )
    assert list(found) == ["embedding", "logits"]
    expected = models["classifier"].forward(IDS[:1], types)
    assert found["logits"] == pytest.approx(expected, abs=1e-6)
    rows = models["classifier"].forward(IDS[:1], types, head=False)[0]
    assert found["embedding"][0] == pytest.approx(rows.mean(0), abs=1e-5)


@pytest.mark.parametrize(
    "inputs", [[tensor("text", ["a wall"], [1], "BYTES")], [tensor("input_ids", IDS[0], [1, 4])]]
)
def test_two_outputs_count_their_texts_once(client, inputs):
    counted = [
        client.post(
            "/v2/models/classifier/infer", json={"inputs": inputs, "outputs": outputs}
        ).headers
        for outputs in ([{"name": "logits"}], [{"name": "logits"}, {"name": "embedding"}])
    ]
    for name in ("x-compute-tokens", "x-compute-characters"):
        assert counted[0][name] == counted[1][name]
    assert counted[0]["x-compute-tokens"] == "4"


def test_metadata_and_readiness(client):
    assert client.get("/v2").json()["name"] == "sparsebert"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/group/embedder", "/v2/models/group/embedder/versions/1"):
        assert client.get(f"{path}/ready").json() == {"name": "group/embedder", "ready": True}
        found = client.get(path).json()
        assert (found["name"], found["versions"]) == ("group/embedder", ["1"])
        assert found["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 32]}]
    shapes = {
        name: {
            each["name"]: each["shape"]
            for each in client.get(f"/v2/models/{name}").json()["outputs"]
        }
        for name in HEADS
    }
    assert shapes["classifier"] == {"logits": [-1, 3], "embedding": [-1, 32]}
    assert shapes["answerer"]["logits"] == [-1, -1, 2]
    assert shapes["tagger"]["logits"] == [-1, -1, 3]
    assert list(shapes["filler"]) == ["embedding"]
    for path in ("/v2/models/zebra", "/v2/models/tagger/versions/2", "/v2/models/zebra/ready"):
        response = client.get(path)
        assert (response.status_code, list(response.json())) == (404, ["error"])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "inputs must hold text or input_ids"),
        ([tensor("text", ["a"], [2], "BYTES")], "has 1 values, which are not those of its shape"),
        ([tensor("text", ["a"], [1])], "text has the datatype of another kind; it takes BYTES"),
        ([tensor("text", [1], [1], "BYTES")], "holds something that is not a string"),
        ([tensor("text", ["a"], [1, 1, 1], "BYTES")], "must have the shape [texts]"),
        ([tensor("text", ["a"] * 33, [33], "BYTES")], "text has 33 entries"),
        ([tensor("input_ids", [1], [1, 1], "FP32")], "it takes INT64 or INT32"),
        ([tensor("input_ids", [1], [1])], "must have the shape [texts, tokens]"),
        ([tensor("input_ids", [1.5], [1, 1])], "holds something that is not an INT64"),
        ([tensor("input_ids", [2**31], [1, 1], "INT32")], "is not an INT32"),
        ([tensor("input_ids", [[1, 2], 3], [1, 3])], "mixes lists with values"),
        ([tensor("input_ids", [1], [-1, -1])], "not those of its shape"),
        ([tensor("input_ids", [1], [10**9, 10**9])], "not those of its shape"),
        ([tensor("input_ids", [10**6], [1, 1])], "outside the model's vocabulary"),
        ([tensor("input_ids", [5] * 65, [1, 65])], "the model takes 1 to 64"),
        (
            [tensor("input_ids", [5, 6], [1, 2]), tensor("attention_mask", [0, 1], [1, 2])],
            "attention_mask must be ones and behind them zeros",
        ),
        (
            [tensor("input_ids", [5, 6], [1, 2]), tensor("attention_mask", [1], [1, 1])],
            "attention_mask has not the shape of input_ids",
        ),
        (
            [
                tensor("text", ["a", "b"], [2], "BYTES"),
                tensor("text_pair", ["a"], [1], "BYTES"),
            ],
            "text has 2 texts, and text_pair 1",
        ),
    ],
)
def test_refusals(client, inputs, said):
    status = 413 if "33" in said else 422
    assert said in refusal(client, status, "classifier", inputs=inputs)


def test_more_refusals(client):
    texts = [tensor("text", ["a"], [1], "BYTES")]
    said = refusal(client, 422, "tagger", inputs=texts, outputs=[{"name": "score"}])
    assert said == "tagger has no such output; it has logits, embedding."
    twice = [{"name": "logits"}, {"name": "logits"}]
    said = refusal(client, 422, "tagger", inputs=texts, outputs=twice)
    assert said == "outputs names one twice."
    assert "no model of that name" in refusal(client, 404, "zebra", inputs=texts)
    assert "there is no such version" in refusal(client, 404, "tagger/versions/2", inputs=texts)
    assert "inputs[0].shape" in refusal(
        client, 422, "tagger", inputs=[{**texts[0], "shape": "wide"}]
    )
