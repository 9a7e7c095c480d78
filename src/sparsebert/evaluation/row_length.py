"""How many tokens of a row are scored: as many as the model reads when it answers.

A score of shorter or longer texts than are served says nothing about what is served.
"""

from __future__ import annotations

from sparsebert.checkpoint import Checkpoint, EncoderConfig
from sparsebert.errors import DataError
from sparsebert.inference.answering import window_length
from sparsebert.inference.folder_tokenizer import folder_tokenizer
from sparsebert.tasks.table import Kind, Task


def text_limit(checkpoint: Checkpoint) -> int:
    """Tokens of a text that a dense or sparse model reads, as `sparsebert.load` has it."""
    positions = checkpoint.config.max_length
    tokenizer = folder_tokenizer(checkpoint.path, positions=positions)
    return tokenizer.max_length if tokenizer else positions


def row_length(task: Task, config: EncoderConfig, limit: int) -> int:
    """Tokens of a row of a task, for a model that reads texts of ``limit`` tokens."""
    return window_length(config, limit) if task.kind is Kind.QUESTION else limit


def check_positions(max_length: int | None, config: EncoderConfig, model: str) -> None:
    """DataError if more tokens a row are asked for than the model has positions."""
    if max_length is not None and max_length > config.max_length:
        raise DataError(
            f"max_length {max_length} is more than the {config.max_length} tokens that {model} has "
            f"positions for: give {config.max_length} at most."
        )
