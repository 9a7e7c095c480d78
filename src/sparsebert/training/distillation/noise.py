"""Random tokens in the texts that a teacher and its student read.

A teacher has memorised its few training rows, and a student soon reproduces its answers to them
without learning how it answers others. With noise, they hardly read the same text twice: in each
step, some tokens are replaced by tokens drawn from all training rows, so that frequent ones come
often (unigram noising, Xie et al. 2017, *Data noising as smoothing in neural network language
models*). How many differs from text to text, and some stay nearly clean, as the texts that the
model is for. Both models read the same noisy text, so what the teacher says of it is right by
definition (Beyer et al. 2022, *Knowledge distillation: a good teacher is patient and consistent*).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sparsebert.tasks.tokens import TokenRows


class TokenNoise:
    """Replaces each token with a probability of its text's own, drawn evenly from 0 to ``most``.

    The ``special`` ids stay. Random numbers are torch's own, whose state checkpoints keep.
    """

    def __init__(self, tokens: TokenRows, special: Sequence[int], most: float) -> None:
        ids = tokens.ids.astype(np.int64)
        self._drawn_from = torch.from_numpy(ids[~np.isin(ids, special)])
        self._special = torch.tensor(list(special), dtype=torch.int64)
        self._most = most

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with other ``input_ids``, int64 ``[batch, tokens]``."""
        ids = batch["input_ids"]
        if len(self._drawn_from) == 0:
            return batch
        # Drawn on the CPU, as all tokens of a large training set need not go to a GPU.
        drawn = self._drawn_from[torch.randint(len(self._drawn_from), ids.shape)]
        chosen = torch.rand(ids.shape) < self._most * torch.rand((len(ids), 1))
        chosen = chosen.to(ids.device) & ~torch.isin(ids, self._special.to(ids.device))
        return {**batch, "input_ids": torch.where(chosen, drawn.to(ids.device), ids)}
