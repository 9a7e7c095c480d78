"""The options of upstream pruning, declared like those of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from sparsebert.errors import TrainingError
from sparsebert.options import Options, option
from sparsebert.training.options import EMBEDDINGS, OPTIMIZERS, PRECISIONS


@dataclass(frozen=True)
class UpstreamOptions(Options):
    """How a pruned model is trained on unlabelled texts to match the dense model.

    ``max_length`` is in tokens. ``pairs`` is the share of texts that are joined with the text that
    follows them. ``embeddings`` says which word embeddings train, as in fine-tuning.

    The weights are those of the terms of the loss; 0 leaves a term out:

    - ``hidden_weight``: hidden states of all layers;
    - ``embedding_weight``: embeddings, for models whose folder says how to pool;
    - ``masked_lm_weight`` and ``token_logits_weight``: masked tokens, and what the dense model
      predicts for them, for models with a masked-LM head. A share ``masked`` of the tokens is then
      masked;
    - ``logits_weight``: logits, for models with the head of a task.

    Raises TrainingError for a value that has the wrong type or is out of range.
    """

    error = TrainingError
    purpose = "training on a corpus"

    seed: int = option(1, least=0, help="Fixes the order of rows and the masked tokens.")
    epochs: float = option(1, above=0, help="Passes over the corpus, above 0.")
    learning_rate: float = option(5e-4, above=0, help="Peak learning rate, above 0.")
    batch_size: int = option(32, least=1, help="Rows per batch; halved when memory runs out.")
    max_length: int = option(
        128, least=8, help="Maximum tokens per row; a longer text is split into several."
    )
    max_rows: int | None = option(
        None, least=1, help="Train on a fixed selection of this many texts.", shown_default="all"
    )
    pairs: float = option(
        0.0,
        least=0,
        below=1,
        help="Share of the texts to join with the one that follows, 0 to below 1.",
    )
    warmup_ratio: float = option(0.05, least=0, below=1)
    schedule: str = option("linear", choices=("linear", "cosine"))
    optimizer: str = option("adamw", choices=OPTIMIZERS)
    weight_decay: float = option(0.0, least=0)
    max_grad_norm: float = option(1.0, least=0)
    precision: str = option("auto", choices=PRECISIONS, metavar="NAME", help="auto, fp32 or bf16.")
    embeddings: str = option(
        "train",
        choices=EMBEDDINGS,
        metavar="NAME",
        help="Word embeddings to train: all (train), only those of words that occur (used) or none "
        "(frozen).",
    )
    masked: float = option(0.15, least=0, below=1)
    hidden_weight: float = option(1.0, least=0)
    embedding_weight: float = option(1.0, least=0)
    masked_lm_weight: float = option(
        1.0,
        least=0,
        help="Weight of a masked-LM head's loss, 0 for none: it makes a SPLADE model unlearn.",
    )
    token_logits_weight: float = option(
        1.0, least=0, help="Weight of the dense model's predictions for masked tokens, 0 for none."
    )
    logits_weight: float = option(1.0, least=0)


class UpstreamKeywords(TypedDict, total=False):
    """`UpstreamOptions` as keyword arguments, for type checkers and editors."""

    seed: int
    epochs: float
    learning_rate: float
    batch_size: int
    max_length: int
    max_rows: int | None
    pairs: float
    warmup_ratio: float
    schedule: str
    optimizer: str
    weight_decay: float
    max_grad_norm: float
    precision: str
    embeddings: str
    masked: float
    hidden_weight: float
    embedding_weight: float
    masked_lm_weight: float
    token_logits_weight: float
    logits_weight: float
