"""The tokens that a folder names beside its vocabulary: special ones, and those added later.

They stand in tokenizer_config.json, whose ``added_tokens_decoder`` has them with their ids. Folders
without that are older: there special_tokens_map.json wins, and added_tokens.json has ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokenizers import AddedToken, Tokenizer

from sparsebert.errors import CheckpointError
from sparsebert.inference.tokenizer_class import MPNET, TokenizerSettings, read_optional

# In the order in which transformers adds them.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_EXTRA, _OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"
_OWN = "model_specific_special_tokens"
_ADDED, _OLD_ADDED = "added_tokens_decoder", "added_tokens.json"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def special_tokens(settings: TokenizerSettings) -> dict[str, str]:
    """The text of each special token: what the files say, else the usual."""
    found = {**settings.config, **settings.older}
    named = {
        name: _token(found[name], name, special=True).content for name in _ROLES if found.get(name)
    }
    return {**settings.usual_tokens, **named}


def add_recorded_tokens(
    tokenizer: Tokenizer, settings: TokenizerSettings, stored: Mapping[int, AddedToken]
) -> None:
    """Give the tokenizer the tokens that the files list with ids, ``stored`` those in its own file.

    Raises CheckpointError for malformed files, and for a token that would not get its id.
    """
    named = _named(settings)
    recorded = _recorded(settings, stored)
    known = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    new = [token for _, token in sorted(recorded.items()) if repr(token) not in known]
    for token in new:
        token.special |= token.content in named
    tokenizer.add_tokens(new)
    for index, token in recorded.items():
        given = tokenizer.token_to_id(token.content)
        if given != index:
            raise CheckpointError(
                f"{settings.folder}: the added token {token.content!r} is recorded with id {index},"
                f" and would get {given} behind this vocabulary."
            )


def add_named_tokens(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    """Give it the special tokens that it lacks, in transformers' order and with its flags."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    new = [*_named(settings).values(), *_extra(settings)]
    tokenizer.add_tokens([token for token in new if token.content not in known])


def _recorded(
    settings: TokenizerSettings, stored: Mapping[int, AddedToken]
) -> dict[int, AddedToken]:
    """Added tokens by the ids that the files record for them."""
    if _ADDED in settings.config:
        listed = settings.config[_ADDED]
        if not isinstance(listed, dict) or not all(map(_is_id, listed)):
            raise CheckpointError(f"{settings.folder}: '{_ADDED}' must map ids to tokens.")
        return {int(index): _token(token, _ADDED) for index, token in listed.items()}
    ids = read_optional(settings.folder, _OLD_ADDED)
    if not all(type(index) is int for index in ids.values()):
        raise CheckpointError(f"{settings.folder / _OLD_ADDED} must map tokens to their ids.")
    special = {*_named(settings, usual=False)}
    special |= {token.content for token in _extra(settings, old=False)}
    older = {
        index: _token(text, _OLD_ADDED, special=text in special) for text, index in ids.items()
    }
    return {**older, **stored}  # a tokenizer.json says more of them


def _named(settings: TokenizerSettings, *, usual: bool = True) -> dict[str, AddedToken]:
    """The special tokens with a role, and those that a model calls ``..._token`` itself.

    ``usual`` are those of the class that no file names too.
    """
    written = {**settings.config, **settings.older}
    if usual:
        written = {**settings.kind.tokens, **written}
    own = [name for name in written if name.endswith("_token") and name not in _ROLES]
    specific = written.get(_OWN) or {}
    if not isinstance(specific, dict):
        raise CheckpointError(f"the tokenizer's '{_OWN}' must map names to tokens.")
    listed = [(name, written.get(name)) for name in _ROLES]
    listed += [(name, written[name]) for name in own if isinstance(written[name], str)]
    listed += specific.items()
    named: dict[str, AddedToken] = {}
    for name, value in listed:
        if not value:
            continue
        if settings.kind is MPNET and name == "mask_token" and isinstance(value, str):
            value = {"content": value, "lstrip": True}  # the space before it is part of it
        token = _token(value, name, special=True)
        token.special = True
        named.setdefault(token.content, token)
    return named


def _extra(settings: TokenizerSettings, *, old: bool = True) -> Iterator[AddedToken]:
    """The special tokens without a role; ``old`` counts the old file's by their old name."""
    config, older = settings.config, settings.older
    key = _EXTRA if config.get(_EXTRA) else _OLD_EXTRA
    silent = old and _EXTRA not in config and _OLD_EXTRA not in config
    listed = (older if silent else config).get(key)
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
    try:
        return AddedToken(text, **{"special": special, **flags})
    except ValueError as error:  # half of a surrogate pair
        raise CheckpointError(f"the tokenizer's '{where}' names no text: {error}.") from None


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10
