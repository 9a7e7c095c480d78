"""LangChain's own stores and interfaces over our embeddings and rerankers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES
from sparsebert import load
from sparsebert.errors import InputError

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from sparsebert.integrations.langchain import (
    SparsebertCrossEncoder,
    SparsebertEmbeddings,
    SparsebertRerank,
)

TEXTS = list(SENTENCES)


def test_a_store_finds_what_brute_force_finds(encoder: Path) -> None:
    store = InMemoryVectorStore(SparsebertEmbeddings(encoder, batch_size=3))
    store.add_documents([Document(text, metadata={"place": i}) for i, text in enumerate(TEXTS)])
    model = load(encoder)
    vectors = model.embed(TEXTS, normalize=True)
    cosines = vectors @ model.embed("The boats knocked softly.", normalize=True)
    found = store.similarity_search_with_score("The boats knocked softly.", k=4)
    assert [document.metadata["place"] for document, _ in found] == np.argsort(-cosines)[
        :4
    ].tolist()
    np.testing.assert_allclose([score for _, score in found], np.sort(cosines)[::-1][:4], atol=1e-5)
    retriever = store.as_retriever(search_kwargs={"k": 1})
    assert retriever.invoke(TEXTS[7])[0].page_content == TEXTS[7]


def test_prefixes_and_normalisation(encoder: Path) -> None:
    model = load(encoder)
    embeddings = SparsebertEmbeddings(
        model, query_prefix="query: ", document_prefix="passage: ", normalize=True
    )
    assert embeddings.model is model
    np.testing.assert_allclose(
        embeddings.embed_query("a text"), model.embed("query: a text", normalize=True), atol=1e-6
    )
    np.testing.assert_allclose(
        embeddings.embed_documents(["a text", "b"]),
        model.embed(["passage: a text", "passage: b"], normalize=True),
        atol=1e-6,
    )
    assert embeddings.embed_documents([]) == []


def test_the_folders_prompts_by_default(prompted: Any) -> None:
    model, texts = load(prompted.folder), ["a ferry", "noon"]
    for options, prompts in (
        ({}, (prompted.query, prompted.document)),
        ({"query_prefix": "", "document_prefix": ""}, ("", "")),
    ):
        embeddings = SparsebertEmbeddings(model, **options)
        asked, read = (model.embed(texts, prompt=prompt) for prompt in prompts)
        np.testing.assert_allclose(embeddings.embed_query("noon"), asked[1], atol=1e-6)
        np.testing.assert_allclose(embeddings.embed_documents(texts), read, atol=1e-6)


def test_asynchronous_calls(encoder: Path) -> None:
    embeddings = SparsebertEmbeddings(encoder)
    assert asyncio.run(embeddings.aembed_documents(TEXTS[:3])) == embeddings.embed_documents(
        TEXTS[:3]
    )
    assert asyncio.run(embeddings.aembed_query("a")) == embeddings.embed_query("a")


def test_documents_are_reranked(ranker: Path) -> None:
    query = "When does the ferry leave?"
    documents = [Document(text, metadata={"place": i}) for i, text in enumerate(TEXTS)]
    logits = load(ranker).logits([(query, text) for text in TEXTS])[:, 0]
    expected = 1 / (1 + np.exp(-logits.astype(float)))
    found = SparsebertRerank(ranker, top_n=5, threads=1).compress_documents(documents, query)
    assert [document.metadata["place"] for document in found] == np.argsort(-expected)[:5].tolist()
    np.testing.assert_allclose(
        [document.metadata["relevance_score"] for document in found],
        np.sort(expected)[::-1][:5],
        atol=1e-6,
    )
    assert "relevance_score" not in documents[0].metadata, "the caller's own stay as they are"
    assert SparsebertRerank(ranker).compress_documents([], query) == []
    rerank = SparsebertRerank(ranker, top_n=2)
    assert asyncio.run(rerank.acompress_documents(documents, query)) == found[:2]


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_a_multi_vector_model_reranks(colbert: Path) -> None:
    model, query = load(colbert), "When does the ferry leave?"
    documents = [Document(text) for text in TEXTS]
    found = SparsebertRerank(model, top_n=4).compress_documents(documents, query)
    ranked = model.rerank(query, TEXTS, top_k=4)
    assert [document.page_content for document in found] == [each["text"] for each in ranked]
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == [each["score"] for each in ranked]
    assert SparsebertRerank(model).compress_documents([], query) == []
    with pytest.raises(InputError, match="multi-vector model, which does not read pairs"):
        SparsebertCrossEncoder(model)


def test_none_to_keep_is_refused(ranker: Path) -> None:
    for top_n in (0, -1):
        with pytest.raises(ValueError, match="top_n"):
            SparsebertRerank(ranker, top_n=top_n)


def test_an_argument_of_another_name_is_refused(ranker: Path) -> None:
    with pytest.raises(InputError, match="no argument top_k; there are top_n, batch_size"):
        SparsebertRerank(ranker, top_k=1)


def test_pairs_are_scored(ranker: Path) -> None:
    pairs = list(zip(TEXTS[:4], TEXTS[4:]))
    logits = load(ranker).logits(pairs)[:, 0]
    scores = SparsebertCrossEncoder(ranker, batch_size=2).score(pairs)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(float))), atol=1e-6)
    assert SparsebertCrossEncoder(ranker).score([]) == []


def test_a_regression_keeps_its_scale(tiny_bert: Callable[..., Path]) -> None:
    folder = tiny_bert("sequence-classification", num_labels=1, problem_type="regression")
    pairs = list(zip(TEXTS[:4], TEXTS[4:]))
    logits = load(folder).logits(pairs)[:, 0]
    np.testing.assert_array_equal(SparsebertCrossEncoder(folder).score(pairs), logits)


def test_other_models_do_not_rerank(encoder: Path, tiny_bert: Callable[..., Path]) -> None:
    for folder in (encoder, tiny_bert("sequence-classification")):
        with pytest.raises(InputError, match="is not a reranker"):
            SparsebertRerank(folder)


def test_other_processes_can_be_sent_them(encoder: Path, ranker: Path) -> None:
    embeddings = SparsebertEmbeddings(encoder, query_prefix="query: ", threads=1)
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.embed_query("a text") == embeddings.embed_query("a text")
    pairs = [("a ferry", text) for text in TEXTS[:3]]
    scorer = SparsebertCrossEncoder(ranker, threads=1)
    assert pickle.loads(pickle.dumps(scorer)).score(pairs) == scorer.score(pairs)
