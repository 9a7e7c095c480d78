"""Tokenizers out of bare vocabularies, as folders had them before tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from sparsebert.checkpoint.documents import read_object
from sparsebert.errors import CheckpointError


def from_word_pieces(
    file: Path, special: Mapping[str, str], switches: Mapping[str, Any]
) -> Tokenizer:
    """BERT's, or MPNet's, from ``vocab.txt``; ``switches`` are those of BertNormalizer."""
    lines = _read_lines(file)
    vocabulary = {token: index for index, token in enumerate(lines)}
    for name in ("unk_token", "cls_token", "sep_token"):
        if special[name] not in vocabulary:
            raise CheckpointError(f"{file} lacks the token {special[name]} ({name}).")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    split_words(tokenizer, switches)
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = (
        _roberta(special, vocabulary, prefix=False)
        if cls == "<s>"
        else processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
    )
    return tokenizer


def from_byte_pairs(
    file: Path, merges: Path, special: Mapping[str, str], prefix: bool
) -> Tokenizer:
    """RoBERTa's, from ``vocab.json`` and ``merges.txt``; ``prefix`` puts a space before a text."""
    vocabulary = read_object(file)
    ids = vocabulary.values()
    if not all(type(index) is int and 0 <= index <= 0xFFFFFFFF for index in ids):
        raise CheckpointError(f"{file} must map tokens to their ids.")
    for name in ("cls_token", "sep_token"):
        if special[name] not in vocabulary:
            raise CheckpointError(f"{file} lacks the token {special[name]} ({name}).")
    lines = (line.partition(" ") for line in _read_lines(merges) if not _is_heading(line))
    pairs = [(left, right) for left, _, right in lines]
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token=None, fuse_unk=False))
    except Exception as error:  # the library's own are bare Exceptions
        raise CheckpointError(f"{merges} does not fit {file.name}: {error}.") from None
    split_bytes(tokenizer, prefix)
    tokenizer.post_processor = _roberta(special, vocabulary, prefix=prefix)
    return tokenizer


def split_words(tokenizer: Tokenizer, switches: Mapping[str, Any]) -> None:
    """Have texts cleaned and cut into words as BERT's and MPNet's are."""
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, **switches)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")


def split_bytes(tokenizer: Tokenizer, prefix: bool) -> None:
    """Have texts cut into words of bytes as RoBERTa's are."""
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()


def _roberta(
    special: Mapping[str, str], vocabulary: Mapping[str, int], prefix: bool
) -> processors.RobertaProcessing:
    sep, cls = special["sep_token"], special["cls_token"]
    return processors.RobertaProcessing(
        (sep, vocabulary[sep]), (cls, vocabulary[cls]), trim_offsets=True, add_prefix_space=prefix
    )


def _is_heading(line: str) -> bool:
    return not line or line.startswith("#version")


def _read_lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text: {error.reason}.") from None
    if lines and not lines[-1]:
        lines.pop()
    return lines
