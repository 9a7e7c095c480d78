"""A folder's tokenizer, exactly as transformers would build it.

``tokenizer.json`` is used, or else a tokenizer is built from ``vocab.txt`` (word pieces) or from
``vocab.json`` and ``merges.txt`` (byte pairs). Padding and truncation
settings stored in a ``tokenizer.json`` are left-overs of whoever saved it (that of
all-MiniLM-L6-v2 pads and cuts everything to 128): they are switched off here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.documents import read_object
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.vocabulary_files import from_byte_pairs, from_word_pieces

_NAMES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_NAMES = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
# What a model_type calls its special tokens unless its files say otherwise; the others as BERT.
_OTHER_NAMES = {
    "roberta": _ROBERTA_NAMES,
    "xlm-roberta": _ROBERTA_NAMES,
    "mpnet": {**_ROBERTA_NAMES, "unk_token": "[UNK]"},
}
_SENTENCEPIECE = "sentencepiece.bpe.model"


def read_tokenizer(folder: Path, *, lower_case: bool = False) -> Tokenizer | None:
    """The tokenizer of a model folder, without padding and truncation; None if it has no files.

    ``lower_case`` (sentence-transformers' ``do_lower_case``) lower-cases texts before all else.

    ``do_lower_case``, ``strip_accents`` and ``tokenize_chinese_chars`` of tokenizer_config.json
    win over what a tokenizer.json says, as they do in transformers. Raises CheckpointError.
    """
    settings = _settings(folder)
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    pairs, merges = folder / "vocab.json", folder / "merges.txt"
    if file.is_file():
        tokenizer = _from_json(file, settings)
    elif vocabulary.is_file():
        switches = {
            "handle_chinese_chars": _switch(settings, "tokenize_chinese_chars", True),
            "strip_accents": _switch(settings, "strip_accents", None),
            "lowercase": _switch(settings, "do_lower_case", True),
        }
        tokenizer = from_word_pieces(vocabulary, _special_tokens(folder), switches)
    elif pairs.is_file() and merges.is_file():
        prefix = bool(_switch(settings, "add_prefix_space", False))
        tokenizer = from_byte_pairs(pairs, merges, _special_tokens(folder), prefix)
    elif (folder / _SENTENCEPIECE).is_file():
        raise CheckpointError(
            f"{folder} has a {_SENTENCEPIECE} and no tokenizer.json: have transformers write one, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    else:
        return None
    if lower_case:
        stages = [normalizers.Lowercase(), tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([stage for stage in stages if stage])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_token(folder: Path, name: str) -> str:
    """The text of a special token, for example ``mask_token``, as the folder has it."""
    return _special_tokens(folder)[name]


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
    stored = _settings(folder).get("model_max_length")
    # transformers writes int(1e30) for 'no limit'.
    if isinstance(stored, (int, float)) and 1 <= stored < positions:
        return int(stored)
    return positions


def _from_json(file: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for every damage
        raise CheckpointError(f"{file} is not a readable tokenizer: {error}.") from None
    stored = tokenizer.normalizer
    if isinstance(stored, normalizers.BertNormalizer):
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=stored.clean_text,
            handle_chinese_chars=_switch(
                settings, "tokenize_chinese_chars", stored.handle_chinese_chars
            ),
            strip_accents=_switch(settings, "strip_accents", stored.strip_accents),
            lowercase=_switch(settings, "do_lower_case", stored.lowercase),
        )
    return tokenizer


def _switch(settings: dict[str, Any], name: str, default: bool | None) -> Any:
    """A true or false of tokenizer_config.json; null is a choice only for ``strip_accents``."""
    value = settings.get(name, default)
    if value is None and name != "strip_accents":
        return default
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"tokenizer_config.json: {name} is {value!r}, not true or false.")
    return value


def _special_tokens(folder: Path) -> dict[str, str]:
    """Text of each special token: tokenizer_config.json's, special_tokens_map.json's, the usual."""
    model_type = _settings(folder, CONFIG_NAME).get("model_type")
    usual = _OTHER_NAMES.get(model_type, _NAMES) if isinstance(model_type, str) else _NAMES
    stored, older = _settings(folder), _settings(folder, "special_tokens_map.json")
    return {
        name: _token_text(stored.get(name) or older.get(name), text) for name, text in usual.items()
    }


def _token_text(stored: object, usual: str) -> str:
    if isinstance(stored, dict):  # an AddedToken written out
        stored = stored.get("content")
    return stored if isinstance(stored, str) else usual


def _settings(folder: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    return read_object(folder / name) if (folder / name).is_file() else {}
