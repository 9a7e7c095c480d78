"""Zero-shot similarity: how well the cosine of two texts' embeddings ranks pairs as people did.

What sentence-transformers' ``EmbeddingSimilarityEvaluator`` computes (Reimers & Gurevych 2019):
every text is embedded by itself, pooled as the folder's own modules say (the mean over its tokens
where it has none), and the cosines of the pairs are correlated with the labels. No head and no
training are involved, so it shows in seconds what pruning did to an encoder. Unlike there, cosines
that differ by rounding noise alone rank as equal (`sparsebert.evaluation.metrics`): those of a text
with itself are 1 give or take 2e-16, and their order would be the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import (
    open_checkpoint,
    read_pooling,
    read_prompts,
    transformer_folder,
)
from sparsebert.checkpoint.hub_layouts import check_transformers_reads
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.errors import CheckpointError, DataError
from sparsebert.evaluation.metrics import Scores, regression_scores
from sparsebert.extras import need_extra
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import model_inputs, padded_batch

if TYPE_CHECKING:
    import torch

Embeddings = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Embeddings]
"""Texts to float32 ``[texts, hidden]``."""

_CHUNK = 512  # texts embedded between two reports of progress


def check_pairs(task: Task) -> None:
    """DataError unless the task's rows are pairs of texts with a number for a label."""
    if task.kind is not Kind.REGRESSION or len(task.text_columns) != 2:
        raise DataError(
            f"zero-shot similarity needs pairs of texts with a number for a label, as stsb has "
            f"them; {task.name} has none."
        )


def similarity_scores(examples: Examples, embed: Embed, progress: Progress | None = None) -> Scores:
    """Pearson and Spearman, in percent, between the labels and the cosines of the embeddings."""
    cosines = pair_cosines(examples, embed, progress)
    return regression_scores(examples.task.metrics, cosines, examples.labels.astype(np.float64))


def pair_cosines(
    examples: Examples, embed: Embed, progress: Progress | None = None
) -> npt.NDArray[np.float64]:
    """The cosine of each pair's embeddings, float64 ``[rows]``. DataError for other rows."""
    check_pairs(examples.task)
    assert examples.pairs is not None
    # Many texts come up in several pairs; the longest go first, as batches of like length.
    distinct = sorted({*examples.texts, *examples.pairs}, key=lambda text: (-len(text), text))
    index = {text: number for number, text in enumerate(distinct)}
    report = progress or silent
    label = f"embedding {examples.task.name} {examples.split}"
    parts = []
    for start in range(0, len(distinct), _CHUNK):
        report(label, start, len(distinct))
        parts.append(embed(distinct[start : start + _CHUNK]))
    report(label, len(distinct), len(distinct))
    vectors = np.concatenate(parts).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    left = vectors[[index[text] for text in examples.texts]]
    right = vectors[[index[text] for text in examples.pairs]]
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", left, right)
    return cosines


def torch_embed(folder: Path, *, batch_size: int = 32, max_length: int | None = None) -> Embed:
    """transformers' AutoModel of a dense or sparse folder in fp32, pooled as the folder says.

    ``max_length`` is in tokens and defaults to the folder's own limit; longer texts are cut.
    """
    need_extra("embedding on torch", "torch", "transformers")
    import torch
    from transformers import AutoModel

    from sparsebert.torch_models import quiet_transformers

    pooling = read_pooling(folder) or Pooling()
    _check_plain(pooling, folder)
    check_transformers_reads(transformer_folder(folder))
    with quiet_transformers():
        model = AutoModel.from_pretrained(
            str(transformer_folder(folder)), dtype=torch.float32
        ).eval()
    config = open_checkpoint(folder).config
    tokenizer = folder_tokenizer(folder, positions=config.max_length, max_length=max_length)
    if tokenizer is None:
        raise CheckpointError(
            f"{folder} has no tokenizer.json and no vocabulary, so it cannot read texts: add one."
        )
    prompt = read_prompts(folder).default

    def embed(texts: Sequence[str]) -> Embeddings:
        tokens = tokenizer.encode(as_texts(list(texts), prompt))
        rows = TokenRows.of(
            [each.ids.tolist() for each in tokens], [each.type_ids.tolist() for each in tokens]
        )
        check_ids(folder, config, rows.ids, rows.type_ids)
        order = np.argsort(-rows.lengths, kind="stable")
        vectors = np.empty((len(rows), model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                chunk = order[start : start + batch_size]
                batch = padded_batch(rows, chunk)
                hidden = model(**model_inputs(model, batch)).last_hidden_state
                vectors[chunk] = pool(hidden, batch["attention_mask"], pooling.modes).numpy()
        return vectors

    return embed


def _check_plain(pooling: Pooling, folder: Path) -> None:
    """CheckpointError for a folder whose pooling is followed by layers, on torch."""
    pooling.check()
    if pooling.layers or not pooling.include_prompt:
        raise CheckpointError(
            f"{folder}: what its modules do behind the pooling is computed by the engine only: "
            "leave out --engine torch."
        )


def pool(hidden: torch.Tensor, mask: torch.Tensor, modes: Sequence[str]) -> torch.Tensor:
    """``hidden`` ``[texts, tokens, hidden]`` to ``[texts, features]``, padding (mask 0) left out.

    ``modes`` are those of `sparsebert.checkpoint.pooling.Pooling`, concatenated; padding is on the
    right.
    """
    import torch

    inside = mask.unsqueeze(-1).bool()
    counts = mask.sum(dim=1, keepdim=True)

    def pooled(mode: str) -> torch.Tensor:
        if mode == "cls":
            return hidden[:, 0]
        if mode == "lasttoken":
            return hidden[torch.arange(len(hidden), device=hidden.device), counts[:, 0] - 1]
        if mode == "max":
            return hidden.masked_fill(~inside, -float("inf")).amax(dim=1)
        kept = hidden.masked_fill(~inside, 0)
        if mode == "weightedmean":
            places = torch.arange(1, hidden.shape[1] + 1, device=hidden.device).to(hidden.dtype)
            total = (places * mask).sum(dim=1, keepdim=True)
            return (kept * places[None, :, None]).sum(dim=1) / total
        lengths = counts.to(hidden.dtype)
        return kept.sum(dim=1) / (lengths.sqrt() if mode == "mean_sqrt_len" else lengths)

    return torch.cat([pooled(mode) for mode in modes], dim=-1)
