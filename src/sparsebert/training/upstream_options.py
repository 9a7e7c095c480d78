"""The options of upstream pruning, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sparsebert.errors import TrainingError
from sparsebert.training.options import EMBEDDINGS, OPTIMIZERS, PRECISIONS, check_types


@dataclass(frozen=True)
class UpstreamOptions:
    """How a one-shot pruned encoder is trained against its dense self on unlabelled text.

    ``max_length`` is in tokens; ``pairs`` is the share of texts that are joined with their
    neighbour. ``embeddings``, as in fine-tuning, says which word embeddings train. The weights are
    those of the loss's terms, 0 leaves one out: ``last_layer_weight`` is that of the last layer
    within the hidden-state term, beside 1 for every other; the embedding and similarity terms are
    for models that say how they pool; the masked-LM terms for those with such a head, of whose
    tokens a share ``masked`` is then masked.
    """

    seed: int = 1
    epochs: float = 1
    learning_rate: float = 5e-4
    batch_size: int = 32
    max_length: int = 128
    max_rows: int | None = None
    pairs: float = 0.0
    warmup_ratio: float = 0.05
    schedule: str = "linear"
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "auto"
    embeddings: str = "train"
    masked: float = 0.15
    hidden_weight: float = 1.0
    last_layer_weight: float = 1.0
    embedding_weight: float = 1.0
    similarity_weight: float = 0.0
    masked_lm_weight: float = 1.0
    token_logits_weight: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        for name, known in (
            ("optimizer", tuple(OPTIMIZERS)),
            ("precision", PRECISIONS),
            ("embeddings", EMBEDDINGS),
            ("schedule", ("linear", "cosine")),
        ):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"{name} must be one of {', '.join(known)}, not '{getattr(self, name)}'."
                )
        for name, least in (("seed", 0), ("batch_size", 1), ("max_length", 8), ("max_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TrainingError(f"{name} must be a whole number from {least}, not {value}.")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"{name} must be greater than 0, not {value}.")
        for name in ("weight_decay", "max_grad_norm", *_WEIGHTS):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} must not be negative, and is {value}.")
        for name in ("warmup_ratio", "masked", "pairs"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise TrainingError(f"{name} must be at least 0 and below 1, not {value}.")

    def as_dict(self) -> dict[str, Any]:
        """All options, ready for JSON."""
        return asdict(self)


_WEIGHTS = (
    "hidden_weight",
    "last_layer_weight",
    "embedding_weight",
    "similarity_weight",
    "masked_lm_weight",
    "token_logits_weight",
)
