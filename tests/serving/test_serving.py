"""The server's routes against the models they serve: values, shapes, words and limits."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES, long_text
from served import HEADS, ask, close, refusal, serving
from sparsebert import load, pack, prune
from sparsebert.errors import InputError
from sparsebert.serving import ServingOptions, create_app, load_models

CONTEXT = " ".join(SENTENCES[:12])


@pytest.fixture(scope="module")
def packed(tiny_bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    prune(tiny_bert(), folder / "sparse")
    pack(folder / "sparse", folder / "packed", dtype="int8")
    return folder / "packed"


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
