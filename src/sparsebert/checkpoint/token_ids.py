"""Whether a model has an embedding for every id that a tokenizer gave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.errors import CheckpointError

Integers = npt.NDArray[np.integer[Any]]


def check_ids(name: str | Path, config: EncoderConfig, ids: Integers, type_ids: Integers) -> None:
    """CheckpointError if the own tokenizer of the model ``name`` gave an id that it does not have.

    ``ids`` and ``type_ids`` are integers ``[tokens]``.
    """
    for what, most, have in unknown_ids(config, ids, type_ids):
        raise CheckpointError(
            f"the tokenizer of {name} gives {what} id {most}, and the model has {have} of them: "
            "they do not belong together."
        )


def unknown_ids(
    config: EncoderConfig, ids: Integers, type_ids: Integers
) -> Iterator[tuple[str, int, int]]:
    """Kinds of ids that go beyond the model: the kind, the largest id, how many the model has."""
    kinds = [("token", ids, config.vocab_size)]
    if config.family.token_types:
        kinds.append(("token type", type_ids, config.type_vocab_size))
    for what, given, have in kinds:
        most = int(given.max(initial=0))
        if most >= have:
            yield what, most, have
