"""Texts to token ids: special tokens, truncation to a length limit, windows of a context."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from sparsebert.checkpoint.modules import transformer_folder
from sparsebert.checkpoint.sentence_config import read_sentence_config
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.checkpoint.tokenizer_settings import Side
from sparsebert.errors import CheckpointError, InputError, reading
from sparsebert.inference.sequences import LocatedTokens, SpecialTokens, Tokens
from sparsebert.inference.texts import Texts

_CHUNK = 1024  # texts tokenised at a time: the library's Encoding is far larger than the ids in it
_SHORT = 1000  # characters of a single text that may be tokenised while holding the GIL


class TruncationWarning(UserWarning):
    """Texts exceeded the length limit and were truncated.

    ``count`` texts of the call were truncated to ``limit`` tokens; the first has index ``first``.
    """

    def __init__(self, count: int, first: int, limit: int, name: str) -> None:
        super().__init__(
            f"{name} is longer than {limit} tokens and was truncated."
            if count == 1
            else f"{count} texts are longer than {limit} tokens and were truncated; the first is "
            f"{name}."
        )
        self.count, self.first, self.limit = count, first, limit


class TextTokenizer:
    """A folder's tokenizer with a length limit. Safe to use from many threads at once."""

    def __init__(
        self,
        backend: Tokenizer,
        *,
        max_length: int,
        type_vocab_size: int | None = 2,
        mask_token: str = "[MASK]",
        unknown_token: str = "[UNK]",
        pad_token: str = "[PAD]",
        truncation_side: Side = "right",
    ) -> None:
        """``backend`` must neither pad nor truncate; ``max_length`` counts special tokens too.

        ``type_vocab_size`` is None for models without token types: all are then 0, whatever the
        tokenizer says. Long texts are truncated at ``truncation_side``.
        """
        self.backend = backend
        self.truncation_side = truncation_side
        self.max_length = max_length
        self.mask_token = mask_token
        self.mask_id = backend.token_to_id(mask_token)
        self.unknown_id = backend.token_to_id(unknown_token)
        self._pad_id = backend.token_to_id(pad_token)
        with reading("the model's tokenizer", CheckpointError):
            self._single, self._pair = SpecialTokens.of(backend, 1), SpecialTokens.of(backend, 2)
        if type_vocab_size is None:
            self._single, self._pair = self._single.untyped(), self._pair.untyped()
        self._takes_pairs = type_vocab_size is None or self._pair.most < type_vocab_size
        if max_length < self.least_length:
            raise InputError(
                f"a maximum length of {max_length} leaves no room beside the special tokens: use "
                f"at least {self.least_length}."
            )

    def encode(
        self, texts: Texts, *, strict: bool = False, max_length: int | None = None
    ) -> list[Tokens]:
        """Token ids of each text, at most ``max_length`` (by default `max_length`).

        Longer texts are truncated (on the right unless the folder says left, and the longer text of
        a pair first), with one TruncationWarning for all; with ``strict`` they raise InputError. A
        blank text becomes its special tokens, or an InputError if the tokenizer adds none.
        """
        sequences, cut = self.encode_truncated(texts, strict=strict, max_length=max_length)
        warn_of_cut(texts, cut, max_length or self.max_length)
        return sequences

    def encode_truncated(
        self,
        texts: Texts,
        *,
        strict: bool = False,
        side: Side | None = None,
        max_length: int | None = None,
    ) -> tuple[list[Tokens], list[int]]:
        """As `encode`, without the warning: the sequences, and indices of the truncated texts.

        ``side`` is the truncation side, by default the folder's, and ``max_length`` may be a lower
        limit.
        """
        sequences: list[Tokens] = []
        cut: list[int] = []
        for index, (parts, kept) in enumerate(self._truncated(texts, strict, side, max_length)):
            ids = [part.ids for part in parts]
            if kept:
                cut.append(index)
                ids = [part[each] for part, each in zip(ids, kept, strict=True)]
            tokens = (self._single if len(ids) == 1 else self._pair).around(ids)
            if not len(tokens):
                raise InputError(
                    f"{texts.name(index)} is empty: the tokenizer finds no tokens in it."
                )
            sequences.append(tokens)
        return sequences, cut

    def count_before(self, text: str) -> int:
        """Tokens of ``text`` with the special tokens before it."""
        (found,) = self._encoded([text])
        return len(self._single.ids[0]) + len(found)

    def text_of(self, token: int) -> str:
        """A token's text, which the vocabulary spells otherwise for byte pairs and unigrams."""
        return self.backend.decode([token], skip_special_tokens=False)

    @property
    def unweighed_ids(self) -> list[int]:
        """Ids of tokens that stand for no word: special ones around a text, padding, unknown."""
        around = [each for part in self._single.ids for each in part]
        return [*around, *(each for each in (self._pad_id, self.unknown_id) if each is not None)]

    @property
    def least_length(self) -> int:
        """The smallest limit that leaves room for one token, also in a pair."""
        return self._pair.size + 1

    def with_special_tokens(
        self, ids: list[int], *, side: Side | None = None, max_length: int | None = None
    ) -> Tokens:
        """A single text's token ids, with special tokens added unless they are there.

        With ``max_length`` they are truncated to it, on ``side`` as in `encode_truncated`.
        """
        before, behind = self._single.ids
        stop = len(ids) - len(behind)
        if stop >= len(before) and ids[: len(before)] == before and ids[stop:] == behind:
            ids = ids[len(before) : stop]
        over = 0 if max_length is None else len(ids) + self._single.size - max_length
        if over > 0:
            ids = ids[self._kept(len(ids), len(ids) - over, side)]
        return self._single.around([ids])

    def locate(self, texts: Texts, *, strict: bool = False) -> list[LocatedTokens]:
        """As `encode`, with the offsets of each token; InputError for a pair of texts."""
        located, cut = self.locate_truncated(texts, strict=strict)
        warn_of_cut(texts, cut, self.max_length)
        return located

    def locate_truncated(
        self,
        texts: Texts,
        *,
        strict: bool = False,
        side: Side | None = None,
        max_length: int | None = None,
    ) -> tuple[list[LocatedTokens], list[int]]:
        """As `encode_truncated`, with the offsets of each token; InputError for a pair."""
        located: list[LocatedTokens] = []
        cut: list[int] = []
        for index, (parts, kept) in enumerate(self._truncated(texts, strict, side, max_length)):
            if len(parts) != 1:
                raise InputError(
                    f"{texts.name(index)} is a pair of texts: only single texts can be tagged."
                )
            ids, offsets = parts[0].ids, parts[0].offsets
            if kept:
                cut.append(index)
                ids, offsets = ids[kept[0]], offsets[kept[0]]
            located.append(self._single.located([ids], offsets))
        return located, cut

    def windows(
        self,
        question: str,
        context: str,
        *,
        max_length: int,
        doc_stride: int,
        names: tuple[str, str] = ("the question", "the context"),
    ) -> Iterator[LocatedTokens]:
        """The question with its context in overlapping windows of ``max_length`` tokens.

        As in transformers' question-answering example, the question loses its leading whitespace,
        and neighbouring windows share ``doc_stride`` tokens of the context, or half of a window's
        context if the question leaves no more room than that. Raises InputError, using ``names``,
        if the tokenizer finds no tokens in one of them or the question leaves no room at all.
        """
        pair = [question.lstrip(), context]
        asked, read = self._encoded(pair)
        for name, found in zip(names, (asked, read), strict=True):
            if not len(found):
                raise InputError(f"{name} is empty: the tokenizer finds no tokens in it.")
        room = max_length - self._pair.size
        if len(asked) >= room:
            raise InputError(
                f"{names[0]} has {len(asked)} tokens and leaves no room for the context: together "
                f"they may have {room}."
            )
        return self._cut_windows(asked.ids, read, room - len(asked), doc_stride)

    def windows_of_pairs(
        self, pairs: Sequence[tuple[str, str]], *, max_length: int, doc_stride: int
    ) -> list[list[LocatedTokens]]:
        """`windows` of many questions and contexts, for training and scoring: none is refused.

        ``doc_stride`` must leave room in a window. A question that leaves no more room than that
        for its context is truncated at a word, and an empty context gives one window.
        """
        strings = [text for question, context in pairs for text in (question.lstrip(), context)]
        found = iter(self._encoded(strings))
        room = max_length - self._pair.size
        cut = []
        for asked, read in zip(found, found, strict=True):
            ids = asked.ids[: _whole_words(asked, room - doc_stride - 1)]
            cut.append([*self._cut_windows(ids, read, room - len(ids), doc_stride)])
        return cut

    def _cut_windows(
        self, question: list[int], context: Encoding, room: int, doc_stride: int
    ) -> Iterator[LocatedTokens]:
        """Windows with ``room`` tokens of the context each, at least one."""
        step = room - (doc_stride if doc_stride < room else room // 2)
        ids, offsets = context.ids, context.offsets
        for start in range(0, max(len(ids), 1), step):
            stop = start + room
            yield self._pair.located([question, ids[start:stop]], offsets[start:stop])
            if stop >= len(ids):
                break

    def _parts(self, texts: Texts) -> Iterator[list[Encoding]]:
        """For each text its own tokens, or those of both texts of a pair."""
        for start in range(0, len(texts.items), _CHUNK):
            chunk = texts.items[start : start + _CHUNK]
            strings = [
                part for text in chunk for part in ((text,) if isinstance(text, str) else text)
            ]
            found = iter(self._encoded(strings))
            for index, text in enumerate(chunk, start):
                parts = [next(found) for _ in range(1 if isinstance(text, str) else 2)]
                if len(parts) == 2 and not self._takes_pairs:
                    raise InputError(
                        f"{texts.name(index)} is a pair of texts: this model takes single texts."
                    )
                yield parts

    def _encoded(self, strings: list[str]) -> list[Encoding]:
        """Each string's own tokens. CheckpointError if the folder's tokenizer fails on it."""
        with reading("the text, with the model's tokenizer,", CheckpointError):
            if len(strings) == 1 and len(strings[0]) <= _SHORT:
                # Avoids the thread pool of encode_batch, which does release the GIL.
                return [self.backend.encode(strings[0], add_special_tokens=False)]
            encoded: list[Encoding] = self.backend.encode_batch(strings, add_special_tokens=False)
            return encoded

    def _kept(self, tokens: int, length: int, side: Side | None = None) -> slice:
        """The slice of ``length`` tokens that truncation keeps."""
        if (side or self.truncation_side) == "left":
            return slice(tokens - length, tokens)
        return slice(length)

    def _truncated(
        self, texts: Texts, strict: bool, side: Side | None, max_length: int | None
    ) -> Iterator[tuple[list[Encoding], list[slice]]]:
        """For each text its parts, as `_parts`, and the tokens to keep of each; [] means all."""
        limit = self.max_length if max_length is None else max_length
        for index, parts in enumerate(self._parts(texts)):
            room = limit - (self._single if len(parts) == 1 else self._pair).size
            sizes = [*map(len, parts)]
            kept = []
            if sum(sizes) > room:
                if strict:
                    raise too_long(texts.name(index), sum(sizes), room)
                lengths = (room,) if len(parts) == 1 else longest_first(sizes[0], sizes[1], room)
                kept = [self._kept(*each, side) for each in zip(sizes, lengths, strict=True)]
            yield parts, kept


def warn_of_cut(texts: Texts, cut: Sequence[int], limit: int) -> None:
    """One TruncationWarning for all texts at the indices ``cut``; none if there are none."""
    if cut:
        warning = TruncationWarning(len(cut), cut[0], limit, texts.name(cut[0]))
        warnings.warn(warning, stacklevel=_level_of_caller())


def too_long(name: str, tokens: int, room: int) -> InputError:
    """The error for a text that does not fit and must not be truncated."""
    return InputError(
        f"{name} has {tokens} tokens and only {room} fit: shorten it, or omit 'strict' to have it "
        "truncated."
    )


def folder_tokenizer(
    folder: Path,
    *,
    positions: int,
    max_length: int | None = None,
    type_vocab_size: int | None = None,
) -> TextTokenizer | None:
    """The tokenizer of a model with ``positions`` positions; None if the folder has none.

    ``max_length``, in tokens, overrides the folder's own limit. ``type_vocab_size`` is None for
    models without token types. Raises CheckpointError, and InputError for an invalid
    ``max_length``.
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
        unknown_token=stored.special_tokens["unk_token"],
        pad_token=stored.special_tokens.get("pad_token", ""),
        truncation_side=stored.truncation_side,
    )


def length_limit(limits: list[int | None], *, asked: int | None, positions: int) -> int:
    """The length limit in tokens, special tokens included; at most ``positions``.

    What the caller ``asked`` for, else the first of the folder's own ``limits`` that is set.
    """
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
        raise InputError(f"max_length must be an integer of at least 1, not {asked!r}.")
    chosen = [limit for limit in (asked, *limits) if limit is not None]
    return min(chosen[0], positions) if chosen else positions


def usual_stride(max_length: int) -> int:
    """Tokens of a context that neighbouring windows of ``max_length`` tokens share by default."""
    return min(128, max_length // 3)


def _whole_words(text: Encoding, longest: int) -> int:
    """How many of a text's tokens to keep, at most ``longest``, without splitting a later word."""
    if len(text) <= longest:
        return len(text)
    words = text.word_ids
    stop = longest
    while stop > 1 and words[stop] == words[stop - 1]:
        stop -= 1
    return stop


def longest_first(left: int, right: int, room: int) -> tuple[int, int]:
    """How many tokens of each text of a pair to keep if together they may have ``room``.

    The longer text is cut to the length of the shorter before that one loses any; an odd token goes
    to the longer text (to the second of equals), as in the tokenizers library.
    """
    if left + right <= room:
        return left, right
    short = min(left, right, room // 2)
    return (room - short, short) if left > right else (short, room - short)


def _level_of_caller() -> int:
    """The warning's stack level that points at the line which called into this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "sparsebert."
    ):
        level, frame = level + 1, frame.f_back
    return level
