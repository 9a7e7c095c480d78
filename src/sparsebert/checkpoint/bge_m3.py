"""BGE-M3's heads besides its pooling: a weight and a vector for each token (arXiv:2402.03216).

They are published as pickles, sparse_linear.pt and colbert_linear.pt. `convert` turns them into
safetensors, which every further step copies with the model.
"""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.errors import CheckpointError

SPARSE, COLBERT = "sparse_linear", "colbert_linear"
HEADS = (SPARSE, COLBERT)


def head_file(name: str) -> str:
    """The file of a converted head."""
    return f"{name}.safetensors"


def head_pickle(name: str) -> str:
    """The file of a head as published."""
    return f"{name}.pt"


def head_layer(folder: Path, name: str, inputs: int, outputs: int) -> VectorLayer | None:
    """The linear layer of a head; None if there is none, or if it is still a pickle."""
    file = folder / head_file(name)
    if not has_file(file):
        return None
    activation = "relu" if name == SPARSE else "identity"
    return VectorLayer("dense", file, "", activation, inputs, outputs)


def read_token_weights(folder: Path, hidden_size: int) -> VectorLayer | None:
    """The layer that turns each token's last hidden state into a weight; None without one."""
    return head_layer(folder, SPARSE, hidden_size, 1)


def check_converted(folder: Path) -> None:
    """Raise CheckpointError for heads that are still pickles, which no other step would copy."""
    for name in HEADS:
        if has_file(folder / head_pickle(name)) and not has_file(folder / head_file(name)):
            raise CheckpointError(
                f"{folder} has a head stored as a pickle, {head_pickle(name)}: run "
                f"`sparsebert convert {folder} OUT` first, and use OUT."
            )
