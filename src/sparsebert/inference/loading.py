"""Loading a model from a folder or a hub id."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import (
    EncoderConfig,
    Head,
    open_checkpoint,
    read_pooling,
    read_prompts,
    read_score_function,
    resolve_model,
    source_name,
)
from sparsebert.checkpoint.bge_m3 import read_token_weights
from sparsebert.checkpoint.multi_vector import MultiVector, read_multi_vector
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.checkpoint.score_function import read_relevance_function, read_score_prompt
from sparsebert.checkpoint.sparse_routes import read_sparse_routes
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.engine import Encoder
from sparsebert.errors import CheckpointError, reading
from sparsebert.inference.model import Model
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.packing import engine_weights, is_packed, open_packed
from sparsebert.packing.weights import Weights


class UncheckedWarning(UserWarning):
    """A packed folder has no checksums, so damage to it may go unnoticed."""


def load(
    model: str | Path,
    *,
    threads: int | None = None,
    max_length: int | None = None,
    compute: str | None = None,
    copied: bool = False,
) -> Model:
    """Load a packed, sparse or dense model folder, or a hub id, into the engine.

    ``threads`` defaults to SPARSEBERT_NUM_THREADS, else to the number of CPUs that the process may
    use. ``max_length`` is the maximum number of tokens of a text; it defaults to the folder's own
    limit (sentence-transformers' ``max_seq_length``, else the tokenizer's ``model_max_length``) and
    is never more than the model has positions for; queries that a ColBERT model expands to a fixed
    length have that one. ``compute="bf16"`` computes the linear layers of a model stored in
    floating point in bf16, which is faster on a CPU with bf16 instructions (`Model.kernel` says
    whether it has them) and slightly less exact; the default is fp32. Weights are memory-mapped, so
    that processes share them; with ``copied``, they are read into the process's own memory instead,
    where later changes to the files cannot affect them.

    Raises CheckpointError, EngineError, InputError, or PatternError if a recorded pattern is
    broken. Warns (`UncheckedWarning`) about a packed folder without checksums.
    """
    weights: Weights
    with reading(model, CheckpointError):
        folder, name = resolve_model(model), source_name(model)
        if is_packed(folder):
            packed = open_packed(folder, copied=copied)
            if packed.checksums is None:
                warnings.warn(
                    f"{name} was packed without checksums, so damage to it may go unnoticed: add "
                    f"them with `sparsebert inspect {model} --accept`.",
                    UncheckedWarning,
                    stacklevel=2,
                )
            encoder_config, pooling, weights = packed.config, packed.pooling, packed.weights
        else:
            checkpoint = open_checkpoint(folder, copied=copied)
            encoder_config, pooling = checkpoint.config, read_pooling(folder)
            weights = engine_weights(checkpoint)
        tokenizer = folder_tokenizer(
            folder,
            positions=encoder_config.max_length,
            max_length=max_length,
            type_vocab_size=encoder_config.token_types,
        )
        multi_vector = _multi_vector(folder, encoder_config, max_length)
        token_weights = read_token_weights(folder, encoder_config.hidden_size)
        # BGE-M3's heads come on top of its pooling, so they do not replace an unsupported one.
        if pooling is None or (pooling.unsupported and multi_vector and not multi_vector.first):
            pooling = _usual_pooling(name, multi_vector, token_weights)
        config = _with_scores(encoder_config, pooling)
        prompts, score_function = read_prompts(folder), read_score_function(folder, config)
        sparse_routes, score_prompt = read_sparse_routes(folder), read_score_prompt(folder)
        relevance_function = read_relevance_function(folder, config)
        if max_length is not None:
            sparse_routes = sparse_routes.limited(max_length)
    return Model(
        name=name,
        path=folder,
        config=config,
        tokenizer=tokenizer,
        encoder=Encoder(encoder_config, weights, threads=threads, compute=compute),
        weights=weights,
        pooling=pooling,
        sparse_routes=sparse_routes,
        multi_vector=multi_vector,
        token_weights=token_weights,
        prompts=prompts,
        score_function=score_function,
        score_prompt=score_prompt,
        relevance_function=relevance_function,
        load_again=partial(
            _load_again, threads=threads, max_length=max_length, compute=compute, copied=copied
        ),
    )


def _with_scores(config: EncoderConfig, pooling: Pooling) -> EncoderConfig:
    """The config, with a head if the folder's modules after the encoder are one."""
    if not pooling.scores:
        return config
    labels = tuple(f"LABEL_{place}" for place in range(pooling.width(config.hidden_size)))
    return replace(config, head=Head.SEQUENCE, labels=labels)


def _usual_pooling(
    name: str, multi_vector: MultiVector | None, token_weights: VectorLayer | None
) -> Pooling:
    """The pooling of a folder that specifies none."""
    if token_weights is not None or (multi_vector and multi_vector.first):  # BGE-M3's
        return Pooling(("cls",), normalize=True)
    if multi_vector is not None:
        return Pooling(
            unsupported=f"{name} is a multi-vector model, with a vector for each token of a text: "
            "use embed_tokens."
        )
    return Pooling()


def _multi_vector(
    folder: Path, config: EncoderConfig, max_length: int | None
) -> MultiVector | None:
    """The folder's multi-vector settings, with its limits capped at the caller's.

    That is, except for the length to which queries are expanded: it decides their embeddings.
    """
    found = read_multi_vector(folder, config)
    if found is None or max_length is None:
        return found
    lengths = {task: min(length, max_length) for task, length in found.lengths.items()}
    return replace(found, lengths=lengths)


def _load_again(name: str, folder: Path, **options: Any) -> Model:
    """Load a pickled model in another process."""
    model = load(folder, **options)
    model.name = name
    return model
