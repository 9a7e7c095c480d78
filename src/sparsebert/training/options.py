"""The options of a fine-tuning run, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sparsebert.errors import TrainingError

# Name of an optimiser to what TrainingArguments calls it, and its arguments there.
OPTIMIZERS: dict[str, dict[str, str]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"},
    "adafactor": {"optim": "adafactor"},
}


@dataclass(frozen=True)
class FinetuneOptions:
    """What `finetune` was asked for, under the names of transformers' TrainingArguments."""

    seed: int
    epochs: float
    learning_rate: float
    batch_size: int
    max_length: int | None
    warmup_ratio: float
    weight_decay: float
    max_rows: int | None
    optimizer: str
    gradient_accumulation: int
    max_grad_norm: float
    early_stopping: int
    dropout: float | None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise TrainingError(
                f"'{self.optimizer}' is not an optimizer: choose {', '.join(OPTIMIZERS)}."
            )
        for name, least in (
            ("batch_size", 1),
            ("gradient_accumulation", 1),
            ("max_length", 8),
            ("max_rows", 1),
            ("seed", 0),
            ("early_stopping", 0),
        ):
            value = getattr(self, name)
            if value is not None and (value < least or value != int(value)):
                raise TrainingError(f"{name} must be a whole number from {least}, not {value}.")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"{name} must be greater than 0, not {value}.")
        for name in ("weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} must not be negative, and is {value}.")
        for name in ("warmup_ratio", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise TrainingError(f"{name} must be at least 0 and below 1, not {value}.")

    def as_dict(self) -> dict[str, Any]:
        """All options, ready for JSON."""
        return asdict(self)
