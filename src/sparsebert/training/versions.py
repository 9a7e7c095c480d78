"""Which releases a model was trained with, for its record."""

from __future__ import annotations


def versions() -> dict[str, str]:
    """Version of sparsebert, torch and transformers, by name."""
    import torch
    import transformers

    import sparsebert

    return {
        "sparsebert": sparsebert.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
