"""Build a folder's tokenizer from its files, exactly as transformers 5 would.

It is built from ``tokenizer.json`` or, for classes that allow it, from ``vocab.txt`` (word pieces),
``vocab.json`` and ``merges.txt`` (byte pairs) or ``spm.model`` (unigrams). Classes that rebuild
tokenizers take only the vocabulary, the added tokens, the truncation side, (unigrams, except
DeBERTa's) SentencePiece's character map and (ALBERT's) the post-processor from a
``tokenizer.json``. The rest of its normaliser and its limit on word length are ignored; so are
padding and truncation, which are left over from whoever saved it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.sentencepiece_model import (
    CONTROL,
    USER_DEFINED,
    SentencePieces,
    read_sentencepieces,
)
from sparsebert.checkpoint.tokenizer_settings import (
    ALBERT,
    BERT,
    CAMEMBERT,
    DEBERTA_V2,
    DISTILBERT,
    MPNET,
    ROBERTA,
    TOKENIZER_NAME,
    Side,
    TokenizerSettings,
    add_named_tokens,
    add_recorded_tokens,
    read_settings,
    special_tokens,
)
from sparsebert.checkpoint.tokenizer_stages import check_character_map, check_stages
from sparsebert.errors import CheckpointError, reading

# The ids of the unknown token that transformers assumes.
_XLM_UNKNOWN = 3
_ALBERT_UNKNOWN = 1
_MOST_ID = 9_999_999  # published vocabularies have at most a million tokens
_LARGER_ID = re.compile(r":\s*\d{8}")  # or a word that looks like one


@dataclass(frozen=True)
class StoredTokenizer:
    """A folder's tokenizer, and how its tokens are used.

    ``truncation_side`` is the end at which texts are truncated, ``max_length`` the folder's limit
    in tokens (None for no limit), and ``token_types`` whether the model is given token type ids.
    ``special_tokens`` are texts by role, for example ``mask_token``; with
    ``split_special_tokens``, these texts are tokenized like any other.
    """

    backend: Tokenizer
    truncation_side: Side
    max_length: int | None
    token_types: bool
    special_tokens: Mapping[str, str]
    split_special_tokens: bool = False


def build_tokenizer(folder: Path, given: Mapping[str, Any] | None = None) -> StoredTokenizer | None:
    """The tokenizer of a model folder; None if it has none. Raises CheckpointError.

    ``given`` overrides keys of tokenizer_config.json.
    """
    settings = read_settings(folder, given)
    kind, special = settings.kind, special_tokens(settings)
    source = folder / TOKENIZER_NAME
    side, ends = "right", None
    stored: Mapping[int, AddedToken] = {}
    if has_file(source) and not kind.model:
        tokenizer = open_file(source)
        side = (tokenizer.truncation or {}).get("direction", side)
        stored = tokenizer.get_added_tokens_decoder()
    elif has_file(source):
        document = _Document(source)
        tokenizer = _around(document.model(settings, special), settings)
        if kind.model == "Unigram" and kind is not DEBERTA_V2:
            tokenizer.normalizer = _unigram_normalizer(settings, document.character_map())
        if kind is ALBERT:
            ends = open_file(source).post_processor
        side = document.truncation_side
        stored = document.added_tokens()
    elif kind.files and has_file(folder / kind.files[0]):
        source = folder / kind.files[0]
        if kind is DEBERTA_V2:
            found = read_sentencepieces(source)
            unknown = _unknown_unigram(found.pieces, special["unk_token"], found.unknown)
            model: models.Model = models.Unigram(list(found.pieces), unk_id=unknown)
            stored = _added_pieces(found)
        else:
            model = _from_files(settings, special)
        tokenizer = _around(model, settings)
    else:
        return None
    add_recorded_tokens(tokenizer, settings, stored)
    if kind.model:
        tokenizer.post_processor = ends or _ends(tokenizer, settings, special, source)
    add_named_tokens(tokenizer, settings)
    return StoredTokenizer(
        tokenizer,
        settings.side(side),
        settings.max_length,
        settings.token_types,
        special,
        settings.switch("split_special_tokens", False),
    )


def open_file(file: Path) -> Tokenizer:
    """A tokenizer.json as it is; CheckpointError if it is damaged."""
    with reading(_of(file), CheckpointError):
        text = file.read_text(encoding="utf-8")
        check_stages(text, file)
        tokenizer = Tokenizer.from_str(text)
        if _LARGER_ID.search(text):  # copying the vocabulary takes half as long as opening the file
            _check_ids(tokenizer.get_vocab(with_added_tokens=False), file)
        return tokenizer


def _check_ids(vocabulary: Mapping[str, int], file: Path) -> None:
    """Raise CheckpointError for an id far beyond any vocabulary.

    The library writes a vocabulary by counting to its largest id and listing the ids without a
    token. For an id of 2^31, the list takes 8 GiB, and if it cannot be allocated, the library
    aborts the process; an id of 2^32 - 1 overflows, and nothing is written.
    """
    most = max(vocabulary.values(), default=0)
    if most > _MOST_ID:
        raise CheckpointError(
            f"{file} gives a token the id {most}, but at most {_MOST_ID + 1} tokens are supported: "
            "it is damaged or hostile."
        )


def _of(file: Path) -> str:
    return f"the tokenizer {file}"


class _Document:
    """A tokenizer.json of which only some parts are used."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with reading(_of(file), CheckpointError):
            self._parts = read_object(file)
            self._model = dict(self._parts["model"])
            truncation = self._parts.get("truncation") or {}
            self.truncation_side = str(truncation.get("direction", "right")).lower()

    def model(self, settings: TokenizerSettings, special: Mapping[str, str]) -> models.Model:
        """Its vocabulary as a model of the kind that the class uses."""
        kind = settings.kind.model
        found = self._model.get("type", kind)  # old files do not say
        if found != kind:
            raise CheckpointError(
                f"{self._file} has a {found} vocabulary, but its tokenizer class requires {kind}: "
                "in tokenizer_config.json, set 'tokenizer_class' to the class it was made for, "
                "or to PreTrainedTokenizerFast to have the file read as it is."
            )
        vocabulary = self._model.get("vocab")
        with reading(_of(self._file), CheckpointError):
            if isinstance(vocabulary, dict):
                _check_ids(vocabulary, self._file)
            if kind == "WordPiece":
                return models.WordPiece(vocabulary, unk_token=special["unk_token"])
            if kind == "BPE":
                pairs = [
                    tuple(pair.split(" ") if isinstance(pair, str) else pair)
                    for pair in self._model["merges"]
                ]
                return _byte_pairs(vocabulary, pairs)
            pieces = [(str(piece), float(score)) for piece, score in vocabulary or []]
            unknown = _ALBERT_UNKNOWN if settings.kind is ALBERT else _XLM_UNKNOWN
            if settings.kind is CAMEMBERT:
                named = (i for i, (piece, _) in enumerate(pieces) if piece == special["unk_token"])
                unknown = next(named, 0)
            elif settings.kind is DEBERTA_V2:
                unknown = _unknown_unigram(pieces, special["unk_token"], settings.unknown_id)
            return models.Unigram(pieces, unk_id=unknown, byte_fallback=False)

    def added_tokens(self) -> dict[int, AddedToken]:
        """Its added tokens by their ids."""
        tokens: dict[int, AddedToken] = {}
        with reading(_of(self._file), CheckpointError):
            for written in self._parts.get("added_tokens", []):
                flags = {name: value for name, value in written.items() if name != "id"}
                tokens[int(written["id"])] = AddedToken(**flags)
        return tokens

    def character_map(self) -> normalizers.Normalizer | None:
        """SentencePiece's character map, the only stage that unigram classes use."""
        stage = self._parts.get("normalizer") or {}
        with reading(_of(self._file), CheckpointError):
            stages = stage["normalizers"] if stage.get("type") == "Sequence" else [stage]
            for each in stages:
                if each.get("type") == "Precompiled":
                    check_character_map(each["precompiled_charsmap"], self._file)
                    return normalizers.Precompiled(base64.b64decode(each["precompiled_charsmap"]))
        return None


def _from_files(settings: TokenizerSettings, special: Mapping[str, str]) -> models.Model:
    """The model for the vocabulary files that folders had before tokenizer.json."""
    file = settings.folder / settings.kind.files[0]
    if settings.kind.model == "WordPiece":
        words = {token: index for index, token in enumerate(_read_lines(file))}
        return models.WordPiece(words, unk_token=special["unk_token"])
    vocabulary = read_object(file)
    ids = vocabulary.values()
    if not all(type(index) is int and index >= 0 for index in ids):
        raise CheckpointError(f"{file} must map tokens to their ids.")
    _check_ids(vocabulary, file)
    merges = settings.folder / settings.kind.files[1]
    lines = (line.partition(" ") for line in _read_lines(merges) if not _is_heading(line))
    with reading(f"{merges}, which must fit {file.name},", CheckpointError):
        return _byte_pairs(vocabulary, [(left, right) for left, _, right in lines])


def _unknown_unigram(pieces: Sequence[tuple[str, float]], token: str, otherwise: int) -> int:
    """The id that DeBERTa's class uses: of the unknown token if its score is 0."""
    named = (index for index, piece in enumerate(pieces) if piece == (token, 0.0))
    return next(named, otherwise)


def _added_pieces(found: SentencePieces) -> dict[int, AddedToken]:
    """Pieces that are never split, by their ids."""
    return {
        index: AddedToken(text, normalized=False, special=kind == CONTROL)
        for index, ((text, _), kind) in enumerate(zip(found.pieces, found.kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    }


def _byte_pairs(vocabulary: Any, pairs: list[Any]) -> models.Model:
    return models.BPE(vocabulary, pairs, unk_token=None, fuse_unk=False)


def _around(model: models.Model, settings: TokenizerSettings) -> Tokenizer:
    """A tokenizer for a model, with the normaliser, pre-tokenizer and decoder of its class."""
    tokenizer = Tokenizer(model)
    kind = settings.kind.model
    if kind == "WordPiece":
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.switch("tokenize_chinese_chars", True),
            strip_accents=settings.switch("strip_accents", None),
            lowercase=settings.switch("do_lower_case", True),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
    elif kind == "BPE":
        prefix = settings.switch("add_prefix_space", False)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        tokenizer.decoder = decoders.ByteLevel()
    elif settings.kind is DEBERTA_V2:
        lower = [normalizers.Lowercase()] if settings.switch("do_lower_case", False) else []
        steps: list[normalizers.Normalizer] = [
            *lower,
            normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
            normalizers.NFC(),
            normalizers.Strip(left=False, right=True),
        ]
        tokenizer.normalizer = normalizers.Sequence(steps)
        punctuation = settings.switch("split_by_punct", False)
        cuts = [pre_tokenizers.Punctuation(behavior="isolated")] if punctuation else []
        scheme = "always" if settings.switch("add_prefix_space", True) else "first"
        space = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, space])
        tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    else:
        scheme = "always" if settings.switch("add_prefix_space", True) else "never"
        space = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)
        stages = [pre_tokenizers.WhitespaceSplit(), space]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
        tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    return tokenizer


def _unigram_normalizer(
    settings: TokenizerSettings, character_map: normalizers.Normalizer | None
) -> normalizers.Normalizer | None:
    """SentencePiece's character map and, before it, what ALBERT's class does."""
    if settings.kind is not ALBERT:
        return character_map
    stages: list[normalizers.Normalizer] = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not settings.switch("keep_accents", False):
        stages += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.switch("do_lower_case", True):
        stages.append(normalizers.Lowercase())
    if character_map is not None:
        stages.append(character_map)
    return normalizers.Sequence(stages)


def _ends(
    tokenizer: Tokenizer, settings: TokenizerSettings, special: Mapping[str, str], source: Path
) -> processors.PostProcessor:
    """The class's special tokens around a text and between two texts."""
    kind = settings.kind
    xlm = kind.model == "Unigram" and kind not in (ALBERT, DEBERTA_V2)
    names = ("bos_token", "eos_token") if xlm else ("cls_token", "sep_token")
    ids: dict[str, int] = {}
    for name in (*names, "unk_token") if kind.model == "WordPiece" else names:
        index = tokenizer.token_to_id(special[name])
        if index is None:
            raise CheckpointError(f"{source} lacks the token {special[name]} ({name}).")
        ids[name] = index
    first, last = (special[name] for name in names)
    first_id, last_id = (ids[name] for name in names)
    if kind in (MPNET, ROBERTA):
        return processors.RobertaProcessing(
            (last, last_id),
            (first, first_id),
            trim_offsets=kind is MPNET or settings.switch("trim_offsets", True),
            add_prefix_space=kind is ROBERTA and settings.switch("add_prefix_space", False),
        )
    tokens = [(first, first_id), (last, last_id)]
    if kind in (ALBERT, BERT, DEBERTA_V2, DISTILBERT):
        return processors.TemplateProcessing(
            single=[f"{first}:0", "$A:0", f"{last}:0"],
            pair=[f"{first}:0", "$A:0", f"{last}:0", "$B:1", f"{last}:1"],
            special_tokens=tokens,
        )
    return processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=tokens,
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
