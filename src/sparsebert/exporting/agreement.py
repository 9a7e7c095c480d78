"""Whether an exported file computes the model: its answers beside transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsebert.checkpoint import EncoderConfig
from sparsebert.checkpoint.dtypes import Array
from sparsebert.exporting.network import input_names, output_names

_LONGEST = 150  # tokens: beyond the reach of ModernBERT's local attention
_TOLERANCE = 1e-3  # of the answers' root mean square; 1e-5 was usual over 12 layers

Answer = Callable[[Mapping[str, Array]], Sequence[Any]]


def largest_difference(network: Any, config: EncoderConfig, answer: Answer) -> tuple[float, bool]:
    """The largest difference of any value that ``answer`` gives, and whether rounding explains it.

    It is asked once, for sequences of three lengths padded to one batch, lengths other than those
    of tracing, so that nothing frozen while tracing passes; ``network`` (transformers' own) gets
    each sequence alone and without padding.
    """
    import torch

    longest = min(_LONGEST, config.max_length)
    lengths = (longest, longest // 2 + 1, 1)
    random = np.random.default_rng(5)
    ids = np.full((len(lengths), longest), config.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        # Any id but the padding's: where positions are counted, padding has none.
        steps = random.integers(1, max(2, config.vocab_size), length)
        ids[row, :length] = (config.pad_token_id + steps) % config.vocab_size
        mask[row, :length] = 1
    names = input_names(config)
    given = dict(zip(names, (ids, mask, np.zeros_like(ids)), strict=False))
    answers = answer(given)
    largest, squares = 0.0, []
    for row, length in enumerate(lengths):
        with torch.inference_mode():
            expected = network(torch.from_numpy(ids[row : row + 1, :length]))
        for name, found in zip(output_names(config), answers, strict=True):
            wanted = expected[name][0].numpy()
            difference = np.abs(np.asarray(found[row])[: len(wanted)] - wanted).max()
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf)))
            squares.append(float(np.mean(np.square(wanted))))
    scale = float(np.sqrt(np.mean(squares)))
    return largest, largest <= _TOLERANCE * (scale + _TOLERANCE)
