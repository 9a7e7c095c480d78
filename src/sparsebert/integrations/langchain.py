"""LangChain's embeddings and rerankers on our engine; neither needs torch.

from sparsebert.integrations.langchain import SparsebertEmbeddings

store = InMemoryVectorStore(SparsebertEmbeddings("packed/"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import Head
from sparsebert.errors import InputError, MissingExtraError
from sparsebert.inference import Model, load
from sparsebert.integrations import load_reranker, refuse_unknown, relevance

try:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import Field, PrivateAttr
except ImportError as error:
    raise MissingExtraError(__name__, "langchain") from error


class SparsebertEmbeddings(Embeddings):  # type: ignore[misc]
    """Embeddings from a folder, a hub id or a loaded model, for vector stores and retrievers.

    The prefixes are put before queries and documents, for models that were trained with them (such
    as ``"query: "`` and ``"passage: "`` of E5). By default, the prefixes and ``normalize`` are what
    the folder says: its prompts for queries and for documents, or else its default prompt.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        normalize: bool | None = None,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        self.model = model if isinstance(model, Model) else load(model, threads=threads)
        prompts = self.model.prompts
        self.query_prefix = prompts.query if query_prefix is None else query_prefix
        self.document_prefix = prompts.document if document_prefix is None else document_prefix
        self.normalize = normalize
        self.batch_size = batch_size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The embeddings of documents, one per text."""
        return self._embed(texts, self.document_prefix)

    def embed_query(self, text: str) -> list[float]:
        """The embedding of a query."""
        return self._embed([text], self.query_prefix)[0]

    def _embed(self, texts: list[str], prefix: str) -> list[list[float]]:
        vectors: list[list[float]] = self.model.embed(
            texts, normalize=self.normalize, prompt=prefix, batch_size=self.batch_size
        ).tolist()
        return vectors


class SparsebertCrossEncoder(BaseCrossEncoder):  # type: ignore[misc]
    """A cross-encoder, such as for ``CrossEncoderReranker``, with the scores of ``/rerank``."""

    def __init__(
        self, model: str | Path | Model, *, batch_size: int = 32, threads: int | None = None
    ) -> None:
        """Raises InputError unless the model is a classifier with one label."""
        self.model = load_reranker(model, threads)
        if self.model.config.head is not Head.SEQUENCE:
            raise InputError(
                f"{self.model.name} is a multi-vector model, which does not read pairs: use "
                "SparsebertRerank."
            )
        self.batch_size = batch_size

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """For each pair, how well the second text fits the first."""
        return relevance(self.model, text_pairs, batch_size=self.batch_size)


class SparsebertRerank(BaseDocumentCompressor):  # type: ignore[misc]
    """Keeps the ``top_n`` documents that fit a query best, best first.

    Scores are those of `Model.rerank`, and are added to the metadata as ``relevance_score``.
    """

    top_n: int = Field(3, ge=1)
    batch_size: int = 32
    _model: Model = PrivateAttr()

    def __init__(
        self, model: str | Path | Model, *, threads: int | None = None, **fields: Any
    ) -> None:
        """Raises InputError unless the model has one label, or is a multi-vector model."""
        refuse_unknown(fields, type(self).model_fields)
        super().__init__(**fields)
        self._model = load_reranker(model, threads)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> list[Document]:
        """Copies of the best ``documents``, with their scores."""
        texts = [document.page_content for document in documents]
        ranked = self._model.rerank(query, texts, top_k=self.top_n, batch_size=self.batch_size)
        found = []
        for each in ranked:
            document = documents[each["index"]]
            metadata = {**document.metadata, "relevance_score": each["score"]}
            found.append(document.model_copy(update={"metadata": metadata}))
        return found
