"""The Open Inference Protocol: tensors in and out, as KServe's clients write and read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES, long_text
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
    others = [*SENTENCES[4:7], ""]
    pairs = [texts, tensor("text_pair", others, [4, 1], "BYTES")]
    found = infer(client, "classifier", inputs=pairs, version="/versions/1")
    expected = models["classifier"].logits(list(zip(SENTENCES[:4], others)))
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
        ([], "inputs must include text or input_ids"),
        ([tensor("text", ["a"], [2], "BYTES")], "has 1 values, which do not match its shape"),
        ([tensor("text", ["a"], [1])], "text must have the datatype BYTES"),
        ([tensor("text", [1], [1], "BYTES")], "holds a value that is not a string"),
        ([tensor("text", ["a"], [1, 1, 1], "BYTES")], "must have the shape [texts]"),
        ([tensor("text", ["a"] * 2049, [2049], "BYTES")], "text has 2049 entries"),
        ([tensor("text", ["a", ""], [2], "BYTES")], "the input text is empty at 1"),
        ([{"name": "text", "shape": [1], "datatype": "BYTES"}], "neither data nor binary data"),
        ([{"name": "input_ids", "shape": [1, 1], "datatype": "INT64"}], "has neither data nor"),
        ([tensor("input_ids", [1], [1, 1], "FP32")], "must have the datatype INT64 or INT32"),
        ([tensor("input_ids", [1], [1])], "must have the shape [texts, tokens]"),
        ([tensor("input_ids", [1.5], [1, 1])], "holds a value that is not an INT64"),
        ([tensor("input_ids", [2**31], [1, 1], "INT32")], "is not an INT32"),
        ([tensor("input_ids", [[1, 2], 3], [1, 3])], "mixes lists and values"),
        ([tensor("input_ids", [1], [-1, -1])], "do not match its shape"),
        ([tensor("input_ids", [1], [10**9, 10**9])], "do not match its shape"),
        ([tensor("input_ids", [10**6], [1, 1])], "outside the model's vocabulary"),
        ([tensor("input_ids", [5] * 65, [1, 65])], "the model takes 1 to 64"),
        (
            [tensor("input_ids", [5, 6], [1, 2]), tensor("attention_mask", [0, 1], [1, 2])],
            "each row of attention_mask must be ones followed by zeros",
        ),
        (
            [tensor("input_ids", [5, 6], [1, 2]), tensor("attention_mask", [1], [1, 1])],
            "attention_mask must have the same shape as input_ids",
        ),
        (
            [
                tensor("text", ["a", "b"], [2], "BYTES"),
                tensor("text_pair", ["a"], [1], "BYTES"),
            ],
            "text has 2 texts, but text_pair 1",
        ),
        ([tensor("text_pair", ["a"], [1], "BYTES")], "inputs must include text or input_ids"),
        (
            [tensor("text", ["a"], [1], "BYTES"), tensor("text_b", ["b"], [1], "BYTES")],
            "inputs must be text (and text_pair) or input_ids (and attention_mask, token_type_ids)",
        ),
        (
            [tensor("input_ids", [5], [1, 1]), tensor("position_ids", [3], [1, 1])],
            ", and no others.",
        ),
        (
            [tensor("text", ["a"], [1], "BYTES"), tensor("input_ids", [5], [1, 1])],
            ", and no others.",
        ),
        ([tensor("text", [each], [1], "BYTES") for each in "ab"], "the same tensor twice"),
        (
            [{**tensor("text", ["a"], [1], "BYTES"), "parameters": {"binary_data_size": 0}}],
            "both data and binary data",
        ),
    ],
)
def test_refusals(client, inputs, said):
    status = 413 if "2049" in said else 422
    assert said in refusal(client, status, "classifier", inputs=inputs)


def test_more_refusals(client):
    texts = [tensor("text", ["a"], [1], "BYTES")]
    said = refusal(client, 422, "tagger", inputs=texts, outputs=[{"name": "score"}])
    assert said == "tagger has no such output; it has logits, embedding."
    twice = [{"name": "logits"}, {"name": "logits"}]
    said = refusal(client, 422, "tagger", inputs=texts, outputs=twice)
    assert said == "outputs lists the same output twice."
    assert "no model of that name" in refusal(client, 404, "zebra", inputs=texts)
    assert "there is no such version" in refusal(client, 404, "tagger/versions/2", inputs=texts)
    assert "inputs[0].shape" in refusal(
        client, 422, "tagger", inputs=[{**texts[0], "shape": "wide"}]
    )


class TestCutting:
    def test_the_advice_of_a_413_works(self, client, models):
        texts = [tensor("text", [long_text(99)], [1], "BYTES")]
        said = refusal(client, 413, "classifier", inputs=texts)
        assert "text[0] is longer than the 64 tokens" in said
        assert 'send "parameters": {"truncate": true}' in said
        found = infer(client, "classifier", inputs=texts, parameters={"truncate": True})
        with pytest.warns(match="longer than 64"):
            expected = models["classifier"].logits([long_text(99)])
        assert found["logits"] == pytest.approx(expected, abs=1e-6)

    def test_token_ids_are_never_cut(self, client):
        ids = [tensor("input_ids", IDS[0], [1, 4])]
        said = refusal(client, 422, "classifier", inputs=ids, parameters={"truncate": True})
        assert said == "truncate can only be used with texts: input_ids are never truncated."

    def test_other_parameters(self, client):
        texts = [tensor("text", ["a"], [1], "BYTES")]
        harmless = {"sequence_id": 5, "priority": 1, "timeout": 9, "truncate": None}
        assert infer(client, "classifier", inputs=texts, parameters=harmless)
        said = refusal(client, 422, "classifier", inputs=texts, parameters={"temperature": 1})
        assert "parameters has a field that is not supported here" in said
        outputs = [{"name": "logits", "parameters": {"classification": 2}}]
        said = refusal(client, 422, "classifier", inputs=texts, outputs=outputs)
        assert "outputs[0].parameters has a field that is not supported here" in said
        harmless = {"model_name": "classifier", "model_version": "1"}
        assert infer(client, "classifier", inputs=texts, **harmless)
        said = refusal(client, 422, "classifier", inputs=texts, truncate=True)
        assert "the body has a field that is not supported here" in said
        texts[0]["parameters"] = {"shared_memory_region": "a"}
        assert "shared_memory_region" in refusal(client, 422, "classifier", inputs=texts)


def packed_strings(texts: list[str]) -> bytes:
    """As Triton's binary extension lays them out: each behind its length."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


class TestBinary:
    """https://github.com/triton-inference-server/server: the binary tensor data extension."""

    def ask(self, client: Any, content: dict[str, Any], *binary: bytes, length: Any = None) -> Any:
        head = json.dumps(content).encode()
        headers = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
        path = "/v2/models/classifier/infer"
        return client.post(path, content=head + b"".join(binary), headers=headers)

    def input(self, name: str, shape: list[int], datatype: str, binary: bytes) -> dict[str, Any]:
        size = {"binary_data_size": len(binary)}
        return {"name": name, "shape": shape, "datatype": datatype, "parameters": size}

    def read(self, response: Any) -> dict[str, np.ndarray]:
        assert response.status_code == 200, response.text
        length = int(response.headers["inference-header-content-length"])
        left, found = response.content[length:], {}
        for each in json.loads(response.content[:length])["outputs"]:
            assert "data" not in each
            size = each["parameters"]["binary_data_size"]
            found[each["name"]] = np.frombuffer(left[:size], "<f4").reshape(each["shape"])
            left = left[size:]
        assert not left
        return found

    def test_texts_and_outputs(self, client, models):
        texts, others = list(SENTENCES[:3]), ["Grüße", "中文", "a"]
        binary = [packed_strings(texts), packed_strings(others)]
        content = {
            "inputs": [
                self.input("text", [3], "BYTES", binary[0]),
                self.input("text_pair", [3, 1], "BYTES", binary[1]),
            ],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "logits"}, {"name": "embedding"}],
        }
        found = self.read(self.ask(client, content, *binary))
        pairs = list(zip(texts, others))
        assert found["logits"] == pytest.approx(models["classifier"].logits(pairs), abs=1e-6)
        assert found["embedding"] == pytest.approx(models["classifier"].embed(pairs), abs=1e-6)

    @pytest.mark.parametrize("kind", ["INT64", "INT32"])
    def test_token_ids_and_one_output_of_two(self, client, models, kind):
        ids = np.array([IDS[0]], kind.lower())
        content = {
            "inputs": [self.input("input_ids", [1, 4], kind, ids.tobytes())],
            "outputs": [
                {"name": "embedding"},
                {"name": "logits", "parameters": {"binary_data": True}},
            ],
        }
        response = self.ask(client, content, ids.tobytes())
        length = int(response.headers["inference-header-content-length"])
        written = json.loads(response.content[:length])["outputs"]
        assert len(written[0]["data"]) == 32
        logits = np.frombuffer(response.content[length:], "<f4")
        assert logits == pytest.approx(models["classifier"].forward(IDS[:1])[0], abs=1e-6)

    @pytest.mark.parametrize(
        ("binary", "status", "said"),
        [
            (packed_strings(["a"]) + b"x", 422, "ends in the middle of a string"),
            (b"\x05\x00\x00\x00abc", 422, "ends in the middle of a string"),
            (b"\xff\xff\xff\xffabc", 422, "ends in the middle of a string"),
            (b"\x01\x00\x00\x00\xff", 422, "not UTF-8"),
            (packed_strings(["a", "b"]), 422, "has 2 values, which do not match its shape"),
            (b"", 422, "has 0 values"),
        ],
    )
    def test_broken_strings(self, client, binary, status, said):
        content = {"inputs": [self.input("text", [1], "BYTES", binary)]}
        response = self.ask(client, content, binary)
        assert (response.status_code, said in response.json()["error"]) == (status, True)

    def test_broken_lengths(self, client):
        binary = packed_strings(["a"])
        content = {"inputs": [self.input("text", [1], "BYTES", binary)]}
        zeros = "0" * 20
        for length in (-1, "five", 10**30, 10**4, f"{zeros}9999", f"{zeros}1", "0" * 5000):
            response = self.ask(client, content, binary, length=length)
            assert response.status_code == 400
            assert "not the number of bytes" in response.json()["error"]
        for more in ((binary, b"rest"), (binary[:-1],)):
            response = self.ask(client, content, *more)
            assert (response.status_code, list(response.json())) == (400, ["error"])
        ids = {"inputs": [self.input("input_ids", [1, 1], "INT64", b"abc")]}
        assert self.ask(client, ids, b"abc").status_code == 422


def test_two_outputs_read_their_texts_once(client, monkeypatch):
    from sparsebert.inference.tokenizing import TextTokenizer

    reads: list[int] = []
    real = TextTokenizer.encode_truncated

    def counted(tokenizer: Any, texts: Any, **options: Any) -> Any:
        reads.append(len(texts.items))
        return real(tokenizer, texts, **options)

    monkeypatch.setattr(TextTokenizer, "encode_truncated", counted)
    texts = [tensor("text", ["a wall", "noon"], [2], "BYTES")]
    infer(client, "classifier", inputs=texts, outputs=[{"name": "logits"}, {"name": "embedding"}])
    assert reads == [2]


def test_what_triton_tells_of_models(client):
    config = client.get("/v2/models/group/embedder/config").json()
    assert (config["name"], config["max_batch_size"]) == ("group/embedder", 0)
    assert config["output"] == [{"name": "embedding", "data_type": "TYPE_FP32", "dims": [-1, 32]}]
    assert config["input"][0] == {
        "name": "text",
        "data_type": "TYPE_STRING",
        "dims": [-1],
        "optional": False,
    }
    path = "/v2/models/tagger/stats"
    (before,) = client.get(path).json()["model_stats"]
    infer(client, "tagger", inputs=[tensor("text", ["a", "b"], [2], "BYTES")])
    refusal(client, 422, "tagger", inputs=[tensor("input_ids", [10**6], [1, 1])])
    (after,) = client.get(f"{path}").json()["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 2
    assert after["execution_count"] >= before["execution_count"] + 1
    for name, more in (("success", 1), ("fail", 1), ("compute_infer", 1), ("cache_hit", 0)):
        counts = [each["inference_stats"][name]["count"] for each in (before, after)]
        assert counts[1] == counts[0] + more
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["last_inference"] > 1e12
    (before,) = client.get("/v2/models/group/embedder/stats").json()["model_stats"]
    sentences = {"source_sentence": "a", "sentences": ["b", "c"]}
    asked = {"model": "group/embedder", "inputs": sentences}
    assert client.post("/similarity", json=asked).status_code == 200
    (after,) = client.get("/v2/models/group/embedder/stats").json()["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 3
    counts = [each["inference_stats"]["success"]["count"] for each in (before, after)]
    assert counts[1] == counts[0] + 1  # one request, though source and sentences run apart
    listed = client.get("/v2/models/stats").json()["model_stats"]
    assert [each["name"] for each in listed] == list(HEADS)
    index = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [each["name"] for each in index] == list(HEADS)
    assert {each["state"] for each in index} == {"READY"}
    assert client.post("/v2/repository/index").json() == index  # Triton's client sends no body
    assert client.get("/v2/models/zebra/stats").status_code == 404
