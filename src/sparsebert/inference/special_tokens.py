"""The tokens that a folder names beside its vocabulary: special ones, and those added later.

They stand in tokenizer_config.json, whose ``added_tokens_decoder`` has them with their ids. Folders
without that are older: there special_tokens_map.json wins, and added_tokens.json has ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.errors import CheckpointError
from sparsebert.inference.tokenizer_class import TokenizerClass, read_settings, tokenizer_class

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
# What special tokens are called unless the files say otherwise, by class and else by model_type.
_CLASS_NAMES = {
    TokenizerClass.BERT: _NAMES,
    TokenizerClass.MPNET: {**_ROBERTA_NAMES, "unk_token": "[UNK]"},
    TokenizerClass.ROBERTA: _ROBERTA_NAMES,
}
_FAMILY_NAMES = {
    "roberta": _ROBERTA_NAMES,
    "xlm-roberta": _ROBERTA_NAMES,
    "mpnet": _CLASS_NAMES[TokenizerClass.MPNET],
}
_ROLES = ("bos_token", "eos_token", *_NAMES)  # in the order in which transformers adds them
_EXTRA, _OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"
_ADDED, _OLD_ADDED = "added_tokens_decoder", "added_tokens.json"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def special_tokens(folder: Path) -> dict[str, str]:
    """The text of each special token: what the files say, else the usual."""
    names = _CLASS_NAMES.get(tokenizer_class(folder))
    if names is None:
        model_type = read_settings(folder, CONFIG_NAME).get("model_type")
        names = _FAMILY_NAMES.get(str(model_type), _NAMES)
    settings, older = _read(folder)
    found = {**settings, **older}
    return {
        name: _token(found[name], name, special=True).content if found.get(name) else usual
        for name, usual in names.items()
    }


def add_tokens(tokenizer: Tokenizer, folder: Path, *, usual: bool) -> None:
    """Give the tokenizer the tokens that the files name, in transformers' order and with its flags.

    ``usual`` adds the special tokens that no file names too. Raises CheckpointError for malformed
    files, and for a token that would not get the id it is recorded with.
    """
    settings, older = _read(folder)
    named = _named({**(special_tokens(folder) if usual else {}), **settings, **older})
    recorded = _recorded(settings, older, folder, tokenizer)
    for token in recorded.values():
        token.special |= token.content in named
    tokenizer.add_tokens([token for _, token in sorted(recorded.items())])
    for index, token in recorded.items():
        given = tokenizer.token_to_id(token.content)
        if given != index:
            raise CheckpointError(
                f"{folder}: the added token {token.content!r} is recorded with id {index}, and "
                f"would get {given} behind this vocabulary."
            )
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    new = [*named.values(), *_extra(settings, older)]
    tokenizer.add_tokens([token for token in new if token.content not in known])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer_config.json, and special_tokens_map.json if it counts."""
    settings = read_settings(folder)
    older = {} if _ADDED in settings else read_settings(folder, "special_tokens_map.json")
    return settings, older


def _recorded(
    settings: Mapping[str, Any], older: Mapping[str, Any], folder: Path, tokenizer: Tokenizer
) -> dict[int, AddedToken]:
    """Added tokens by the ids that the files record for them."""
    if _ADDED in settings:
        listed = settings[_ADDED]
        if not isinstance(listed, dict) or not all(map(_is_id, listed)):
            raise CheckpointError(f"{folder}: '{_ADDED}' must map ids to tokens.")
        return {int(index): _token(token, _ADDED) for index, token in listed.items()}
    ids = read_settings(folder, _OLD_ADDED)
    if not all(type(index) is int for index in ids.values()):
        raise CheckpointError(f"{folder / _OLD_ADDED} must map tokens to their ids.")
    known = tokenizer.get_added_tokens_decoder()  # a tokenizer.json says more of them
    special = {*_named({**settings, **older})}
    special |= {token.content for token in _extra(settings, {**older, _OLD_EXTRA: None})}
    return {
        index: _token(text, _OLD_ADDED, special=text in special)
        for text, index in ids.items()
        if index not in known
    }


def _named(settings: Mapping[str, Any]) -> dict[str, AddedToken]:
    """The special tokens with a role, and those that a model calls ``..._token`` itself."""
    own = [name for name in settings if name.endswith("_token") and name not in _ROLES]
    named: dict[str, AddedToken] = {}
    for name in (*_ROLES, *(name for name in own if isinstance(settings[name], str))):
        if settings.get(name):
            token = _token(settings[name], name, special=True)
            token.special = True
            named.setdefault(token.content, token)
    return named


def _extra(settings: Mapping[str, Any], older: Mapping[str, Any]) -> Iterator[AddedToken]:
    """The special tokens without a role."""
    key = _EXTRA if settings.get(_EXTRA) else _OLD_EXTRA
    silent = _EXTRA not in settings and _OLD_EXTRA not in settings
    listed = (older if silent else settings).get(key)
    for name, tokens in ((key, listed), (_EXTRA, older.get(_EXTRA))):
        if not isinstance(tokens, dict | list | None):
            raise CheckpointError(f"the tokenizer's '{name}' must list tokens.")
        for token in tokens.values() if isinstance(tokens, dict) else tokens or []:
            yield _token(token, name, special=True)


def _token(stored: object, where: str, *, special: bool = False) -> AddedToken:
    """A token out of its text, or of its text and flags; ``special`` unless these say otherwise."""
    written = stored if isinstance(stored, dict) else {"content": stored}
    text = written.get("content")
    flags = {name: written[name] for name in _FLAGS if name in written}
    if not isinstance(text, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise CheckpointError(f"the tokenizer's '{where}' names what is not a token.")
    # A mask in angle brackets takes the space before it, like a word, as RoBERTa was trained.
    usual = {"special": special, "lstrip": special and text == "<mask>"}
    try:
        return AddedToken(text, **{**usual, **flags})
    except ValueError as error:  # half of a surrogate pair
        raise CheckpointError(f"the tokenizer's '{where}' names no text: {error}.") from None


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10
