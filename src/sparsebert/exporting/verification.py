"""Verifying an exported graph: its outputs agree with transformers', and its zeros are kept.

Exporters rename weights, transpose them and fold constants, so a pruned matrix is found by its
values alone: a constant that equals it, as it is or transposed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsebert.checkpoint import EncoderConfig
from sparsebert.checkpoint.dtypes import Array
from sparsebert.exporting.network import input_names, output_names

_STORED_AS = (np.float32, np.float16)
_LONGEST = 150  # tokens: more than the window of ModernBERT's local attention
_TOLERANCE = 1e-3  # relative to the outputs' root mean square; 1e-5 was usual over 12 layers

Answer = Callable[[Mapping[str, Array]], Sequence[Any]]


def largest_difference(network: Any, config: EncoderConfig, answer: Answer) -> tuple[float, bool]:
    """The largest absolute difference of an output, and whether it is within rounding.

    ``answer`` runs the exported graph once, on sequences of three lengths padded to one batch. The
    lengths are not those of tracing, so that anything frozen by tracing is noticed. ``network``
    (transformers' own) gets each sequence alone and without padding.
    """
    import torch

    longest = min(_LONGEST, config.max_length)
    lengths = (longest, longest // 2 + 1, 1)
    random = np.random.default_rng(5)
    ids = np.full((len(lengths), longest), config.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        # Any id except that of padding, which has no position in families that count positions.
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


def count_kept_zeros(matrices: Mapping[str, Array], constants: Iterable[Array]) -> dict[str, int]:
    """The number of zeros of each of ``matrices`` among the ``constants`` of a file, by name.

    float32 matrices are also found as float16. A matrix that is missing or changed is left out.
    """
    zeros = {
        _digest(constant): int(constant.size - np.count_nonzero(constant))
        for constant in constants
        if constant.ndim == 2 and constant.dtype in _STORED_AS
    }
    found = {}
    for name, matrix in matrices.items():
        for dtype in _STORED_AS:
            stored = matrix.astype(dtype, copy=False)
            count = zeros.get(_digest(stored), zeros.get(_digest(stored.T)))
            if count is not None:
                found[name] = count
                break
    return found


def _digest(matrix: Array) -> tuple[tuple[int, ...], str, bytes]:
    # + 0 turns -0.0, which is a zero like any other, into +0.0.
    values = np.ascontiguousarray(matrix + matrix.dtype.type(0))
    return values.shape, values.dtype.name, hashlib.blake2b(values.data).digest()
