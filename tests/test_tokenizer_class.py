"""What of a tokenizer.json counts is what transformers' class takes of it."""

from __future__ import annotations

import json
import shutil

import pytest

from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizer_files import read_tokenizer
from tricky_texts import TRICKY, tokenizer_of


class TestCasing:
    """What of a tokenizer.json counts is up to the class that transformers reads it with."""

    @pytest.mark.parametrize("switches", [{}, {"do_lower_case": True}, {"do_lower_case": False}])
    @pytest.mark.parametrize("lower", [True, False])
    @pytest.mark.parametrize(
        ("model_type", "kind"),
        [
            ("bert", None),
            ("bert", "BertTokenizer"),
            ("bert", "DistilBertTokenizerFast"),
            ("bert", "ElectraTokenizer"),
            ("bert", "PreTrainedTokenizerFast"),
            ("bert", "TokenizersBackend"),
            ("bert", "SomeTokenizer"),
            ("distilbert", None),
            ("electra", "BertTokenizerFast"),
            ("mpnet", None),
            ("mpnet", "PreTrainedTokenizerFast"),
            ("mpnet", "MPNetTokenizer"),
        ],
    )
    def test_switches(self, tmp_path, tiny_bert, model_type, kind, lower, switches):
        transformers = pytest.importorskip("transformers")
        shutil.copy(tiny_bert(model_type=model_type, lower_case=lower) / "tokenizer.json", tmp_path)
        named = {"tokenizer_class": kind} if kind else {}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**named, **switches}))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        ours = tokenizer_of(tmp_path, 2000).encode(as_texts(TRICKY))
        assert [tokens.ids.tolist() for tokens in ours] == theirs(list(TRICKY))["input_ids"]

    @pytest.mark.parametrize("named", ["tokenizer_config.json", "config.json", None])
    def test_where_the_class_is_named(self, tmp_path, tiny_bert, named):
        transformers = pytest.importorskip("transformers")
        shutil.copy(tiny_bert(lower_case=False) / "tokenizer.json", tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        if named:
            config = {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}
            (tmp_path / named).write_text(json.dumps(config))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs("The FERRY")["input_ids"] == read_tokenizer(tmp_path).encode("The FERRY").ids

    @pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
    @pytest.mark.parametrize("normalizer", [None, {"type": "Lowercase"}])
    def test_another_normaliser(self, tmp_path, tiny_bert, kind, normalizer):
        transformers = pytest.importorskip("transformers")
        stored = json.loads((tiny_bert(lower_case=False) / "tokenizer.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps({**stored, "normalizer": normalizer}))
        config = {"tokenizer_class": kind, "do_lower_case": False}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in ("The FERRY", "a\u0301 FERRY"):
            assert theirs(text)["input_ids"] == read_tokenizer(tmp_path).encode(text).ids
