"""int8 matrices with a scale per row, in the layouts that the engine reads without a copy.

    weight ~ scale of its row * q,  -127 <= q <= 127

A row of zeros has scale 0.
"""

from __future__ import annotations

from sparsebert.quantized.layouts import (
    LAYOUTS,
    Quantized,
    QuantizedDense,
    QuantizedPairs,
    QuantizedPanels,
    QuantizedSharedPairs,
    QuantizedTable,
    linear_layout,
)
from sparsebert.quantized.rounding import check_quantized, dequantize, quantize, quantize_rows

__all__ = [
    "LAYOUTS",
    "Quantized",
    "QuantizedDense",
    "QuantizedPairs",
    "QuantizedPanels",
    "QuantizedSharedPairs",
    "QuantizedTable",
    "check_quantized",
    "dequantize",
    "linear_layout",
    "quantize",
    "quantize_rows",
]
