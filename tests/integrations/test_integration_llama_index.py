"""LlamaIndex's own index over our embeddings and reranker."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES
from sparsebert import load
from sparsebert.errors import InputError

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode

from sparsebert.integrations.llama_index import SparsebertEmbedding, SparsebertRerank

TEXTS = list(SENTENCES)


def test_an_index_finds_what_brute_force_finds(encoder: Path) -> None:
    embedding = SparsebertEmbedding(encoder, embed_batch_size=3, threads=1)
    nodes = [TextNode(text=text, id_=str(place)) for place, text in enumerate(TEXTS)]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    model = load(encoder)
    vectors = model.embed(TEXTS, normalize=True)
    cosines = vectors @ model.embed("The boats knocked softly.", normalize=True)
    best = np.argsort(-cosines)[:4]
    found = index.as_retriever(similarity_top_k=4).retrieve("The boats knocked softly.")
    assert [each.node.node_id for each in found] == [str(place) for place in best]
    np.testing.assert_allclose([each.score for each in found], cosines[best], atol=1e-5)


def test_instructions_and_normalisation(encoder: Path) -> None:
    model = load(encoder)
    embedding = SparsebertEmbedding(
        model, query_instruction="query: ", text_instruction="passage: ", normalize=True
    )
    np.testing.assert_allclose(
        embedding.get_query_embedding("a text"),
        model.embed("query: a text", normalize=True),
        atol=1e-6,
    )
    expected = model.embed(["passage: a text", "passage: b"], normalize=True)
    np.testing.assert_allclose(
        embedding.get_text_embedding_batch(["a text", "b"]), expected, atol=1e-6
    )
    np.testing.assert_allclose(embedding.get_text_embedding("b"), expected[1], atol=1e-6)
    assert embedding.model_name == model.name
    assert embedding.to_payload()["class_name"] == "SparsebertEmbedding"


def test_the_folders_prompts_by_default(prompted: Any) -> None:
    model, texts = load(prompted.folder), ["a ferry", "noon"]
    for options, prompts in (
        ({}, (prompted.query, prompted.document)),
        ({"query_instruction": "", "text_instruction": ""}, ("", "")),
    ):
        embeddings = SparsebertEmbedding(model, **options)
        asked, read = (model.embed(texts, prompt=prompt) for prompt in prompts)
        np.testing.assert_allclose(embeddings.get_query_embedding("noon"), asked[1], atol=1e-6)
        np.testing.assert_allclose(embeddings.get_text_embedding_batch(texts), read, atol=1e-6)


def test_asynchronous_calls(encoder: Path) -> None:
    embedding = SparsebertEmbedding(encoder)

    async def calls() -> list[list[float]]:
        found = await embedding.aget_text_embedding_batch(TEXTS[:2])
        return [
            *found,
            await embedding.aget_query_embedding("a"),
            await embedding.aget_text_embedding("b"),
        ]

    expected = load(encoder).embed([*TEXTS[:2], "a", "b"])
    np.testing.assert_allclose(asyncio.run(calls()), expected, atol=1e-5)


def test_nodes_are_reranked(ranker: Path) -> None:
    query = "When does the ferry leave?"
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.5)
        for place, text in enumerate(TEXTS)
    ]
    logits = load(ranker).logits([(query, text) for text in TEXTS])[:, 0]
    expected = 1 / (1 + np.exp(-logits.astype(float)))
    best = np.argsort(-expected)[:5]
    rerank = SparsebertRerank(ranker, top_n=5)
    found = rerank.postprocess_nodes(nodes, query_str=query)
    assert [each.node.node_id for each in found] == [str(place) for place in best]
    np.testing.assert_allclose([each.score for each in found], expected[best], atol=1e-6)
    assert nodes[0].score == 0.5, "the caller's own stay as they are"
    assert rerank.postprocess_nodes([], query_str=query) == []
    with pytest.raises(InputError, match="needs the query"):
        rerank.postprocess_nodes(nodes)


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_a_multi_vector_model_reranks(colbert: Path) -> None:
    model, query = load(colbert), "When does the ferry leave?"
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = SparsebertRerank(model, top_n=4).postprocess_nodes(nodes, query_str=query)
    ranked = model.rerank(query, TEXTS, top_k=4)
    assert [each.node.text for each in found] == [each["text"] for each in ranked]
    assert [each.score for each in found] == [each["score"] for each in ranked]
    with pytest.raises(ValueError, match="top_n"):
        SparsebertRerank(model, top_n=0)


def test_an_argument_of_another_name_is_refused(encoder: Path, ranker: Path) -> None:
    with pytest.raises(InputError, match="no argument query_prefix; there are .*query_instruction"):
        SparsebertEmbedding(encoder, query_prefix="query: ")
    with pytest.raises(InputError, match="no argument top_k; there are .*top_n"):
        SparsebertRerank(ranker, top_k=1)
    assert SparsebertEmbedding(encoder, embed_batch_size=4).embed_batch_size == 4


def test_other_models_do_not_rerank(encoder: Path) -> None:
    with pytest.raises(InputError, match="is not a reranker"):
        SparsebertRerank(encoder)


def test_pipelines_of_several_processes_can_carry_them(encoder: Path, ranker: Path) -> None:
    embedding = SparsebertEmbedding(encoder, query_instruction="query: ", threads=1)
    again = pickle.loads(pickle.dumps(embedding))
    assert again.get_query_embedding("a text") == embedding.get_query_embedding("a text")
    deep = embedding.model_copy(deep=True)
    assert deep.get_text_embedding("a text") == embedding.get_text_embedding("a text")
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS[:4]]
    rerank = SparsebertRerank(ranker, top_n=2, threads=1)
    found, expected = (
        each.postprocess_nodes(nodes, query_str="a ferry")
        for each in (pickle.loads(pickle.dumps(rerank)), rerank)
    )
    assert [each.score for each in found] == [each.score for each in expected]
