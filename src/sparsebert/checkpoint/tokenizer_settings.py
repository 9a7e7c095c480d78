"""What a folder's files say about its tokenizer: transformers' class, settings, added tokens.

The classes for word pieces, byte pairs and unigrams take the vocabulary and added tokens from a
tokenizer.json and rebuild the rest; others read the file as it is, or have rules of their own.
Added tokens are listed with their ids under ``added_tokens_decoder`` in tokenizer_config.json.
Folders without that key are older: there, special_tokens_map.json takes precedence, and
added_tokens.json has the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer

from sparsebert.checkpoint.config import CONFIG_NAME, model_type_of
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.hub_configs import read_config
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import TOKENIZER_CONFIG
from sparsebert.errors import CheckpointError

Side = Literal["right", "left"]

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
_OLDER_NAME = "special_tokens_map.json"
_OLD_ADDED = "added_tokens.json"
# The files that determine a tokenizer if there is a tokenizer.json, besides config.json.
TOKENIZER_FILES = (TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, _OLDER_NAME, _OLD_ADDED)

_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_ALBERT_TOKENS = {
    **_BERT_TOKENS,
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


@dataclass(frozen=True)
class TokenizerClass:
    """How a class of transformers builds a tokenizer.

    ``model`` is the kind of vocabulary that it uses, "" if it uses tokenizer.json as it is.
    ``tokens`` are its special tokens unless the files name others, ``files`` what it is built from
    without a tokenizer.json; ``token_types`` says whether it returns token type ids, and ``extra``
    are its special tokens without a role unless the files name some.
    """

    name: str
    model: Literal["WordPiece", "BPE", "Unigram", ""] = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    token_types: bool = False
    extra: tuple[str, ...] = ()


BERT = TokenizerClass("BertTokenizer", "WordPiece", _BERT_TOKENS, ("vocab.txt",), token_types=True)
DISTILBERT = replace(BERT, name="DistilBertTokenizer", token_types=False)
MPNET = TokenizerClass(
    "MPNetTokenizer", "WordPiece", {**_ROBERTA_TOKENS, "unk_token": "[UNK]"}, ("vocab.txt",)
)
ROBERTA = TokenizerClass("RobertaTokenizer", "BPE", _ROBERTA_TOKENS, ("vocab.json", "merges.txt"))
XLM_ROBERTA = TokenizerClass("XLMRobertaTokenizer", "Unigram", _ROBERTA_TOKENS)
CAMEMBERT = replace(
    XLM_ROBERTA, name="CamembertTokenizer", extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")
)
ALBERT = TokenizerClass("AlbertTokenizer", "Unigram", _ALBERT_TOKENS)
DEBERTA_V2 = TokenizerClass(
    "DebertaV2Tokenizer",
    "Unigram",
    {**_BERT_TOKENS, "bos_token": "[CLS]", "eos_token": "[SEP]"},
    ("spm.model",),
    token_types=True,
)
AS_STORED = TokenizerClass("TokenizersBackend")

# By name, without the suffix Fast; many are aliases of BERT's.
CLASSES = {
    "BertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "LayoutLMTokenizer": BERT,
    "LxmertTokenizer": BERT,
    "MobileBertTokenizer": BERT,
    "SqueezeBertTokenizer": BERT,
    "DistilBertTokenizer": DISTILBERT,
    "MPNetTokenizer": MPNET,
    "BartTokenizer": ROBERTA,
    "LEDTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "RobertaTokenizer": ROBERTA,
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "CamembertTokenizer": CAMEMBERT,
    "AlbertTokenizer": ALBERT,
    "DebertaV2Tokenizer": DEBERTA_V2,
    "PreTrainedTokenizer": AS_STORED,
    "TokenizersBackend": AS_STORED,
}
# The class of each model_type, unless the folder names one.
FAMILY_CLASSES = {
    "bert": BERT,
    "distilbert": BERT,
    "electra": BERT,
    "albert": ALBERT,
    "mpnet": MPNET,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "data2vec-text": ROBERTA,
    "ernie": BERT,
    "deberta-v2": DEBERTA_V2,
    "modernbert": AS_STORED,
    "nomic_bert": BERT,
    "gte": XLM_ROBERTA,
    "jina_embeddings_v3": XLM_ROBERTA,
    "jina_bert": BERT,
    "jina_bert_code": ROBERTA,
}
_ALWAYS_STORED = ("modernbert",)  # its folders name wrong classes, which transformers ignores
_RESAVE = (
    "have transformers 5 write a tokenizer.json with "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER); a class for which it writes "
    "none has no fast version and is not supported."
)


@dataclass(frozen=True)
class TokenizerSettings:
    """What a folder says about its tokenizer.

    ``config`` is tokenizer_config.json; ``older`` is special_tokens_map.json if it still applies,
    that is, if the config has no ``added_tokens_decoder``. ``usual_tokens`` are the texts of
    special tokens unless these files say otherwise.
    """

    folder: Path
    kind: TokenizerClass
    usual_tokens: Mapping[str, str]
    config: Mapping[str, Any]
    older: Mapping[str, Any]

    def switch(self, name: str, default: bool | None) -> Any:
        """True or false; null is a value of its own for ``strip_accents`` only.

        Elsewhere, the classes for unigrams take null as false, and those for others refuse it.
        """
        value = self._value(name, default)
        if value is None and name != "strip_accents":
            return False if self.kind.model == "Unigram" else default
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(
                f"{TOKENIZER_CONFIG_NAME}: {name} must be true or false, not {value!r}."
            )
        return value

    @property
    def unknown_id(self) -> int:
        """The id that DeBERTa's class uses for the unknown token if it does not find it."""
        value = self._value("unk_id", 1)
        if type(value) is not int or value < 0:
            raise CheckpointError(
                f"{TOKENIZER_CONFIG_NAME}: unk_id must be a token id, not {value!r}."
            )
        return value

    @property
    def max_length(self) -> int | None:
        """The length limit in tokens, including special tokens; None without one."""
        stored = self._value("model_max_length", self._value("max_len", None))
        if isinstance(stored, (int, float)) and 1 <= stored < 1 << 24:  # 1e30 is 'no limit'
            return int(stored)
        return None

    @property
    def token_types(self) -> bool:
        """Whether the model is given token type ids."""
        names = self._value("model_input_names", None)
        if names is None:
            return self.kind.token_types
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(
                f"{TOKENIZER_CONFIG_NAME}: model_input_names must be a list of names."
            )
        return "token_type_ids" in names

    def side(self, stored: object) -> Side:
        """The truncation side; ``stored`` is that of tokenizer.json."""
        value = self._value("truncation_side", stored)
        if value not in ("right", "left"):
            raise CheckpointError(
                f"{TOKENIZER_CONFIG_NAME}: truncation_side must be 'right' or 'left', not "
                f"{value!r}."
            )
        return "left" if value == "left" else "right"

    def _value(self, name: str, default: Any) -> Any:
        return self.older.get(name, self.config.get(name, default))


def read_settings(folder: Path, given: Mapping[str, Any] | None = None) -> TokenizerSettings:
    """Read the files of a folder; ``given`` are sentence-transformers' settings that override them.

    Raises CheckpointError for a tokenizer that sparsebert cannot build, and for damaged files.
    """
    config = {**read_optional(folder, TOKENIZER_CONFIG_NAME), **(given or {})}
    TOKENIZER_CONFIG.check(config, folder / TOKENIZER_CONFIG_NAME)
    older = {} if "added_tokens_decoder" in config else read_optional(folder, _OLDER_NAME)
    older = {name: value for name, value in older.items() if name not in (given or {})}
    model_type, kind = _class_of(folder, config)
    usual = kind.tokens or FAMILY_CLASSES.get(model_type, BERT).tokens or _BERT_TOKENS
    return TokenizerSettings(folder, kind, usual, config, older)


def read_optional(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the folder; empty without the file."""
    return read_object(folder / name) if has_file(folder / name) else {}


def _class_of(folder: Path, settings: Mapping[str, Any]) -> tuple[str, TokenizerClass]:
    """The model_type, and the class that the config files name, or else the family's."""
    config = read_config(folder) if has_file(folder / CONFIG_NAME) else {}
    model_type = str(model_type_of(config))
    stored = has_file(folder / TOKENIZER_NAME)
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if model_type in _ALWAYS_STORED:
        kind = AS_STORED
    elif named is None:
        kind = FAMILY_CLASSES.get(model_type) or _by_files(folder, stored)
    elif isinstance(named, str) and named.removesuffix("Fast") in CLASSES:
        kind = CLASSES[named.removesuffix("Fast")]
    elif stored and settings.get("backend") == "tokenizers":
        # Written by transformers 5, so the file already has what the class would build from it.
        kind = AS_STORED
    else:
        raise CheckpointError(
            f"{folder}: its tokenizer is a {named}, which sparsebert does not support: {_RESAVE}"
        )
    if not stored:
        _check_files(folder, kind)
    return model_type, kind


def _by_files(folder: Path, stored: bool) -> TokenizerClass:
    """The class in the oldest folders, which name neither class nor model_type."""
    if not stored:
        for kind in (BERT, ROBERTA):
            if all(has_file(folder / name) for name in kind.files):
                return kind
    return AS_STORED


def _check_files(folder: Path, kind: TokenizerClass) -> None:
    """Raise CheckpointError for vocabulary files that ``kind`` is not built from."""
    if kind.files and all(has_file(folder / name) for name in kind.files):
        return
    others = ("vocab.txt", "vocab.json", "merges.txt", "bpe.codes")
    found = [name for name in others if has_file(folder / name)]
    found += sorted(path.name for path in folder.glob("*.model"))
    if found:
        name = kind.name if kind.model else "tokenizer"
        raise CheckpointError(
            f"{folder} has {' and '.join(found)} but no {TOKENIZER_NAME}, and sparsebert builds no "
            f"{name} from that: {_RESAVE}"
        )


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
_ADDED = "added_tokens_decoder"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def special_tokens(settings: TokenizerSettings) -> dict[str, str]:
    """The text of each special token: what the files say, or else the default."""
    found = {**settings.config, **settings.older}
    named = {
        name: _token(found[name], name, special=True).content for name in _ROLES if found.get(name)
    }
    return {**settings.usual_tokens, **named}


def add_recorded_tokens(
    tokenizer: Tokenizer, settings: TokenizerSettings, stored: Mapping[int, AddedToken]
) -> None:
    """Add the tokens that the files list with ids; ``stored`` are those in its own file.

    Raises CheckpointError for malformed files, and if a token would not get its recorded id.
    """
    named = _named(settings, padding=tokenizer.padding)
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
                f"{settings.folder}: the added token {token.content!r} is recorded with id {index} "
                f"but would get {given} after this vocabulary."
            )


def add_named_tokens(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    """Add the special tokens that are missing, in transformers' order and with its flags."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    new = [*_named(settings, padding=tokenizer.padding).values(), *_extra(settings)]
    tokenizer.add_tokens([token for token in new if token.content not in known])


def _recorded(
    settings: TokenizerSettings, stored: Mapping[int, AddedToken]
) -> dict[int, AddedToken]:
    """Added tokens by the ids that the files record."""
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
    return {**older, **stored}  # a tokenizer.json has more details


def _named(
    settings: TokenizerSettings, *, usual: bool = True, padding: Mapping[str, Any] | None = None
) -> dict[str, AddedToken]:
    """The special tokens with a role, and others that a model names ``..._token``.

    With ``usual``, also the class's own that no file names, and the token of the ``padding`` that a
    tokenizer.json has.
    """
    written = {**settings.config, **settings.older}
    if usual:
        written = {
            "pad_token": (padding or {}).get("pad_token"),
            **settings.kind.tokens,
            **written,
        }
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
        if settings.kind in (MPNET, CAMEMBERT) and name == "mask_token" and isinstance(value, str):
            value = {"content": value, "lstrip": True}  # it includes the space before it
        token = _token(value, name, special=True)
        token.special = True
        named.setdefault(token.content, token)
    return named


def _extra(settings: TokenizerSettings, *, old: bool = True) -> Iterator[AddedToken]:
    """The special tokens without a role.

    tokenizer_config.json may list them under their new name or the old one. It may also have both
    if the new one names each token. With ``old``, those that the old file lists under their old
    name, or else the class's own, if tokenizer_config.json has none.
    """
    config, older = settings.config, settings.older
    named = config.get(_EXTRA) if isinstance(config.get(_EXTRA), dict) else None
    key = _EXTRA if config.get(_EXTRA) and named is None else _OLD_EXTRA
    silent = old and _EXTRA not in config and _OLD_EXTRA not in config
    listed = (older if silent else config).get(key)
    if listed is None and old:
        listed = list(settings.kind.extra)
    for name, tokens in ((_EXTRA, named), (key, listed), (_EXTRA, older.get(_EXTRA))):
        if not isinstance(tokens, dict | list | None):
            raise CheckpointError(f"the tokenizer's '{name}' must list tokens.")
        for token in tokens.values() if isinstance(tokens, dict) else tokens or []:
            yield _token(token, name, special=True)


def _token(stored: object, where: str, *, special: bool = False) -> AddedToken:
    """A token from its text, or from text and flags; ``special`` unless these say otherwise."""
    written = stored if isinstance(stored, dict) else {"content": stored}
    text = written.get("content")
    flags = {name: written[name] for name in _FLAGS if name in written}
    if not isinstance(text, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise CheckpointError(f"the tokenizer's '{where}' contains something that is not a token.")
    return AddedToken(text, **{"special": special, **flags})


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10
