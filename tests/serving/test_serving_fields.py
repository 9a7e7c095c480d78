"""Fields of a request: null, unknown ones, and the lengths that they allow."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES, long_text
from served import ask, close, refusal


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


class TestUnknown:
    """A field is honoured, known to change nothing, or refused."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/embed", {"inputs": "a", "normalise": False}),
            ("/embed", {"inputs": "a", "encoding_format": "base64"}),
            ("/embed_all", {"inputs": "a", "normalize": True}),
            ("/", {"inputs": "a", "pooling": "cls"}),
            ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "top_k": 1}),
            ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"], "top_k": 1}}),
            ("/predict", {"inputs": "a", "top_k": 1}),
            ("/predict", {"inputs": "a", "function_to_apply": "none"}),
            ("/rerank", {"query": "a", "texts": ["b"], "return_documents": True}),
            ("/rerank", {"query": "a", "texts": ["b"], "documents": ["c"]}),
            ("/rerank", {"query": "a", "documents": ["b"], "return_text": True}),
            ("/rerank", {"query": "a", "documents": ["b"], "top_k": 1}),
            ("/answer", {"inputs": {"question": "a", "context": "b"}, "top_k": 2}),
            ("/answer", {"inputs": {"question": "a", "context": "b", "top_k": 2}}),
            ("/tag", {"inputs": "a", "aggregation_strategy": "none"}),
            ("/tokenize", {"inputs": "a", "truncate": True}),
            ("/decode", {"ids": [5], "clean_up_tokenization_spaces": False}),
        ],
    )
    def test_is_refused(self, client, path, body):
        said = refusal(client, 422, path, **body)
        assert "not supported here; supported fields: " in said or "encoding_format" in said

    def test_changes_nothing(self, client):
        """What Hugging Face's API and LiteLLM's client for it also take and send."""
        harmless = {"options": {"wait_for_model": True}, "user": "a"}
        plain = ask(client, "/embed", inputs="a")
        assert ask(client, "/embed", inputs="a", encoding_format="float", **harmless) == plain
        assert ask(client, "/", inputs="a", **harmless) == plain
        texts = {"query": "a", "texts": ["b", "a wall", "c"]}
        found = ask(client, "/rerank", **texts, top_n=2, truncation_direction="Right", **harmless)
        assert found == ask(client, "/rerank", **texts)[:2]


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
