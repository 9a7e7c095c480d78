"""What takes hold of a model while it trains: one protocol for all such things."""

from __future__ import annotations

from typing import Protocol

from transformers import PreTrainedModel


class Hold(Protocol):
    """Something that changes how a model computes while it trains and is scored.

    ``attach`` comes before the optimiser is made, ``detach`` after the last score and before
    anything is saved; in between the names and shapes in the model's ``state_dict`` stay
    transformers' own, because checkpoints are written from it.
    """

    def attach(self, model: PreTrainedModel) -> None:
        """Take hold of the model."""
        ...

    def detach(self) -> None:
        """Leave it as an ordinary model, trained."""
        ...
