"""What a folder's modules make of a text: one vector, or a weight or vector for each token."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sparsebert.checkpoint.bge_m3 import read_token_weights
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.modules import read_modules
from sparsebert.checkpoint.multi_vector import read_multi_vector
from sparsebert.checkpoint.sparse_routes import SPLADE_MODULE

EmbeddingKind = Literal["dense", "sparse", "tokens"]


def embedding_kinds(checkpoint: Checkpoint) -> tuple[EmbeddingKind, ...]:
    """The kinds of a model's embeddings, its main one first; none for a model that makes scores.

    A folder without modules makes dense ones from its last layer. BGE-M3 makes all three.
    """
    folder, pooling, config = checkpoint.path, checkpoint.pooling, checkpoint.config
    if pooling is not None and pooling.scores:
        return ()
    if is_splade(folder):
        return ("sparse",)
    tokens = read_multi_vector(folder, config)
    if tokens is not None and not tokens.first:  # ColBERT; in BGE-M3, the first token has no vector
        return ("tokens",)
    found: list[EmbeddingKind] = ["dense"]
    if read_token_weights(folder, config.hidden_size) is not None:
        found.append("sparse")
    return (*found, "tokens") if tokens else tuple(found)


def is_splade(folder: Path) -> bool:
    """Whether its modules make sparse embeddings of a masked-LM head's logits (SPLADE)."""
    return any(module.kind == SPLADE_MODULE for module in read_modules(folder))


def kind_without_dense(checkpoint: Checkpoint) -> str:
    """What a model without dense embeddings is; "" for all others.

    Its modules make scores, sparse embeddings, or only token vectors; BGE-M3 also has dense ones.
    """
    kinds = embedding_kinds(checkpoint)
    if not kinds:
        return "a model whose head is a module after the encoder"
    return {
        "dense": "",
        "sparse": "a model for sparse embeddings (SPLADE)",
        "tokens": "a multi-vector model (ColBERT)",
    }[kinds[0]]
