"""LlamaIndex's embeddings and reranker on our engine; neither needs torch.

from sparsebert.integrations.llama_index import SparsebertEmbedding

Settings.embed_model = SparsebertEmbedding("packed/")
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sparsebert.errors import InputError, MissingExtraError
from sparsebert.inference import Model, load
from sparsebert.integrations import load_reranker, refuse_unknown

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise MissingExtraError(__name__, "llama-index") from error


class SparsebertEmbedding(BaseEmbedding):  # type: ignore[misc]
    """Embeddings from a folder, a hub id or a loaded model, for indexes and retrievers.

    The instructions are put before queries and texts, for models that were trained with them. By
    default, the instructions and ``normalize`` are what the folder says: its prompts for queries
    and for documents, or else its default prompt. ``embed_batch_size`` is LlamaIndex's own.
    """

    query_instruction: str | None = None
    text_instruction: str | None = None
    normalize: bool | None = None
    _model: Model = PrivateAttr()

    def __init__(
        self, model: str | Path | Model, *, threads: int | None = None, **fields: Any
    ) -> None:
        refuse_unknown(fields, type(self).model_fields)
        found = model if isinstance(model, Model) else load(model, threads=threads)
        super().__init__(**{"model_name": found.name, **fields})
        if self.query_instruction is None:
            self.query_instruction = found.prompts.query
        if self.text_instruction is None:
            self.text_instruction = found.prompts.document
        self._model = found

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in stored indexes."""
        return "SparsebertEmbedding"

    def _embed(self, texts: list[str], instruction: str | None) -> list[list[float]]:
        vectors: list[list[float]] = self._model.embed(
            texts,
            normalize=self.normalize,
            prompt=instruction,
            batch_size=self.embed_batch_size,
        ).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], self.query_instruction)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, self.text_instruction)

    # The engine releases the GIL while it works, so a thread keeps the event loop free.
    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class SparsebertRerank(BaseNodePostprocessor):  # type: ignore[misc]
    """Keeps the ``top_n`` nodes that fit a query best, with the scores of `Model.rerank`."""

    top_n: int = Field(2, ge=1)
    batch_size: int = 32
    _model: Model = PrivateAttr()

    def __init__(
        self, model: str | Path | Model, *, threads: int | None = None, **fields: Any
    ) -> None:
        """Raises InputError unless the model has one label, or is a multi-vector model."""
        refuse_unknown(fields, type(self).model_fields)
        super().__init__(**fields)
        self._model = load_reranker(model, threads)

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in stored settings."""
        return "SparsebertRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("a reranker needs the query: pass query_str or query_bundle.")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self._model.rerank(
            query_bundle.query_str, texts, top_k=self.top_n, batch_size=self.batch_size
        )
        return [
            NodeWithScore(node=nodes[each["index"]].node, score=each["score"]) for each in ranked
        ]
