"""Magnitude pruning: small weights matter least.

The oldest criterion (Han et al., 2015, "Learning both Weights and Connections for Efficient Neural
Networks"), and the one that N:M recipes start from: it needs no data.
"""

from __future__ import annotations

import numpy as np

from sparsebert.checkpoint.dtypes import Float32


def scores(weight: Float32) -> Float32:
    """|w|, float32 ``[rows, columns]``."""
    return np.abs(weight)
