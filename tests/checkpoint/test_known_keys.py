"""Every key that the installed libraries read of a folder has its place in the tables.

A new version that reads another key fails here, and the key is honoured, known to be harmless or
refused from then on.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from family_configs import IN_TRANSFORMERS
from sparsebert.checkpoint import known_keys
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.checkpoint.known_keys import KnownKeys, Refusal
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

TABLES = {name: each for name, each in vars(known_keys).items() if isinstance(each, KnownKeys)}


def keys_in(source: str, *names: str) -> set[str]:
    """The keys that code takes out of dictionaries with these names."""
    found: set[str] = set()
    for name in names:
        found |= set(re.findall(rf'\b{name}\.(?:get|pop|setdefault)\(\s*"(\w+)"', source))
        found |= set(re.findall(rf'\b{name}\["(\w+)"\](?! = )', source))
        found |= set(re.findall(rf'"(\w+)" (?:not )?in {name}\b(?!\[)', source))
    return found


def parameters(function: Callable[..., Any]) -> set[str]:
    kinds = inspect.signature(function).parameters
    return {name for name, kind in kinds.items() if kind.kind is not kind.VAR_KEYWORD} - {"self"}


@pytest.mark.parametrize("table", TABLES)
def test_a_key_has_one_place(table: str) -> None:
    keys = TABLES[table]
    assert not keys.honoured & keys.harmless
    assert not (keys.honoured | keys.harmless) & set(keys.refused)


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_config(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    import dataclasses
    import importlib

    kind = type(transformers.AutoConfig.for_model(family))
    fields = {each.name for each in dataclasses.fields(kind)}
    settable = {
        name for name, each in vars(kind).items() if isinstance(each, property) and each.fset
    }
    base = inspect.getsource(transformers.PreTrainedConfig.__post_init__)
    code = Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    stem = kind.__module__.replace("configuration", "modeling")
    modeling = Path(inspect.getfile(importlib.import_module(stem))).read_text(encoding="utf-8")
    asked = set(re.findall(r"\bconfig\.(\w+)", modeling))
    for module in ("masking_utils", "modeling_utils"):
        shared = importlib.import_module(f"transformers.{module}")
        modeling += inspect.getsource(shared)
    asked |= set(re.findall(r'getattr\((?:self\.)?config, "(\w+)"', modeling))
    asked = {name for name in asked if not callable(getattr(kind, name, None))}
    read = fields | settable | asked | set(kind.attribute_map)
    assert read | keys_in(base + code, "kwargs") <= known_keys.CONFIG.all


def test_the_tables_keys_are_those_that_families_read() -> None:
    """What is honoured under a family's own name is in the table too."""
    own = {key for family in FAMILIES.values() for key in family.fields.values()}
    assert own <= known_keys.CONFIG.all


def test_tokenizer_config() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.auto import tokenization_auto

    base, backend = transformers.PreTrainedTokenizerBase, transformers.TokenizersBackend
    classes = (
        transformers.AlbertTokenizer,
        transformers.BertTokenizer,
        transformers.DebertaV2Tokenizer,
        transformers.MPNetTokenizer,
        transformers.RobertaTokenizer,
        transformers.XLMRobertaTokenizer,
    )
    read = {name for kind in classes for name in parameters(kind.__init__)}
    read |= set(base.SPECIAL_TOKENS_ATTRIBUTES)
    for function in (
        base.__init__,
        base.from_pretrained,
        base._from_pretrained,
        backend.__init__,
        backend.convert_to_native_format,
    ):
        names = ("kwargs", "init_kwargs", "local_kwargs", "tokenizer_config")
        read |= keys_in(inspect.getsource(function), *names)
    auto = inspect.getsource(tokenization_auto.AutoTokenizer.from_pretrained)
    read |= keys_in(auto, "tokenizer_config")
    assert read <= known_keys.TOKENIZER_CONFIG.all


class TestSentenceTransformers:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("sentence_transformers")

    def test_transformer(self) -> None:
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.util import decorators

        read = set(Transformer.config_keys) | parameters(Transformer.__init__)
        for function in (Transformer._load_init_kwargs, Transformer.load_config):
            read |= keys_in(inspect.getsource(function), "config")
            read |= set(re.findall(r'"(\w+)": "\w+_kwargs"', inspect.getsource(function)))
        read |= keys_in(inspect.getsource(decorators.transformer_kwargs_decorator), "kwargs")
        assert read - {"model_name_or_path"} <= known_keys.SENTENCE_CONFIG.all

    def test_pooling(self) -> None:
        from sentence_transformers.sentence_transformer.modules import pooling

        read = parameters(pooling.Pooling.__init__) | set(pooling.Pooling.config_keys)
        read |= set(pooling.Pooling.config_key_renames) | set(pooling._LEGACY_POOLING_MODE_KWARGS)
        assert read <= known_keys.POOLING.all

    def test_other_modules(self) -> None:
        from sentence_transformers.base.modules import Dense, Normalize
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
        from sentence_transformers.sentence_transformer.modules import Dropout
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

        table = inspect.getsource(SparseStaticEmbedding.load)
        assert keys_in(table, "config") | set(SparseStaticEmbedding.config_keys) <= (
            known_keys.SPARSE_TABLE.all
        )
        assert parameters(Normalize.__init__) <= known_keys.NORMALIZE.all
        assert parameters(MultiVectorMask.__init__) <= known_keys.MULTI_VECTOR_MASK.all
        assert set(Dense.config_keys) <= known_keys.DENSE.all
        assert parameters(Dropout.__init__) <= known_keys.DROPOUT.all

    def test_the_model(self) -> None:
        from sentence_transformers import (
            CrossEncoder,
            MultiVectorEncoder,
            SentenceTransformer,
            SparseEncoder,
        )
        from sentence_transformers.base.model import BaseModel

        settings: set[str] = set()
        for kind in (
            BaseModel,
            SentenceTransformer,
            CrossEncoder,
            SparseEncoder,
            MultiVectorEncoder,
        ):
            source = inspect.getsource(kind)
            settings |= keys_in(source, "model_config")
            settings |= set(re.findall(r'^ +"(\w+)": self\.', source, re.MULTILINE))
        assert settings <= known_keys.SENTENCE_TRANSFORMERS.all
        assert keys_in(inspect.getsource(BaseModel), "module_config") <= known_keys.MODULES.all


class TestCheck:
    keys = KnownKeys(
        honoured=frozenset({"a"}), refused={"b": Refusal("and that is not done", ("plain",))}
    )

    @pytest.mark.parametrize("value", [None, False, "", [], {}, 0, "plain"])
    def test_values_that_change_nothing_pass(self, value: object) -> None:
        self.keys.check({"a": 1, "b": value, "others": 7}, "file.json")

    def test_others_are_named_with_the_reason(self) -> None:
        with pytest.raises(CheckpointError, match=r"^file\.json: b is 'fancy', and that is not"):
            self.keys.check({"b": "fancy"}, "file.json")
        with pytest.raises(UnsupportedArchitectureError, match="b is set, and that is not done"):
            self.keys.check({"b": {"c": 1}}, "file.json", UnsupportedArchitectureError)

    def test_a_file_whose_every_key_is_read(self) -> None:
        keys = KnownKeys(honoured=frozenset({"a"}), others="which is none")
        keys.check({"a": 1}, "file.json")
        with pytest.raises(CheckpointError, match=r"file\.json: z is set, which is none"):
            keys.check({"a": 1, "z": None}, "file.json")
