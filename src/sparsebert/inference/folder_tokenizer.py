"""The tokenizer of a model folder as its texts need it: lower-cased and cut as the folder says."""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint.pooling import Pooling, transformer_folder
from sparsebert.inference.tokenizer_files import length_limit, read_tokenizer, special_token
from sparsebert.inference.tokenizing import TextTokenizer


def folder_tokenizer(
    folder: Path,
    pooling: Pooling | None,
    *,
    positions: int,
    max_length: int | None = None,
    type_vocab_size: int | None = None,
) -> TextTokenizer | None:
    """What reads the texts of a model with so many ``positions``; None if the folder has no files.

    ``max_length``, in tokens, wins over the folder's own limit. Raises CheckpointError, and
    InputError for a ``max_length`` that is no number of tokens.
    """
    files = transformer_folder(folder)
    limit = length_limit(
        files,
        asked=max_length,
        trained=pooling.max_length if pooling else None,
        positions=positions,
    )
    backend = read_tokenizer(files, lower_case=pooling.lower_case if pooling else False)
    if backend is None:
        return None
    return TextTokenizer(
        backend,
        max_length=limit,
        type_vocab_size=type_vocab_size,
        mask_token=special_token(files, "mask_token"),
    )
