"""A folder's tokenizer, exactly as transformers' BertTokenizer would build it.

``tokenizer.json`` is used, or else a tokenizer is built from ``vocab.txt``. Padding and truncation
settings stored in a ``tokenizer.json`` are left-overs of whoever saved it (that of
all-MiniLM-L6-v2 pads and cuts everything to 128): they are switched off here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from sparsebert.checkpoint.documents import read_object
from sparsebert.errors import CheckpointError, InputError

_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def read_tokenizer(folder: Path, *, lower_case: bool = False) -> Tokenizer | None:
    """The tokenizer of a model folder, without padding and truncation; None if it has no files.

    ``lower_case`` (sentence-transformers' ``do_lower_case``) lower-cases texts before all else.

    ``do_lower_case``, ``strip_accents`` and ``tokenize_chinese_chars`` of tokenizer_config.json
    win over what a tokenizer.json says, as they do in transformers. Raises CheckpointError.
    """
    settings = _settings(folder)
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if file.is_file():
        tokenizer = _from_json(file, settings)
    elif vocabulary.is_file():
        tokenizer = _from_vocabulary(vocabulary, settings)
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
    stored = _settings(folder).get(name)
    if stored is None:
        stored = _settings(folder, "special_tokens_map.json").get(name)
    return _token_text(stored, _SPECIAL_TOKENS[name])


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


def _from_vocabulary(file: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text: {error.reason}.") from None
    if lines and not lines[-1]:
        lines.pop()
    vocabulary = {token: index for index, token in enumerate(lines)}
    special = {
        name: _token_text(settings.get(name), usual) for name, usual in _SPECIAL_TOKENS.items()
    }
    for name in ("unk_token", "cls_token", "sep_token"):
        if special[name] not in vocabulary:
            raise CheckpointError(f"{file} lacks the token {special[name]} ({name}).")
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_switch(settings, "tokenize_chinese_chars", True),
        strip_accents=_switch(settings, "strip_accents", None),
        lowercase=_switch(settings, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    return tokenizer


def _token_text(stored: object, usual: str) -> str:
    if isinstance(stored, dict):  # an AddedToken written out
        stored = stored.get("content")
    return stored if isinstance(stored, str) else usual


def _settings(folder: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    return read_object(folder / name) if (folder / name).is_file() else {}
