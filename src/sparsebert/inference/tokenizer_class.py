"""Which of transformers' tokenizer classes reads a folder, and so what of tokenizer.json counts.

The classes of word pieces and byte pairs take vocabulary and added tokens out of a tokenizer.json
and build the rest anew; every other class takes the file as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.documents import read_object


class TokenizerClass(Enum):
    """What a class of transformers builds."""

    BERT = "BERT's word pieces"
    MPNET = "MPNet's word pieces"
    ROBERTA = "RoBERTa's byte pairs"
    FILE = "what tokenizer.json says"


# By name without the ending Fast; ELECTRA's and some others are names for BERT's own.
_CLASSES = {
    "BertTokenizer": TokenizerClass.BERT,
    "DistilBertTokenizer": TokenizerClass.BERT,
    "DPRContextEncoderTokenizer": TokenizerClass.BERT,
    "DPRQuestionEncoderTokenizer": TokenizerClass.BERT,
    "ElectraTokenizer": TokenizerClass.BERT,
    "LayoutLMTokenizer": TokenizerClass.BERT,
    "LxmertTokenizer": TokenizerClass.BERT,
    "MobileBertTokenizer": TokenizerClass.BERT,
    "SqueezeBertTokenizer": TokenizerClass.BERT,
    "MPNetTokenizer": TokenizerClass.MPNET,
    "BartTokenizer": TokenizerClass.ROBERTA,
    "LongformerTokenizer": TokenizerClass.ROBERTA,
    "RobertaTokenizer": TokenizerClass.ROBERTA,
}
# What a model_type has unless the folder names a class.
_FAMILIES = {
    "bert": TokenizerClass.BERT,
    "distilbert": TokenizerClass.BERT,
    "electra": TokenizerClass.BERT,
    "mpnet": TokenizerClass.MPNET,
    "roberta": TokenizerClass.ROBERTA,
}
_ALWAYS_FILE = ("modernbert",)  # its folders name wrong classes, so transformers looks at none


def tokenizer_class(folder: Path) -> TokenizerClass:
    """That of tokenizer_config.json or config.json, else that of the family."""
    config = read_settings(folder, CONFIG_NAME)
    model_type = config.get("model_type")
    named = read_settings(folder).get("tokenizer_class") or config.get("tokenizer_class")
    if model_type in _ALWAYS_FILE:
        return TokenizerClass.FILE
    known: Mapping[Any, TokenizerClass] = _CLASSES
    if isinstance(named, str):
        name = named.removesuffix("Fast")
    else:
        known, name = _FAMILIES, model_type if isinstance(model_type, str) else ""
    return known.get(name, TokenizerClass.FILE)


def read_settings(folder: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    """A JSON object of the folder; empty without the file."""
    return read_object(folder / name) if (folder / name).is_file() else {}
