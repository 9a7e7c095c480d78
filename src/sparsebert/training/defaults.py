"""The defaults of a fine-tuning run that depend on the model, the task and the number of rows.

The usual 3 epochs at 5e-5 with dropout come from BERT-base on large tasks (Devlin et al. 2019). A
model that is narrower or pruned has less capacity and does better at a higher rate and without
dropout, as every search on held-out rows behind the recipes has found; and a few hundred rows make
too few steps in 3 epochs for any model (Mosbach et al. 2021, arXiv 2006.04884, take 20).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsebert.checkpoint import Checkpoint, EncoderConfig
from sparsebert.checkpoint.sentence_transformers import read_similarity
from sparsebert.evaluation.scoring import check_positions, text_limit
from sparsebert.options import option
from sparsebert.tasks.table import Kind, Task
from sparsebert.training.options import FinetuneOptions

_WIDE = 768  # hidden size of BERT-base, from which on a model is not called small
_EPOCHS, _MOST_EPOCHS = 3, 20
_FEWEST_STEPS = 300  # optimiser steps that more epochs make of a few rows

# On a CPU torch's fused attention computes its backward pass far slower than plain matrix products,
# but it saves memory. MiniLM in bf16, processor time of forward and backward with fused attention
# over that with plain: 1.31 at 32 tokens, 1.27 at 128, 1.17 at 256, 1.01 at 320 (with dropout 1.06,
# 1.09 and 1.17: the CPU has no fused attention with dropout, and computes it plainly there too).
# What plain attention keeps for the backward pass grows with the square of the length, hence not
# further than this.
LONGEST_PLAIN = 256  # tokens


@dataclass(frozen=True)
class RunOptions(FinetuneOptions):
    """`FinetuneOptions` with nothing left open; ``dropout`` None is the model's own."""

    epochs: float = option(_EPOCHS, above=0)
    learning_rate: float = option(5e-5, above=0)
    max_length: int = option(Task.max_length, least=8)


def with_defaults(
    options: FinetuneOptions, checkpoint: Checkpoint, task: Task, rows: int
) -> RunOptions:
    """The options of a run that trains ``checkpoint`` on so many ``rows`` of a task.

    Raises DataError if ``max_length`` is beyond the model's positions.
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
    """Tokens that the model has positions for; of an embedding model those that it reads."""
    return text_limit(checkpoint) if task.embeds else checkpoint.config.max_length


def _scale(checkpoint: Checkpoint) -> float:
    return 20.0 if read_similarity(checkpoint.path) == "cosine" else 1.0


def usual_dropout(config: EncoderConfig, method: str = "lock") -> float | None:
    """0 for a small model and one that is sparse or becomes so; None, its own, for any other."""
    sparse = config.recorded_pattern is not None or method != "lock"
    return 0.0 if sparse or _is_small(config) else None


def _is_small(config: EncoderConfig) -> bool:
    return config.hidden_size < _WIDE


def _epochs(steps_of_one: float) -> float:
    """3, or as many whole ones up to 20 as it takes to make 300 steps."""
    enough = -(-_FEWEST_STEPS // max(steps_of_one, 1e-9))
    return float(min(max(_EPOCHS, enough), _MOST_EPOCHS))
