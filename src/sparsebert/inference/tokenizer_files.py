"""A folder's tokenizer, exactly as transformers would build it.

``tokenizer.json`` is used, or else a tokenizer is built from ``vocab.txt`` (word pieces) or from
``vocab.json`` and ``merges.txt`` (byte pairs). Padding and truncation
settings stored in a ``tokenizer.json`` are left-overs of whoever saved it (that of
all-MiniLM-L6-v2 pads and cuts everything to 128): they are switched off here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers

from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.special_tokens import add_tokens, special_tokens
from sparsebert.inference.tokenizer_class import TokenizerClass, read_settings, tokenizer_class
from sparsebert.inference.vocabulary_files import (
    from_byte_pairs,
    from_word_pieces,
    split_bytes,
    split_words,
)

_SENTENCEPIECE = "sentencepiece.bpe.model"


def read_tokenizer(folder: Path, *, lower_case: bool = False) -> Tokenizer | None:
    """The tokenizer of a model folder, without padding and truncation; None if it has no files.

    ``lower_case`` (sentence-transformers' ``do_lower_case``) lower-cases texts before all else.

    Where transformers' class builds BERT's word pieces, ``do_lower_case``, ``strip_accents`` and
    ``tokenize_chinese_chars`` of tokenizer_config.json, or their defaults, win over a
    tokenizer.json. Raises CheckpointError.
    """
    settings = read_settings(folder)
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    pairs, merges = folder / "vocab.json", folder / "merges.txt"
    usual = True
    if file.is_file():
        kind = tokenizer_class(folder)
        tokenizer = _from_json(file, kind, settings)
        usual = kind is not TokenizerClass.FILE
    elif vocabulary.is_file():
        tokenizer = from_word_pieces(vocabulary, special_tokens(folder), _switches(settings))
    elif pairs.is_file() and merges.is_file():
        tokenizer = from_byte_pairs(pairs, merges, special_tokens(folder), _prefix(settings))
    elif (folder / _SENTENCEPIECE).is_file():
        raise CheckpointError(
            f"{folder} has a {_SENTENCEPIECE} and no tokenizer.json: have transformers write one, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    else:
        return None
    add_tokens(tokenizer, folder, usual=usual)
    if lower_case:
        stages = [normalizers.Lowercase(), tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([stage for stage in stages if stage])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_token(folder: Path, name: str) -> str:
    """The text of a special token, for example ``mask_token``, as the folder has it."""
    return special_tokens(folder)[name]


def length_limit(folder: Path, *, asked: int | None, trained: int | None, positions: int) -> int:
    """How many tokens a text may have, special tokens included.

    What the caller ``asked`` for, else what the sentence-transformers config says the model was
    ``trained`` with, else the tokenizer's ``model_max_length``; never more than ``positions``.
    """
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise InputError(f"max_length must be a whole number of tokens, not {asked!r}.")
        return min(asked, positions)
    if trained is not None:
        return min(trained, positions)
    stored = read_settings(folder).get("model_max_length")
    # transformers writes int(1e30) for 'no limit'.
    if isinstance(stored, (int, float)) and 1 <= stored < positions:
        return int(stored)
    return positions


def _from_json(file: Path, kind: TokenizerClass, settings: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for every damage
        raise CheckpointError(f"{file} is not a readable tokenizer: {error}.") from None
    words = kind in (TokenizerClass.BERT, TokenizerClass.MPNET)
    if words and isinstance(tokenizer.model, models.WordPiece):
        split_words(tokenizer, _switches(settings))
    elif kind is TokenizerClass.ROBERTA and isinstance(tokenizer.model, models.BPE):
        split_bytes(tokenizer, _prefix(settings))
    return tokenizer


def _switches(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of BertNormalizer."""
    return {
        "handle_chinese_chars": _switch(settings, "tokenize_chinese_chars", True),
        "strip_accents": _switch(settings, "strip_accents", None),
        "lowercase": _switch(settings, "do_lower_case", True),
    }


def _prefix(settings: dict[str, Any]) -> bool:
    return bool(_switch(settings, "add_prefix_space", False))


def _switch(settings: dict[str, Any], name: str, default: bool | None) -> Any:
    """A true or false of tokenizer_config.json; null is a choice only for ``strip_accents``."""
    value = settings.get(name, default)
    if value is None and name != "strip_accents":
        return default
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"tokenizer_config.json: {name} is {value!r}, not true or false.")
    return value
