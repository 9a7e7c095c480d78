"""Random tokens in the texts that a teacher and its student read.

A teacher has memorised its few training rows, and a student soon reproduces its answers to them
without learning how it answers others. With noise, they never read the same text twice: each step
replaces some of a text's tokens by tokens drawn from all training rows, so that frequent ones come
often (unigram noising, Xie et al. 2017, *Data noising as smoothing in neural network language
models*, section 3). How many differs from text to text, and some stay nearly clean, as the texts
that the model is for. Both models read the same noisy text, so what the teacher says of it is right
by definition (Beyer et al. 2022, *Knowledge distillation: a good teacher is patient and
consistent*).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sparsebert.tasks.tokens import TokenRows


class TokenNoise:
    """Replaces up to a ``share`` (0 to 1) of a text's tokens; the ``special`` ids stay.

    Each text has a rate of its own, drawn evenly from 0 to ``share``.
    Its random numbers are torch's own, whose state checkpoints keep.
    """

    def __init__(self, tokens: TokenRows, special: Sequence[int], share: float) -> None:
        ids = tokens.ids.astype(np.int64)
        self._drawn_from = torch.from_numpy(ids[~np.isin(ids, special)])
        self._special = torch.tensor(list(special), dtype=torch.int64)
        self._share = share

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with other ``input_ids``, int64 ``[batch, tokens]``."""
        ids = batch["input_ids"]
        if len(self._drawn_from) == 0:
            return batch
        rates = self._share * torch.rand((len(ids), 1), device=ids.device)
        chosen = torch.rand(ids.shape, device=ids.device) < rates
        chosen &= ~torch.isin(ids, self._special.to(ids.device))
        places = torch.randint(len(self._drawn_from), ids.shape, device=ids.device)
        drawn = self._drawn_from.to(ids.device)[places]
        return {**batch, "input_ids": torch.where(chosen, drawn, ids)}
