"""The dense model that is to be halved: what it is, by its head and its modules."""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint import (
    Checkpoint,
    Head,
    open_checkpoint,
    read_masks,
    read_score_function,
    resolve_model,
)
from sparsebert.checkpoint.bge_m3 import check_converted
from sparsebert.checkpoint.embedding_kinds import (
    EmbeddingKind,
    embedding_kinds,
    kind_without_dense,
)
from sparsebert.checkpoint.hub_configs import check_in_transformers
from sparsebert.checkpoint.multi_vector import read_multi_vector
from sparsebert.checkpoint.score_function import read_score_prompt
from sparsebert.checkpoint.sparse_routes import SparsePooling, read_sparse_routes
from sparsebert.errors import CheckpointError
from sparsebert.packing import is_packed

ENCODERS = (Head.ENCODER, Head.MASKED_LM)
"""Heads of a model that is for embeddings, or yet for no task."""


def open_dense(model: str | Path) -> Checkpoint:
    """Open it. CheckpointError for one that is damaged, packed or sparse, or cannot be halved."""
    if is_packed(resolve_model(model)):
        raise CheckpointError(
            f"{model} is a packed model: give the dense folder that it was made from."
        )
    checkpoint = open_checkpoint(model)
    check_in_transformers(checkpoint.config.family, model)
    if checkpoint.pooling is not None and checkpoint.pooling.scores:
        raise CheckpointError(
            f"{model} is a model whose head is a module behind the encoder, and halve has no "
            "measure of what one keeps: use `sparsebert prune --method second-order` and "
            "`sparsebert pack`."
        )
    check_converted(checkpoint.path)
    if prompt := read_score_prompt(checkpoint.path):
        raise CheckpointError(
            f"{model} is a CrossEncoder that puts {prompt!r} before each text, which distillation "
            "does not: take default_prompt_name out of its settings, and put the prompt into the "
            "texts."
        )
    if read_masks(checkpoint):
        raise CheckpointError(
            f"{model} is sparse already: fine-tune it with `sparsebert finetune`, or pack it with "
            "`sparsebert pack`; to halve it anew, give the dense model."
        )
    return checkpoint


def gives_labels(checkpoint: Checkpoint) -> bool:
    """Whether it labels each token, or gives a text several labels."""
    config = checkpoint.config
    if config.head is Head.TOKEN:
        return True
    several = config.head is Head.SEQUENCE and len(config.labels) > 1
    return several and read_score_function(checkpoint.path, config) == "sigmoid"


def kinds_of(checkpoint: Checkpoint) -> tuple[EmbeddingKind, ...]:
    """Those of an encoder's embeddings. CheckpointError if they cannot be computed."""
    config = checkpoint.config
    if config.head not in ENCODERS:
        return ("dense",)
    kinds = embedding_kinds(checkpoint)
    if kinds[0] == "sparse":
        documents = read_sparse_routes(checkpoint.path).of("document")
        if isinstance(documents, SparsePooling):
            documents.check()
    elif kinds[0] == "tokens":
        tokens = read_multi_vector(checkpoint.path, config)
        assert tokens is not None
        tokens.check()
    return kinds


def about_model(checkpoint: Checkpoint) -> str:
    """One sentence: what it is, of which family and size."""
    config = checkpoint.config
    return (
        f"{checkpoint.source} is {about_head(checkpoint)} "
        f"({config.family.model_type}, {config.num_hidden_layers} x {config.hidden_size})."
    )


def about_head(checkpoint: Checkpoint) -> str:
    """What it is called, with its article."""
    config = checkpoint.config
    if config.head in ENCODERS:
        kind = kind_without_dense(checkpoint)
        return kind or ("an embedding model" if checkpoint.pooling else "an encoder")
    if config.head is Head.QUESTION:
        return "a question-answering model"
    count = len(config.labels)
    if gives_labels(checkpoint):
        each = "token" if config.head is Head.TOKEN else "text, several at once"
        return f"a model of {count} labels for each {each}"
    return "a model that scores texts" if count == 1 else f"a classifier of {count} labels"
