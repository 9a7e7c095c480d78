"""Triton's HTTP client, with its binary tensors."""

from __future__ import annotations

from clients.running import KEY, need

need("tritonclient.http")

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from sentences import SENTENCES, long_text

TEXTS = list(SENTENCES[:6])


def key() -> dict[str, str]:
    """Anew for each call: the client puts headers of its own into what it is given."""
    return {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def client(served):
    made = triton.InferenceServerClient(served.url.removeprefix("http://"))
    yield made
    made.close()


def texts(values, binary=True):
    tensor = triton.InferInput("text", [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_texts(client, served, binary):
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("logits", "embedding")
    ]
    found = client.infer("classifier", [texts(TEXTS, binary)], outputs=outputs, headers=key())
    model = served.models["classifier"]
    assert found.as_numpy("logits") == pytest.approx(model.logits(TEXTS), abs=1e-5)
    assert found.as_numpy("embedding") == pytest.approx(model.embed(TEXTS), abs=1e-5)


def test_token_ids_without_named_outputs(client, served):
    ids = np.array([[5, 9, 11, 30], [7, 7, 0, 0]], np.int64)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int64)
    inputs = [triton.InferInput(name, [2, 4], "INT64") for name in ("input_ids", "attention_mask")]
    for tensor, values in zip(inputs, (ids, mask)):
        tensor.set_data_from_numpy(values)
    found = client.infer("classifier", inputs, headers=key(), request_id="7")
    expected = served.models["classifier"].forward([[5, 9, 11, 30], [7, 7]])
    assert found.as_numpy("logits") == pytest.approx(expected, abs=1e-5)
    assert found.get_response()["id"] == "7"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_bodies(client, served, compression):
    found = client.infer(
        "embedder",
        [texts(TEXTS)],
        headers=key(),
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    expected = served.models["embedder"].embed(TEXTS)
    assert found.as_numpy("embedding") == pytest.approx(expected, abs=1e-5)


def test_cutting(client):
    with pytest.raises(InferenceServerException, match="longer than the 64 tokens"):
        client.infer("embedder", [texts([long_text(99)])], headers=key())
    found = client.infer(
        "embedder", [texts([long_text(99)])], headers=key(), parameters={"truncate": True}
    )
    assert found.as_numpy("embedding").shape == (1, 32)


def test_what_it_asks_about_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("reranker", headers=key())
    assert not client.is_model_ready("zebra", headers=key())
    assert client.get_server_metadata(headers=key())["name"] == "sparsebert"
    metadata = client.get_model_metadata("reranker", headers=key())
    assert metadata["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 1]}
    assert client.get_model_config("reranker", headers=key())["output"][0]["dims"] == [-1, 1]
    client.infer("reranker", [texts(["a"])], headers=key())
    (stats,) = client.get_inference_statistics("reranker", headers=key())["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= 1
    listed = client.get_inference_statistics(headers=key())["model_stats"]
    index = client.get_model_repository_index(headers=key())
    assert [each["name"] for each in index] == [each["name"] for each in listed]


def test_asynchronously(client, served):
    asked = [client.async_infer("embedder", [texts([text])], headers=key()) for text in TEXTS]
    found = np.concatenate([each.get_result().as_numpy("embedding") for each in asked])
    assert found == pytest.approx(served.models["embedder"].embed(TEXTS), abs=1e-5)
