"""From a dense model to a halved int8 one that is ready to serve, in one call: `halve`."""

from __future__ import annotations

from sparsebert.halving.result import HalveResult
from sparsebert.halving.run import halve

__all__ = ["HalveResult", "halve"]
