"""Whether a model has an embedding for every id that a tokenizer gave."""

from __future__ import annotations

from collections.abc import Iterator

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.errors import CheckpointError
from sparsebert.tasks.tokens import TokenRows


def check_ids(checkpoint: Checkpoint, rows: TokenRows) -> None:
    """CheckpointError if the model's own tokenizer gave an id that the model does not have."""
    for what, most, have in unknown_ids(checkpoint.config, rows):
        raise CheckpointError(
            f"the tokenizer of {checkpoint.path} gives {what} id {most}, and the model has {have} "
            "of them: they do not belong together."
        )


def unknown_ids(config: EncoderConfig, rows: TokenRows) -> Iterator[tuple[str, int, int]]:
    """Kinds of ids that go beyond the model: the kind, the largest id, how many the model has."""
    kinds = [("token", rows.ids, config.vocab_size)]
    if config.family.token_types:
        kinds.append(("token type", rows.type_ids, config.type_vocab_size))
    for what, ids, have in kinds:
        most = int(ids.max(initial=0))
        if most >= have:
            yield what, most, have
