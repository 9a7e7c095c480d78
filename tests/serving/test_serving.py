"""The server's routes against the models they serve: values, shapes, words and limits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES, long_text
from served import HEADS, serving
from sparsebert import load, pack, prune
from sparsebert.checkpoint.sentence_transformers import write_mean_pooling
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.texts import as_texts
from sparsebert.serving import ServingOptions, create_app, load_models

CONTEXT = " ".join(SENTENCES[:12])


@pytest.fixture(scope="module")
def packed(tiny_bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    prune(tiny_bert(), folder / "sparse")
    pack(folder / "sparse", folder / "packed", dtype="int8")
    return folder / "packed"


@pytest.fixture(scope="module")
def url(tiny_bert) -> Iterator[str]:
    named = [f"{name}={tiny_bert(**sizes)}" for name, sizes in HEADS.items()]
    with serving(load_models(named, threads=1)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url) -> Iterator[Any]:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


def close(found: Any, expected: Any) -> bool:
    """Equal but for the last bits: fp32 pooling sums in an order that depends on the batch."""
    return np.allclose(np.array(found, np.float32), expected, rtol=0, atol=2e-7)


def ask(client: Any, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: Any, status: int, path: str, **body: Any) -> str:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    found = response.json()
    assert set(found) == {"error", "error_type"}
    assert found["error"][-1] == "."
    return f"{found['error_type']}: {found['error']}"


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
        folder = Path(shutil.copytree(tiny_bert(), tmp_path / "prompted"))
        config = folder / "config_sentence_transformers.json"
        config.write_text(json.dumps({"prompts": {"query": "the wall: ", "empty": ""}}))
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
            assert "has no prompt called 'passage'; it has query, empty" in said
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


class TestClassify:
    def test_scores_are_the_models_own(self, client, models):
        found = ask(
            client,
            "/predict",
            model="classifier",
            inputs=[[SENTENCES[0]], [SENTENCES[1], SENTENCES[2]]],
        )
        expected = models["classifier"].classify([SENTENCES[0], (SENTENCES[1], SENTENCES[2])])
        for ours, theirs in zip(found, expected):
            assert [each["label"] for each in ours] == [each["label"] for each in theirs]
            assert [each["score"] for each in ours] == pytest.approx(
                [each["score"] for each in theirs], abs=1e-6
            )

    def test_a_single_text_or_pair_is_a_flat_list(self, client, models):
        for inputs in ("the wall", ["the wall", "the ferry"]):
            found = ask(client, "/predict", model="classifier", inputs=inputs)
            text = tuple(inputs) if isinstance(inputs, list) else inputs
            expected = models["classifier"].classify(text)
            assert [each["label"] for each in found] == [each["label"] for each in expected]

    def test_raw_scores_are_logits(self, client, models):
        found = ask(client, "/predict", model="classifier", inputs="the wall", raw_scores=True)
        logits = models["classifier"].logits("the wall")
        assert [each["score"] for each in found] == pytest.approx(sorted(logits)[::-1], abs=1e-6)

    def test_rerank_orders_by_the_one_logit(self, client, models):
        texts = list(SENTENCES[1:9])
        raw = ask(
            client,
            "/rerank",
            model="reranker",
            query="the old bridge",
            texts=texts,
            raw_scores=True,
        )
        logits = models["reranker"].logits([("the old bridge", text) for text in texts])[:, 0]
        assert [each["index"] for each in raw] == np.argsort(-logits).tolist()
        assert [each["score"] for each in raw] == pytest.approx(sorted(logits)[::-1], abs=1e-6)
        assert "text" not in raw[0]
        named = ask(
            client,
            "/rerank",
            model="reranker",
            query="the old bridge",
            texts=texts,
            return_text=True,
        )
        assert [each["text"] for each in named] == [texts[each["index"]] for each in named]
        assert [each["score"] for each in named] == pytest.approx(
            1 / (1 + np.exp(-np.sort(logits)[::-1])), abs=1e-6
        )

    def test_a_text_of_a_pair_may_be_empty(self, client, models):
        """As in text-embeddings-inference: one empty document fails no other."""
        texts = ["a wall", "", "the ferry"]
        pairs = [("the bridge", text) for text in texts]
        logits = models["reranker"].logits(pairs)[:, 0]
        asked = {"model": "reranker", "query": "the bridge", "texts": texts, "raw_scores": True}
        scores = {each["index"]: each["score"] for each in ask(client, "/rerank", **asked)}
        assert [scores[place] for place in range(3)] == pytest.approx(logits, abs=1e-6)
        asked = {"model": "reranker", "inputs": pairs, "raw_scores": True}
        found = [each[0]["score"] for each in ask(client, "/predict", **asked)]
        assert found == pytest.approx(logits, abs=1e-6)
        for texts in ([], "a"):
            refusal(client, 422, "/rerank", model="reranker", query="a", texts=texts)
        said = refusal(client, 422, "/predict", model="reranker", inputs=[["a"], [""]])
        assert "inputs[1][0] is empty" in said

    def test_the_pair_that_a_model_does_not_take_is_named(self, tiny_bert):
        folder = tiny_bert("sequence-classification", num_labels=1, type_vocab_size=1)
        with serving(load_models([folder], threads=1)) as url, httpx.Client(base_url=url) as other:
            said = refusal(other, 422, "/predict", inputs=[["a"], ["b"], ["c", "d"]])
        assert said.startswith("Tokenizer: inputs[2] is a pair of texts")

    def test_one_label_is_a_sigmoid_unless_it_is_a_regression(self, tiny_bert, client, models):
        (found,) = ask(client, "/predict", model="reranker", inputs="the wall")
        logit = float(models["reranker"].logits("the wall")[0])
        assert found["score"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        folder = tiny_bert("sequence-classification", num_labels=1, problem_type="regression")
        with serving(load_models([folder], threads=1)) as url, httpx.Client(base_url=url) as other:
            (found,) = ask(other, "/predict", inputs="the wall")
        assert found["score"] == pytest.approx(float(load(folder).logits("the wall")[0]), abs=1e-6)


class TestAnswer:
    def test_spans_are_the_models_own(self, client, models):
        inputs = {"question": "Who wrote down the weather?", "context": CONTEXT}
        expected = models["answerer"].answer(*inputs.values(), top_k=3)
        found = ask(client, "/answer", model="answerer", inputs=inputs, parameters={"top_k": 3})
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours["answer"], ours["start"], ours["end"]) == tuple(
                theirs[name] for name in ("text", "start", "end")
            )
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
            assert CONTEXT[ours["start"] : ours["end"]] == ours["answer"]
        (best,) = found[:1]
        assert ask(client, "/answer", model="answerer", inputs=inputs)["answer"] == best["answer"]

    def test_parameters_are_heeded(self, client, models):
        inputs = {"question": "Who wrote down the weather?", "context": CONTEXT}
        found = ask(
            client,
            "/answer",
            model="answerer",
            inputs=inputs,
            parameters={"max_answer_len": 2, "max_seq_len": 40, "doc_stride": 9},
        )
        expected = models["answerer"].answer(
            *inputs.values(), max_answer_length=2, max_length=40, doc_stride=9
        )
        assert found["answer"] == expected["text"]

    def test_that_there_is_no_answer(self, client, models):
        inputs = {"question": "Who?", "context": "Bob built a wall."}
        fields = {"model": "answerer", "inputs": inputs}
        for asked, threshold in ((True, 0.0), (False, float("inf"))):
            parameters = {"handle_impossible_answer": asked, "top_k": 5}
            found = ask(client, "/answer", **fields, parameters=parameters)
            expected = models["answerer"].answer(
                *inputs.values(), top_k=5, null_threshold=threshold
            )
            assert [(each["answer"], each["score"]) for each in found] == [
                (each["text"], pytest.approx(each["score"], rel=1e-5)) for each in expected
            ]
            assert asked or "" not in [each["answer"] for each in found]

    def test_refusals(self, client):
        fields = {"model": "answerer", "inputs": {"question": "Who?", "context": "Bob."}}
        said = refusal(client, 422, "/answer", **fields, parameters={"top_k": 10**6})
        assert "parameters.top_k: input should be less than or equal to 1000" in said
        fields["inputs"] = {"question": "Who?", "context": " "}
        assert "inputs.context is empty" in refusal(client, 422, "/answer", **fields)
        # A window has room for 32 - 3 - 4 tokens, and shares all of them but one with the next.
        fields["inputs"] = {"question": "Who?", "context": "the wall " * 500}
        parameters = {"max_seq_len": 32, "doc_stride": 24}
        said = refusal(client, 413, "/answer", **fields, parameters=parameters)
        assert "more than 512 windows" in said
        parameters["doc_stride"] = 20
        assert ask(client, "/answer", **fields, parameters=parameters)["answer"]


class TestTokens:
    def test_tokenize_says_where_each_token_is(self, client, models):
        text = "Nobody knew, yet"
        (found,) = ask(client, "/tokenize", inputs=text)
        encoding = models["embedder"].tokenizer.backend.encode(text)
        assert [token["id"] for token in found] == encoding.ids
        assert (found[0]["text"], found[0]["special"], found[0]["start"]) == ("[CLS]", True, None)
        for token in found[1:-1]:
            assert token["text"] == text[token["start"] : token["stop"]]
            assert token["special"] is False

    def test_decode_turns_it_back(self, client):
        (tokens,) = ask(client, "/tokenize", inputs="the ferry leaves at noon")
        ids = [token["id"] for token in tokens]
        assert ask(client, "/decode", ids=ids) == ["the ferry leaves at noon"]
        assert ask(client, "/decode", ids=[ids, ids[1:3]], skip_special_tokens=False) == [
            "[CLS] the ferry leaves at noon [SEP]",
            "the ferry",
        ]

    def test_refusals(self, client):
        assert "ids must be a list" in refusal(client, 422, "/decode", ids="the")
        assert "ids[0][1] is not a token id" in refusal(client, 422, "/decode", ids=[5, 2**40])
        assert "ids[1] must be a list" in refusal(client, 422, "/decode", ids=[[5], [True]])
        assert "inputs[0] must be a string" in refusal(client, 422, "/tokenize", inputs=[[5]])
        assert "inputs must be a string" in refusal(client, 422, "/tokenize", inputs=[5])


class TestRoot:
    """``POST /`` is for clients that know an address and no route."""

    def test_the_models_own_route(self, client, models):
        assert ask(client, "/", inputs="the wall") == ask(client, "/embed", inputs="the wall")
        pair = {"source_sentence": "the wall", "sentences": ["a wall", "noon"]}
        assert ask(client, "/", inputs=pair) == ask(client, "/similarity", inputs=pair)
        for model, body in {
            "classifier": {"inputs": "the wall"},
            "answerer": {"inputs": {"question": "What?", "context": "A wall."}},
        }.items():
            route = {"classifier": "/predict", "answerer": "/answer"}[model]
            assert ask(client, "/", model=model, **body) == ask(client, route, model=model, **body)
        ranked = {"model": "reranker", "query": "noon", "texts": ["a", "b"]}
        assert ask(client, "/", **ranked) == ask(client, "/rerank", **ranked)

    def test_sagemakers_names(self, client):
        assert client.get("/ping").json() == {"status": "ok"}
        found = ask(client, "/invocations", inputs="the wall")
        assert found == ask(client, "/embed", inputs="the wall")


class TestNull:
    """In every optional field null means that it was not given."""

    @pytest.mark.parametrize(
        ("path", "body", "optional"),
        [
            (
                "/embed",
                {"inputs": "a"},
                "model truncate truncation_direction prompt_name parameters normalize dimensions",
            ),
            ("/embed_all", {"inputs": "a"}, "model truncate truncation_direction prompt_name"),
            (
                "/similarity",
                {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
                "model parameters truncate truncation_direction",
            ),
            ("/predict", {"inputs": "a"}, "model truncate raw_scores parameters"),
            (
                "/rerank",
                {"query": "a", "texts": ["b"]},
                "model truncate raw_scores return_text truncation_direction",
            ),
            (
                "/v1/rerank",
                {"query": "a", "documents": ["b"]},
                "model top_n return_documents max_tokens_per_doc rank_fields max_chunks_per_doc "
                "truncate truncate_prompt_tokens",
            ),
            ("/answer", {"inputs": {"question": "a", "context": "b"}}, "model parameters"),
            ("/tokenize", {"inputs": "a"}, "model add_special_tokens prompt_name"),
            ("/decode", {"ids": [5]}, "model skip_special_tokens"),
            (
                "/v1/embeddings",
                {"input": "a"},
                "model encoding_format dimensions user truncate truncate_prompt_tokens",
            ),
            (
                "/v2/models/embedder/infer",
                {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]},
                "id parameters outputs",
            ),
        ],
    )
    def test_is_not_given(self, client, path, body, optional):
        nulls = dict.fromkeys(optional.split())
        given, without = ask(client, path, **body, **nulls), ask(client, path, **body)
        for each in (given, without):
            if isinstance(each, dict):
                each.pop("id", None)
        assert given == without

    def test_nested_too(self, client):
        inputs = {"question": "What?", "context": "A wall."}
        nulls = dict.fromkeys(("top_k", "doc_stride", "max_seq_len", "handle_impossible_answer"))
        assert ask(client, "/answer", inputs=inputs, parameters=nulls) == ask(
            client, "/answer", inputs=inputs
        )

    def test_a_required_field_is_missing_then(self, client):
        assert "the body lacks inputs" in refusal(client, 422, "/embed", inputs=None)


class TestParameters:
    """What would change the answer, and is not supported, is refused."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/predict", {"inputs": "a", "parameters": {"candidate_labels": ["x", "y"]}}),
            ("/embed", {"inputs": "a", "parameters": {"candidate_labels": ["x", "y"]}}),
            ("/", {"inputs": "a", "parameters": {"candidate_labels": ["x", "y"]}}),
            (
                "/answer",
                {
                    "inputs": {"question": "a", "context": "b"},
                    "parameters": {"max_question_len": 3},
                },
            ),
            (
                "/similarity",
                {
                    "inputs": {"source_sentence": "a", "sentences": ["b"]},
                    "parameters": {"normalize": False},
                },
            ),
        ],
    )
    def test_unknown_ones(self, client, path, body):
        said = refusal(client, 422, path, **body)
        assert "parameters has a field that is not supported here; supported fields: " in said

    def test_words_are_aligned_by_nobody(self, client):
        inputs = {"question": "What?", "context": "A wall."}
        said = refusal(client, 422, "/answer", inputs=inputs, parameters={"align_to_words": True})
        assert "parameters.align_to_words is not supported: it must be false." in said


class TestLengths:
    """Whatever a 413 advises works."""

    def test_similarity(self, client):
        inputs = {"source_sentence": long_text(99), "sentences": ["b", long_text(98)]}
        said = refusal(client, 413, "/similarity", inputs=inputs)
        assert 'send "truncate": true' in said
        found = ask(client, "/similarity", inputs=inputs, truncate=True)
        assert found == ask(client, "/similarity", inputs=inputs, parameters={"truncate": True})
        left = {"truncate": True, "truncation_direction": "left"}
        assert ask(client, "/similarity", inputs=inputs, parameters=left) != found
        assert "inputs.sentences[1] is longer" in refusal(
            client, 413, "/similarity", inputs={**inputs, "source_sentence": "a"}
        )

    def test_a_text_of_more_characters_than_allowed_is_cut_too(self, client, models):
        text = "the wall " * 11_112
        assert len(text) > 100_000
        assert "inputs has 100008 characters" in refusal(client, 413, "/embed", inputs=text)
        with warnings.catch_warnings(action="ignore"):
            expected = models["embedder"].embed([text], normalize=True)
        assert close(ask(client, "/embed", inputs=text, truncate=True), expected)

    def test_more_than_a_thousand_texts(self, client, models):
        texts = [f"{SENTENCES[place % 20]} {place}" for place in range(1024)]
        found = ask(client, "/v1/embeddings", input=texts)["data"]
        expected = models["embedder"].embed(texts, normalize=True)
        assert close([each["embedding"] for each in found], expected)


class TestWhatFits:
    @pytest.mark.parametrize(
        ("path", "model", "body", "said"),
        [
            ("/predict", "embedder", {"inputs": "a"}, "an encoder without a head"),
            ("/predict", "tagger", {"inputs": "a"}, "a token-classification model"),
            ("/rerank", "embedder", {"query": "a", "texts": ["b"]}, "cannot rerank"),
            ("/rerank", "classifier", {"query": "a", "texts": ["b"]}, "has 3 labels and is not"),
            (
                "/answer",
                "classifier",
                {"inputs": {"question": "a", "context": "b"}},
                "cannot answer questions: that requires a question-answering model",
            ),
        ],
    )
    def test_wrong_heads_are_424(self, client, path, model, body, said):
        found = refusal(client, 424, path, model=model, **body)
        assert found.startswith("Backend: ")
        assert model in found
        assert said in found

    def test_any_head_embeds(self, client, models):
        for name in HEADS:
            found = ask(client, "/embed", model=name, inputs=["the wall"])
            assert close(found, models[name].embed(["the wall"], normalize=True))

    def test_unknown_models_are_404(self, client):
        said = refusal(client, 404, "/embed", model="zebra", inputs="a")
        assert said.startswith("NotFound: this server has no model of that name; it has emb")

    def test_one_model_answers_to_any_name(self, tiny_bert):
        with (
            serving(load_models([f"only={tiny_bert()}"], threads=1)) as url,
            httpx.Client(base_url=url) as client,
        ):
            expected = ask(client, "/embed", inputs="a")
            for name in ("text-embedding-3-small", "", "only"):
                assert ask(client, "/embed", inputs="a", model=name) == expected
                assert ask(client, "/v1/embeddings", input="a", model=name)["model"] == "only"
            assert client.get("/v1/models/text-embedding-3-small").status_code == 404

    def test_without_a_name_the_first_that_can(self, client):
        pair = {"question": "What?", "context": "A wall."}
        for path, model, body in (
            ("/predict", "classifier", {"inputs": "a"}),
            ("/rerank", "reranker", {"query": "a", "texts": ["b", "c"]}),
            ("/answer", "answerer", {"inputs": pair}),
            ("/", "reranker", {"query": "a", "texts": ["b", "c"]}),
            ("/", "answerer", {"inputs": pair}),
            ("/embed", "embedder", {"inputs": "a"}),
        ):
            assert ask(client, path, **body) == ask(client, path, **body, model=model)


class TestStatus:
    def test_info_is_teis_and_lists_every_model(self, client, models):
        info = client.get("/info").json()
        assert info["model_id"] == "embedder"
        assert info["model_type"] == {"embedding": {"pooling": "mean"}}
        assert info["model_dtype"] == "float32"
        assert (info["max_input_length"], info["max_client_batch_size"]) == (64, 2048)
        assert [model["model_id"] for model in info["models"]] == list(HEADS)
        by_name = {model["model_id"]: model for model in info["models"]}
        assert by_name["classifier"]["model_type"]["classifier"]["id2label"]["2"] == "LABEL_2"
        assert list(by_name["reranker"]["model_type"]) == ["reranker"]
        assert by_name["answerer"]["model_type"] == {"question_answering": {}}
        assert by_name["answerer"]["routes"][-1] == "/answer"
        assert by_name["tagger"]["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
        for name, model in by_name.items():
            assert model["storage"] == "dense fp32"
            assert model["sparse"] is False
            assert model["bytes"] == models[name].nbytes

    def test_dense_beside_sparse(self, tiny_bert, packed):
        named = [f"dense={tiny_bert()}", packed]
        with serving(load_models(named, threads=1)) as url, httpx.Client(base_url=url) as client:
            dense, sparse = client.get("/info").json()["models"]
            assert (dense["model_id"], dense["storage"]) == ("dense", "dense fp32")
            assert (sparse["model_id"], sparse["storage"]) == ("packed", "1:2 int8")
            assert sparse["sparse"] is True
            found = ask(client, "/embed", inputs=["the wall"], model="packed")
        expected = load(packed).embed(["the wall"], normalize=True)
        assert np.array_equal(np.array(found, np.float32), expected)

    def test_headers_tell_times_and_counts(self, client, models):
        backend = models["embedder"].tokenizer.backend
        tokens = 2 * len(backend.encode("the ferry leaves").ids)
        headers = client.post("/embed", json={"inputs": ["the ferry leaves"] * 2}).headers
        assert headers["x-compute-type"] == "cpu"
        assert headers["x-compute-characters"] == "32"
        assert headers["x-compute-tokens"] == str(tokens)
        times = {name: float(headers[f"x-{name}-time"]) for name in ("total", "inference", "queue")}
        assert times["total"] >= times["inference"] >= 0
        timing = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
        assert set(timing) == {"tokenization", "queue", "inference", "total"}
        assert 0 < float(timing["inference"]) < float(timing["total"])

    def test_metrics_count_what_happened(self, client):
        def total(line: str) -> float:
            (found,) = (
                each for each in client.get("/metrics").text.split("\n") if each.startswith(line)
            )
            return float(found.split()[-1])

        ask(client, "/embed", inputs=["one"])
        refusal(client, 422, "/embed", inputs=[])
        answered = 'sparsebert_requests_total{route="/embed",status="200"}'
        refused = 'sparsebert_requests_total{route="/embed",status="422"}'
        texts = 'sparsebert_texts_total{model="embedder"}'
        before = {line: total(line) for line in (answered, refused, texts)}
        ask(client, "/embed", inputs=["one", "two"])
        refusal(client, 422, "/embed", inputs=[])
        assert total(answered) == before[answered] + 1
        assert total(refused) == before[refused] + 1
        assert total(texts) == before[texts] + 2
        assert total("sparsebert_requests_in_flight") == 0
        assert total('sparsebert_batch_tokens_sum{model="embedder"}') > 0

    def test_health_and_documentation(self, client):
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/docs").status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/embed", "/predict", "/v1/embeddings", "/v2/models/{name}/infer"} <= set(paths)
        schema = paths["/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("EmbedRequest")
        assert "429" in paths["/embed"]["post"]["responses"]

    def test_unknown_routes_and_methods(self, client):
        response = client.get("/nowhere")
        assert (response.status_code, response.json()["error_type"]) == (404, "NotFound")
        response = client.get("/embed")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


class TestCompany:
    """What a text gives does not depend on what else is being asked."""

    @pytest.mark.parametrize("workers", [1, 2])
    def test_concurrent_answers_equal_single_ones_to_the_bit(self, packed, workers):
        texts = [long_text(count % 35 + 1) for count in range(80)]
        alone = load(packed).embed(texts, batch_size=1, normalize=True)
        served = load_models([packed], threads=1, workers=workers)
        with serving(served, max_batch_tokens=300) as url, httpx.Client(base_url=url) as client:

            def one(place: int) -> bool:
                size = place % 3 + 1
                found = ask(client, "/embed", inputs=texts[place : place + size])
                return np.array_equal(np.array(found, np.float32), alone[place : place + size])

            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(one, range(77)))

    def test_the_real_model(self, minilm):
        expected = load(minilm).embed(SENTENCES, batch_size=1)
        with (
            serving(load_models([f"minilm={minilm}"])) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            assert client.get("/info").json()["max_input_length"] == 256
            found = ask(client, "/embed", inputs=list(SENTENCES))
        assert close(found, expected)


class TestSetUp:
    def test_two_models_of_one_name(self, tiny_bert):
        folder = tiny_bert()
        with pytest.raises(InputError, match="two models are called a: give them other names"):
            load_models([f"a={folder}", f"a={folder}"])
        with pytest.raises(InputError, match="is not a model: write NAME=FOLDER"):
            load_models(["=folder"])
        with pytest.raises(InputError, match="no model to load: pass at least one"):
            load_models([])
        with pytest.raises(InputError, match="no model to serve: pass at least one"):
            create_app([])

    def test_a_batch_must_hold_the_longest_text(self, tiny_bert):
        served = load_models([tiny_bert()])
        with pytest.raises(InputError, match="63 tokens cannot hold the longest text"):
            create_app(served, ServingOptions(max_batch_tokens=63))

    def test_serving_never_imports_torch(self):
        code = (
            "from sparsebert.serving import create_app, load_models; import sys; "
            "print([n for n in sys.modules if n in %r])"
        )
        found = subprocess.run(
            [sys.executable, "-c", code % (["torch", "transformers", "sklearn", "pandas"],)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == "[]"
