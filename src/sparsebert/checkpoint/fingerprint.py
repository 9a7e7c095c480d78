"""What tells two contents of one model folder apart."""

from __future__ import annotations

import hashlib

from sparsebert.checkpoint.auxiliary_files import auxiliary_files
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.modules import module_folders

_CHUNK = 1 << 20  # bytes


def model_fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 of config, weights, masks, tokenizer and modules; not of cards and scores."""
    root = checkpoint.path
    folders = dict.fromkeys((checkpoint.transformer, root, *module_folders(root)))
    digest = hashlib.sha256()
    for path in (
        *sorted(checkpoint.transformer.glob("*.safetensors")),
        *(path for folder in folders for path in auxiliary_files(folder)),
    ):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
