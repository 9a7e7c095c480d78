"""The tokenizer of a model folder as its texts need it: lower-cased and cut as the folder says."""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint.sentence_transformers import read_sentence_config, transformer_folder
from sparsebert.inference.tokenizer_files import length_limit, read_tokenizer
from sparsebert.inference.tokenizing import TextTokenizer


def folder_tokenizer(
    folder: Path,
    *,
    positions: int,
    max_length: int | None = None,
    type_vocab_size: int | None = None,
) -> TextTokenizer | None:
    """What reads the texts of a model with so many ``positions``; None if the folder has no files.

    ``max_length``, in tokens, wins over the folder's own limit. ``type_vocab_size`` is None for
    models that tell no types of tokens apart. Raises CheckpointError, and InputError for a
    ``max_length`` that is no number of tokens.
    """
    sentence = read_sentence_config(folder)
    stored = read_tokenizer(
        transformer_folder(folder), lower_case=sentence.lower_case, given=sentence.tokenizer
    )
    limits = [sentence.max_length, stored.max_length if stored else None]
    limit = length_limit(limits, asked=max_length, positions=positions)
    if stored is None:
        return None
    return TextTokenizer(
        stored.backend,
        max_length=limit,
        type_vocab_size=type_vocab_size if stored.token_types else None,
        mask_token=stored.special_tokens["mask_token"],
        truncation_side=stored.truncation_side,
    )
