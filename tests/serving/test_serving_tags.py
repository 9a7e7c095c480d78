"""/tag and /fill: what the model gives, in the form of Hugging Face's pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES, long_text
from served import ask, refusal, serving
from sparsebert import load
from sparsebert.serving import load_models

TEXTS = list(SENTENCES[:5])
MASKED = "the old [MASK] crossed the bay"


@pytest.fixture(scope="module")
def folders(tiny_bert) -> dict[str, Any]:
    return {name: tiny_bert(name) for name in ("token-classification", "masked-lm", "encoder")}


@pytest.fixture(scope="module")
def client(folders) -> Iterator[Any]:
    named = [f"{name}={folder}" for name, folder in folders.items()]
    with serving(load_models(named, threads=1)) as url, httpx.Client(base_url=url) as made:
        yield made


def as_pipeline(found: list[Any], name: str) -> list[dict[str, Any]]:
    return [
        {
            name: each["label"],
            "score": pytest.approx(each["score"], abs=1e-6),
            "word": each["text"],
            "start": each["start"],
            "end": each["end"],
        }
        for each in found
    ]


@pytest.mark.parametrize("strategy", [None, "first", "average", "max"])
def test_entities(client, folders, strategy):
    model = load(folders["token-classification"])
    expected = [
        as_pipeline(found, "entity_group")
        for found in model.tag(TEXTS, aggregation=strategy or "simple")
    ]
    parameters = {"aggregation_strategy": strategy} if strategy else {}
    assert ask(client, "/tag", inputs=TEXTS, parameters=parameters) == expected
    assert ask(client, "/tag", inputs=TEXTS[0], parameters=parameters) == expected[0]
    whole = {"model": "token-classification", "inputs": TEXTS[1], "parameters": parameters}
    assert ask(client, "/", **whole) == expected[1]


def test_tokens_and_ignored_labels(client, folders):
    tokens = load(folders["token-classification"]).tag(TEXTS[0])
    parameters = {"aggregation_strategy": "none", "ignore_labels": []}
    found = ask(client, "/tag", inputs=TEXTS[0], parameters=parameters)
    assert found == as_pipeline(tokens, "entity")
    parameters["ignore_labels"] = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert ask(client, "/tag", inputs=TEXTS[0], parameters=parameters) == []


def test_masks(client, folders):
    model = load(folders["masked-lm"])
    found = ask(client, "/fill", inputs=MASKED, parameters={"top_k": 3})
    expected = model.fill(MASKED, top_k=3)
    assert [each["token_str"] for each in found] == [each["token"] for each in expected]
    assert [each["score"] for each in found] == pytest.approx(
        [each["score"] for each in expected], abs=1e-6
    )
    backend = model.tokenizer.backend
    for each in found:
        assert each["token"] == backend.token_to_id(each["token_str"])
        assert "[MASK]" not in each["sequence"]
    whole = ask(client, "/", model="masked-lm", inputs=[MASKED, MASKED])
    assert [len(each) for each in whole] == [5, 5]
    assert whole[0][:3] == found


def test_filling_takes_the_memory_of_one_token(folders):
    """Not of all of a text's, which are gigabytes with the 250,002 tokens of XLM-R's vocabulary."""
    model = load(folders["masked-lm"])
    texts = [f"{MASKED} {long_text(12)}", f"{long_text(9)} {MASKED}", MASKED]
    room = 16 * 8 * model.config.vocab_size  # of the logits of eight tokens, and their JSON
    served = load_models([folders["masked-lm"]], threads=1)
    with (
        serving(served, max_bytes_in_flight=room) as url,
        httpx.Client(base_url=url) as client,
    ):
        found = ask(client, "/fill", inputs=texts)
    for text, each in zip(texts, found, strict=True):
        expected = model.fill(text)
        assert [token["token_str"] for token in each] == [token["token"] for token in expected]
        scores = [token["score"] for token in expected]
        assert [token["score"] for token in each] == pytest.approx(scores, abs=1e-6)


def test_refusals(client):
    long = {"inputs": long_text(200)}
    assert "is longer than the 64 tokens" in refusal(client, 413, "/tag", **long)
    cut = ask(client, "/tag", **long, truncate=True, parameters={"ignore_labels": []})
    assert cut
    assert cut[-1]["end"] < len(long["inputs"])
    bad = {"aggregation_strategy": "word"}
    assert "aggregation_strategy" in refusal(client, 422, "/tag", inputs="a", parameters=bad)
    assert "not supported here" in refusal(client, 422, "/tag", inputs="a", parameters={"x": 1})
    assert "is empty" in refusal(client, 422, "/tag", inputs=[])
    for text, count in (("no mask", 0), ("[MASK] and [MASK]", 2)):
        said = refusal(client, 422, "/fill", inputs=[MASKED, text])
        assert said == f"Validation: inputs[1] must have one [MASK] to fill; it has {count}."
    for path, verb in (("/tag", "tag"), ("/fill", "fill masks")):
        said = refusal(client, 424, path, model="encoder", inputs="a")
        assert f"is an encoder and cannot {verb}" in said or f"cannot {verb}" in said


def test_hugging_faces_client(folders, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("token-classification", "masked-lm"):
        with serving(load_models([f"{name}={folders[name]}"], threads=1)) as url:
            client, model = hub.InferenceClient(model=url), load(folders[name])
            if name == "masked-lm":
                found = client.fill_mask(MASKED, top_k=2)
                expected = model.fill(MASKED, top_k=2)
                assert [each.token_str for each in found] == [each["token"] for each in expected]
                continue
            found = client.token_classification(TEXTS[0], aggregation_strategy="max")
            expected = model.tag(TEXTS[0], aggregation="max")
            assert [(each.entity_group, each.word, each.start, each.end) for each in found] == [
                (each["label"], each["text"], each["start"], each["end"]) for each in expected
            ]
