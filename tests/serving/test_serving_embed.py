"""`/embed` and its relatives against the models: values, lengths, token ids and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentence_folders import with_settings
from sentences import SENTENCES, long_text
from served import ask, close, refusal, serving
from sparsebert import load
from sparsebert.checkpoint.pooling import write_mean_pooling
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from sparsebert.serving import load_models


class TestEmbed:
    def test_every_number_is_the_models_own(self, client, models):
        found = ask(client, "/embed", inputs=list(SENTENCES))
        assert close(found, models["embedder"].embed(SENTENCES, normalize=True))

    def test_a_single_text_is_a_list_of_one(self, client, models):
        found = ask(client, "/embed", inputs="the ferry", normalize=False)
        assert close(found, models["embedder"].embed(["the ferry"], normalize=False))

    def test_dimensions_are_cut_and_scaled_again(self, client, models):
        whole = models["embedder"].embed(SENTENCES[:3], normalize=False)[:, :5]
        found = ask(client, "/embed", inputs=SENTENCES[:3], dimensions=5, normalize=False)
        assert close(found, whole)
        found = np.array(ask(client, "/embed", inputs=SENTENCES[:3], dimensions=5))
        assert found == pytest.approx(
            whole / np.linalg.norm(whole, axis=1, keepdims=True), abs=1e-6
        )

    def test_token_ids_with_and_without_special_tokens(self, client):
        text = "the ferry leaves at noon"
        expected = ask(client, "/embed", inputs=text)
        for special in (True, False):
            (tokens,) = ask(client, "/tokenize", inputs=text, add_special_tokens=special)
            ids = [token["id"] for token in tokens]
            assert ask(client, "/embed", inputs=ids) == expected
            assert ask(client, "/embed", inputs=[ids, text]) == expected * 2

    @pytest.mark.filterwarnings("ignore:.*longer than 64 tokens")
    def test_a_long_text_is_cut_where_asked(self, client, models):
        text = long_text(100)
        said = refusal(client, 413, "/embed", inputs=["short", text])
        assert "inputs[1] is longer than the 64 tokens that embedder takes" in said
        model = models["embedder"]
        for direction in ("Right", "right"):
            found = ask(
                client, "/embed", inputs=text, truncate=True, truncation_direction=direction
            )
            assert close(found, model.embed([text], normalize=True))
        ids = model.tokenizer.backend.encode(text, add_special_tokens=False).ids
        last = model.tokenizer.with_special_tokens(ids[-62:]).ids.tolist()
        left = ask(client, "/embed", inputs=text, truncate=True, truncation_direction="Left")
        assert left == ask(client, "/embed", inputs=last)
        assert left == ask(client, "/embed", inputs=ids, truncate=True, truncation_direction="left")
        assert "inputs is longer" in refusal(client, 413, "/embed", inputs=ids)
        dressed = model.tokenizer.with_special_tokens(ids).ids.tolist()
        for direction in ("left", "right"):
            given = {"truncate": True, "truncation_direction": direction}
            assert ask(client, "/embed", inputs=dressed, **given) == ask(
                client, "/embed", inputs=ids, **given
            )

    def test_embed_all_has_a_row_for_each_token(self, client, models):
        found = ask(client, "/embed_all", inputs=SENTENCES[:4])
        for rows, expected in zip(found, models["embedder"].hidden_states(SENTENCES[:4])):
            assert np.array_equal(np.array(rows, np.float32), expected)

    def test_a_large_answer_is_whole(self, client, models):
        texts = [long_text(30)] * 32
        found = ask(client, "/embed_all", inputs=texts, model="classifier", truncate=True)
        assert np.array(found).shape[0] == 32
        expected = models["classifier"].forward(
            [models["classifier"].tokenizer.backend.encode(texts[0]).ids], head=False
        )[0]
        assert np.array_equal(np.array(found[31], np.float32), expected)

    def test_similarity_is_the_cosine(self, client, models):
        found = ask(
            client,
            "/similarity",
            inputs={"source_sentence": SENTENCES[1], "sentences": SENTENCES[:5]},
        )
        vectors = models["embedder"].embed(SENTENCES[:5], normalize=True)
        assert found == pytest.approx((vectors @ vectors[1]).tolist(), abs=1e-6)

    @pytest.mark.parametrize("blank", [" ", "\n", "\u200b", "\x00"])
    def test_blank_texts_are_texts(self, client, models, blank):
        vectors = models["embedder"].embed(["", "a text"], normalize=True)
        assert close(ask(client, "/embed", inputs=["a text", blank]), vectors[::-1])
        (found,) = ask(client, "/v1/embeddings", input=blank)["data"]
        assert close(found["embedding"], vectors[0])

    def test_prompts_are_sentence_transformers_own(self, tiny_bert, tmp_path):
        prompts = {"query": "the wall: ", "empty": ""}
        folder = with_settings(tiny_bert(), tmp_path / "prompted", prompts=prompts)
        config = folder / "config_sentence_transformers.json"
        with (
            serving(load_models([folder], threads=1)) as address,
            httpx.Client(base_url=address) as client,
        ):
            assert ask(client, "/embed", inputs=["ferry"], prompt_name="query") == ask(
                client, "/embed", inputs=["the wall: ferry"]
            )
            assert ask(client, "/tokenize", inputs="a", prompt_name="query") == ask(
                client, "/tokenize", inputs="the wall: a"
            )
            said = refusal(client, 422, "/embed", inputs="a", prompt_name="passage")
            assert "has no prompt of that name; it has query, empty" in said
            said = refusal(client, 422, "/embed", inputs=[[5, 6]], prompt_name="query")
            assert "can only be used with texts" in said
            assert client.get("/info").json()["models"][0]["prompts"] == ["query", "empty"]
        texts = {"query": "the wall: ", "document": "a bridge: "}
        config.write_text(json.dumps({"prompts": texts, "default_prompt_name": "query"}))
        with (
            serving(load_models([folder], threads=1)) as address,
            httpx.Client(base_url=address) as client,
        ):
            model = load(folder)
            for name, prompt in ((None, None), ("document", "a bridge: "), ("", "")):
                named = {} if name is None else {"prompt_name": name}
                vectors = model.embed(SENTENCES[:3], prompt=prompt, normalize=True)
                found = ask(client, "/embed", inputs=SENTENCES[:3], **named)
                assert np.allclose(found, vectors, atol=1e-5)
                text = ("the wall: " if prompt is None else prompt) + SENTENCES[0]
                found = ask(client, "/embed_all", inputs=SENTENCES[0], **named)
                assert np.allclose(found[0], model.hidden_states(text), atol=1e-4)
            vectors = model.embed(SENTENCES[:3], normalize=True)
            sentences = {"source_sentence": SENTENCES[1], "sentences": SENTENCES[:3]}
            found = ask(client, "/similarity", inputs=sentences)
            assert found == pytest.approx((vectors @ vectors[1]).tolist(), abs=1e-5)
            found = ask(client, "/v1/embeddings", input=SENTENCES[:1], model=model.name)
            assert np.allclose(found["data"][0]["embedding"], vectors[0], atol=1e-5)
            tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": SENTENCES[:3]}
            found = ask(client, f"/v2/models/{model.name}/infer", inputs=[tensor])
            assert np.allclose(
                found["outputs"][0]["data"], model.embed(SENTENCES[:3]).ravel(), atol=1e-4
            )
            ids = model.tokenizer.encode(as_texts("the wall: ferry"))[0].ids.tolist()
            assert ask(client, "/embed", inputs=[ids]) == ask(client, "/embed", inputs="ferry")
        config.write_text(json.dumps({"prompts": ["query"]}))
        with pytest.raises(CheckpointError, match="'prompts' must map names"):
            load_models([folder])

    def test_a_prompt_that_is_not_pooled_takes_nothing_off_token_ids(self, tiny_bert, tmp_path):
        folder = Path(shutil.copytree(tiny_bert(), tmp_path / "prompted"))
        write_mean_pooling(folder, load(folder).config.hidden_size, 64)
        pooling = folder / "1_Pooling/config.json"
        pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": {"query": "the wall: "}, "default_prompt_name": "query"})
        )
        model = load(folder)
        ids = model.tokenizer.encode(as_texts(SENTENCES[0]))[0].ids.tolist()
        expected = [
            model.embed(SENTENCES[0], prompt="", normalize=True),
            model.embed(SENTENCES[0], normalize=True),
        ]
        assert not np.allclose(*expected, atol=1e-3)
        with (
            serving(load_models([folder], threads=1)) as address,
            httpx.Client(base_url=address) as client,
        ):
            assert close(ask(client, "/embed", inputs=[ids, SENTENCES[0]]), expected)
            assert "empty" in refusal(client, 422, "/embed", inputs=[])
