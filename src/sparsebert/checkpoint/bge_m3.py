"""BGE-M3's heads beside its pooling: a weight and a vector of each token (arXiv:2402.03216).

They are published as pickles, sparse_linear.pt and colbert_linear.pt. `convert` makes
safetensors of them, and those go with the model from step to step.
"""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.errors import CheckpointError

SPARSE, COLBERT = "sparse_linear", "colbert_linear"
HEADS = (SPARSE, COLBERT)


def head_file(name: str) -> str:
    """The file of a head that is converted."""
    return f"{name}.safetensors"


def head_pickle(name: str) -> str:
    """The file of a head as it is published."""
    return f"{name}.pt"


def head_layer(folder: Path, name: str, inputs: int, outputs: int) -> VectorLayer | None:
    """The linear layer of a head; None in a folder without it, or whose head is a pickle yet."""
    file = folder / head_file(name)
    if not has_file(file):
        return None
    activation = "relu" if name == SPARSE else "identity"
    return VectorLayer("dense", file, "", activation, inputs, outputs)


def read_token_weights(folder: Path, hidden_size: int) -> VectorLayer | None:
    """What makes a weight of each token's last hidden state; None in a folder without it."""
    return head_layer(folder, SPARSE, hidden_size, 1)


def check_converted(folder: Path) -> None:
    """CheckpointError for heads that are pickles yet: they would be lost from what is written."""
    for name in HEADS:
        if has_file(folder / head_pickle(name)) and not has_file(folder / head_file(name)):
            raise CheckpointError(
                f"{folder} has a head in a pickle, {head_pickle(name)}: run `sparsebert convert "
                f"{folder} OUT` first, and use OUT."
            )
