"""The memory that is reserved for an answer: what it takes, so neither much more nor less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from served import HEADS, ask, serving
from sparsebert.serving import load_models

LIMIT = 200_000


@pytest.fixture(scope="module")
def client(tiny_bert) -> Iterator[Any]:
    heads = {**HEADS, "filler": {"head": "masked-lm"}}
    named = [f"{name}={tiny_bert(**sizes)}" for name, sizes in heads.items()]
    with (
        serving(load_models(named, threads=1), max_bytes_in_flight=LIMIT) as url,
        httpx.Client(base_url=url, timeout=30) as made,
    ):
        yield made


def is_too_large(client: Any, path: str, **body: Any) -> bool:
    response = client.post(path, json=body)
    assert response.status_code in (200, 413), response.text
    assert response.status_code == 200 or "--max-bytes-in-flight" in response.json()["error"]
    return bool(response.status_code == 413)


def test_two_logits_for_each_token_of_a_context(client):
    """Not a vector for each: 2,000 tokens of 32 numbers would not fit."""
    assert ask(client, "/answer", inputs={"question": "a", "context": "a wall " * 1000})


def infer(client: Any, texts: list[str], parameters: dict[str, Any]) -> bool:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    path = "/v2/models/tagger/infer"
    return is_too_large(client, path, inputs=[tensor], parameters=parameters)


@pytest.mark.parametrize("binary", [False, True])
def test_padding_counts(client, binary):
    parameters = {"binary_data_output": binary}
    texts = ["a"] * 300
    assert not infer(client, texts, parameters)
    assert not infer(client, ["a " * 60], parameters)
    assert infer(client, [*texts, "a " * 60], parameters)


def test_each_tag_is_an_object(client):
    assert not is_too_large(client, "/tag", inputs=["a wall"] * 50)
    assert is_too_large(client, "/tag", inputs=["a wall"] * 100)


def test_each_token_that_may_fill_a_mask_repeats_the_text(client):
    texts = ["the [MASK] " + "wall " * 40] * 10
    assert not is_too_large(client, "/fill", inputs=texts, parameters={"top_k": 2})
    assert is_too_large(client, "/fill", inputs=texts, parameters={"top_k": 100})


def test_tokens_as_json(client):
    assert not is_too_large(client, "/tokenize", inputs="a wall " * 1000)
    assert is_too_large(client, "/tokenize", inputs="a wall " * 4000)
