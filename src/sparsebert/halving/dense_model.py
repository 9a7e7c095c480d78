"""The dense model that is to be halved: what kind it is, by its head and its modules."""

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
"""Heads of a model for embeddings, or of one that has no task yet."""


def open_dense(model: str | Path) -> Checkpoint:
    """Open it. CheckpointError if it is damaged, packed or sparse, or cannot be halved."""
    if is_packed(resolve_model(model)):
        raise CheckpointError(
            f"{model} is a packed model: pass the dense folder that it was made from."
        )
    checkpoint = open_checkpoint(model)
    check_in_transformers(checkpoint.config.family, model)
    if checkpoint.pooling is not None and checkpoint.pooling.scores:
        raise CheckpointError(
            f"{model} has a module after the encoder as its head, and halve cannot measure what "
            "such a model keeps: use `sparsebert prune --method second-order` and `sparsebert "
            "pack`."
        )
    check_converted(checkpoint.path)
    if prompt := read_score_prompt(checkpoint.path):
        raise CheckpointError(
            f"{model} is a CrossEncoder that puts {prompt!r} before each text, which distillation "
            "does not do: remove default_prompt_name from its settings, and put the prompt into "
            "the texts."
        )
    if read_masks(checkpoint):
        raise CheckpointError(
            f"{model} is already sparse: fine-tune it with `sparsebert finetune`, or pack it with "
            "`sparsebert pack`; to halve it again, pass the dense model."
        )
    return checkpoint


def gives_labels(checkpoint: Checkpoint) -> bool:
    """Whether the model labels each token, or gives a text several labels."""
    config = checkpoint.config
    if config.head is Head.TOKEN:
        return True
    several = config.head is Head.SEQUENCE and len(config.labels) > 1
    return several and read_score_function(checkpoint.path, config) == "sigmoid"


def kinds_of(checkpoint: Checkpoint) -> tuple[EmbeddingKind, ...]:
    """The kinds of an encoder's embeddings. CheckpointError if they cannot be computed."""
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
    """A sentence on the kind, family and size of the model."""
    config = checkpoint.config
    return (
        f"{checkpoint.source} is {about_head(checkpoint)} "
        f"({config.family.model_type}, {config.num_hidden_layers} x {config.hidden_size})."
    )


def about_head(checkpoint: Checkpoint) -> str:
    """What this kind of model is called, with its article."""
    config = checkpoint.config
    if config.head in ENCODERS:
        kind = kind_without_dense(checkpoint)
        return kind or ("an embedding model" if checkpoint.pooling else "an encoder")
    if config.head is Head.QUESTION:
        return "a question-answering model"
    count = len(config.labels)
    if gives_labels(checkpoint):
        if config.head is Head.TOKEN:
            return f"a model with {count} labels for each token"
        return f"a model that gives a text several of {count} labels"
    return "a model that scores texts" if count == 1 else f"a classifier with {count} labels"
