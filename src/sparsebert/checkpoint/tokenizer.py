"""Read and write the tokenizer of a model folder.

In a folder that sparsebert wrote, tokenizer.json is complete: ``Tokenizer.from_file`` gives the
tokenizer that transformers builds from all the folder's files, and config.json records how its
tokens are used, with a checksum of these files. In any other folder, or if one of the files has
changed since, the tokenizer is built as transformers builds it (`tokenizer_building`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig, model_type_of
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object, write_json
from sparsebert.checkpoint.sentence_config import read_sentence_config
from sparsebert.checkpoint.tokenizer_building import StoredTokenizer, build_tokenizer, open_file
from sparsebert.checkpoint.tokenizer_settings import TOKENIZER_FILES, TOKENIZER_NAME
from sparsebert.errors import CheckpointError, reading

Integers = npt.NDArray[np.integer[Any]]

_RECORD = "tokenizer"  # in config.json's ``sparsity``
_RECORDED = tuple(each.name for each in fields(StoredTokenizer) if each.name != "backend")


def read_tokenizer(
    folder: Path, *, lower_case: bool = False, given: Mapping[str, Any] | None = None
) -> StoredTokenizer | None:
    """The tokenizer of a model folder, without padding and truncation; None if it has none.

    ``lower_case`` (sentence-transformers' ``do_lower_case``) lower-cases texts first, and ``given``
    overrides keys of tokenizer_config.json. Raises CheckpointError.
    """
    with reading(f"the tokenizer of {folder}", CheckpointError):
        found = _recorded(folder, given) or build_tokenizer(folder, given)
        if found is None:
            return None
        backend = found.backend
        if lower_case:
            stages = [normalizers.Lowercase(), backend.normalizer]
            backend.normalizer = normalizers.Sequence([stage for stage in stages if stage])
        backend.encode_special_tokens = found.split_special_tokens
        backend.no_truncation()
        backend.no_padding()
        return found


def write_tokenizer(folder: Path) -> None:
    """Make tokenizer.json complete in a folder that has config.json and tokenizer files at its top.

    Its padding and truncation are kept: sparsebert ignores them, but transformers reads them.
    transformers gives the same token ids as before. A tokenizer that cannot be built, or cannot be
    stored exactly, is left as it is.
    """
    try:
        with reading(f"the tokenizer of {folder}", CheckpointError):
            given = read_sentence_config(folder).tokenizer
            built = build_tokenizer(folder, given)
    except CheckpointError:
        return  # a model need not have a tokenizer; `read_tokenizer` says what is wrong
    if built is None:
        return
    backend, file = built.backend, folder / TOKENIZER_NAME
    text = backend.to_str()
    if Tokenizer.from_str(text).to_str() != text:  # JSON does not preserve some scores exactly
        return
    if has_file(file):
        _copy_padding(file, backend)
    file.write_bytes(backend.to_str().encode())  # the library's own writer raises no OSError
    raw = read_object(folder / CONFIG_NAME)
    record = {name: getattr(built, name) for name in _RECORDED}
    record["sha256"] = _checksum(folder, raw, given)
    raw["sparsity"] = {**(raw.get("sparsity") or {}), _RECORD: record}
    write_json(folder / CONFIG_NAME, raw)


def _recorded(folder: Path, given: Mapping[str, Any] | None) -> StoredTokenizer | None:
    """The tokenizer that `write_tokenizer` stored; None without one, or if a file has changed."""
    config, file = folder / CONFIG_NAME, folder / TOKENIZER_NAME
    if not has_file(config) or not has_file(file):
        return None
    raw = read_object(config)
    sparsity = raw.get("sparsity")
    record = sparsity.get(_RECORD) if isinstance(sparsity, dict) else None
    if not isinstance(record, dict) or record.get("sha256") != _checksum(folder, raw, given):
        return None
    settings: dict[str, Any] = {name: record.get(name) for name in _RECORDED}
    return StoredTokenizer(open_file(file), **settings) if _is_valid(settings) else None


def _is_valid(settings: Mapping[str, Any]) -> bool:
    """Whether recorded settings are of the types of `StoredTokenizer`; the file may be hostile."""
    length, tokens = settings["max_length"], settings["special_tokens"]
    return (
        settings["truncation_side"] in ("left", "right")
        and (length is None or (type(length) is int and length > 0))
        and isinstance(settings["token_types"], bool)
        and isinstance(settings["split_special_tokens"], bool)
        and isinstance(tokens, dict)
        and all(isinstance(text, str) for text in tokens.values())
        and "mask_token" in tokens
    )


def _checksum(folder: Path, raw: dict[str, Any], given: Mapping[str, Any] | None) -> str:
    """SHA-256 of everything that decides a folder's tokenizer."""
    digest = hashlib.sha256()
    chosen = [model_type_of(raw), raw.get("tokenizer_class"), dict(given or {})]
    digest.update(json.dumps(chosen, sort_keys=True).encode())
    for name in TOKENIZER_FILES:
        file = folder / name
        if has_file(file):
            content = file.read_bytes()
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def _copy_padding(file: Path, backend: Tokenizer) -> None:
    """Give ``backend`` the padding and truncation of a tokenizer.json."""
    try:
        stored = open_file(file)
    except CheckpointError:  # only parts of it could be used
        return
    if stored.truncation is not None:
        backend.enable_truncation(**stored.truncation)
    if stored.padding is not None:
        backend.enable_padding(**stored.padding)


def check_ids(name: str | Path, config: EncoderConfig, ids: Integers, type_ids: Integers) -> None:
    """Raise CheckpointError if the tokenizer of the model ``name`` gave an id outside its tables.

    ``ids`` and ``type_ids`` are integers ``[tokens]``.
    """
    for what, most, have in unknown_ids(config, ids, type_ids):
        raise CheckpointError(
            f"the tokenizer of {name} gives {what} id {most}, but the model only has {have}: "
            "they do not belong together."
        )


def unknown_ids(
    config: EncoderConfig, ids: Integers, type_ids: Integers
) -> Iterator[tuple[str, int, int]]:
    """Kinds of ids that exceed the model: the kind, the largest id, how many the model has."""
    kinds = [("token", ids, config.vocab_size)]
    if config.token_types:
        kinds.append(("token type", type_ids, config.type_vocab_size))
    for what, given, have in kinds:
        most = int(given.max(initial=0))
        if most >= have:
            yield what, most, have
