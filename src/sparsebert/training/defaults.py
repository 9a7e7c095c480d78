"""The defaults of a fine-tuning run that depend on the model, the task and the number of rows.

The usual 3 epochs at 5e-5 with dropout come from BERT-base on large tasks (Devlin et al. 2019).
Narrower or pruned models have less capacity and do better without dropout, narrow ones also at a
higher rate, as every search on held-out rows behind the recipes has found. And with a few hundred
rows, 3 epochs are too few steps for any model (Mosbach et al. 2021, arXiv 2006.04884, use 20).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsebert.checkpoint import Checkpoint, EncoderConfig
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.evaluation.scored_rows import check_positions, text_limit
from sparsebert.options import option
from sparsebert.tasks.table import Kind, Task
from sparsebert.training.options import FinetuneOptions

_WIDE = 768  # hidden size of BERT-base; narrower models count as small
_EPOCHS, _MOST_EPOCHS = 3, 20
_FEWEST_STEPS = 300  # optimiser steps; with few rows, the number of epochs is raised to reach them

# On a CPU, the backward pass of torch's fused attention is far slower than plain matrix products,
# but fused attention saves memory. MiniLM in bf16, processor time of forward and backward pass with
# fused attention relative to plain: 1.31 at 32 tokens, 1.27 at 128, 1.17 at 256, 1.01 at 320 (with
# dropout 1.06, 1.09 and 1.17, because torch has no fused attention with dropout on the CPU and
# falls back to its own plain version). What plain attention keeps for the backward pass grows with
# the square of the length, hence this limit.
LONGEST_PLAIN = 256  # tokens


@dataclass(frozen=True)
class RunOptions(FinetuneOptions):
    """`FinetuneOptions` with all choices made; ``dropout`` None means the model's own rates."""

    epochs: float = option(_EPOCHS, above=0)
    learning_rate: float = option(5e-5, above=0)
    max_length: int = option(Task.max_length, least=8)


def with_defaults(
    options: FinetuneOptions, checkpoint: Checkpoint, task: Task, rows: int
) -> RunOptions:
    """The options of a run that trains ``checkpoint`` on ``rows`` rows of a task.

    Raises DataError if ``max_length`` exceeds the model's positions.
    """
    config = checkpoint.config
    check_positions(options.max_length, config, str(checkpoint.path))
    chosen: dict[str, Any] = {
        "max_length": min(task.max_length, _longest(checkpoint, task)),
        "scale": _scale(checkpoint) if task.kind is Kind.RETRIEVAL else None,
        "learning_rate": 1e-4 if _is_small(config) else 5e-5,
        "dropout": usual_dropout(config, options.method),
        "epochs": _epochs(rows / (options.batch_size * options.gradient_accumulation)),
    }
    given = options.as_dict()
    left_open = {name: value for name, value in chosen.items() if given[name] is None}
    return RunOptions(**{**given, **left_open})


def _longest(checkpoint: Checkpoint, task: Task) -> int:
    """The model's number of positions; for an embedding task, the tokens that it reads."""
    return text_limit(checkpoint) if task.embeds else checkpoint.config.max_length


def _scale(checkpoint: Checkpoint) -> float:
    return 20.0 if read_similarity(checkpoint.path) == "cosine" else 1.0


def usual_dropout(config: EncoderConfig, method: str = "lock") -> float | None:
    """0 for models that are small, sparse or being pruned; None (the model's own) for others."""
    sparse = config.recorded_pattern is not None or method != "lock"
    return 0.0 if sparse or _is_small(config) else None


def _is_small(config: EncoderConfig) -> bool:
    return config.hidden_size < _WIDE


def _epochs(steps_of_one: float) -> float:
    """3, or as many as it takes to make 300 steps, up to 20."""
    enough = -(-_FEWEST_STEPS // max(steps_of_one, 1e-9))
    return float(min(max(_EPOCHS, enough), _MOST_EPOCHS))
