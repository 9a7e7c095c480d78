"""A folder's tokenizer is the one that transformers' class builds of its files, or is refused."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from family_configs import IN_TRANSFORMERS
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.checkpoint.tokenizer_settings import AS_STORED, CLASSES, FAMILY_CLASSES
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import TextTokenizer
from tiny_models import vocabulary, write_vocabulary_folder
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
        assert (
            theirs("The FERRY")["input_ids"]
            == read_tokenizer(tmp_path).backend.encode("The FERRY").ids
        )

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
            assert theirs(text)["input_ids"] == read_tokenizer(tmp_path).backend.encode(text).ids


def same_as_transformers(folder: Path, texts: list[str]) -> None:
    """Token ids, token types and added tokens are those of transformers' own tokenizer."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    stored = read_tokenizer(folder)
    assert stored is not None
    tokenizer = TextTokenizer(
        stored.backend, max_length=5000, type_vocab_size=2 if stored.token_types else None
    )
    pairs = list(zip(texts, reversed(texts), strict=True))
    for ours, expected in (
        (tokenizer.encode(as_texts(texts)), theirs(texts)),
        (tokenizer.encode(as_texts(pairs)), theirs([a for a, _ in pairs], [b for _, b in pairs])),
    ):
        ids = expected["input_ids"]
        assert [tokens.ids.tolist() for tokens in ours] == ids
        none = [[0] * len(row) for row in ids]
        types = expected.get("token_type_ids", none)
        assert [tokens.type_ids.tolist() for tokens in ours] == types
    table = {index: repr(token) for index, token in theirs.added_tokens_decoder.items()}
    found = stored.backend.get_added_tokens_decoder()
    assert {index: repr(token) for index, token in found.items()} == table
    assert stored.truncation_side == theirs.truncation_side


def rewritten(folder: Path, source: Path, **parts: Any) -> Path:
    """A folder with another's tokenizer.json, some ``parts`` of it changed, and its config.json."""
    folder.mkdir(exist_ok=True)
    shutil.copy(source / "config.json", folder)
    stored = json.loads((source / "tokenizer.json").read_text())
    model = {**stored["model"], **parts.pop("model", {})}
    (folder / "tokenizer.json").write_text(json.dumps({**stored, **parts, "model": model}))
    return folder


class TestClasses:
    """The table of classes is transformers' own."""

    @pytest.mark.parametrize("ending", ["", "Fast"])
    @pytest.mark.parametrize("name", CLASSES)
    def test_by_name(self, name: str, ending: str) -> None:
        pytest.importorskip("transformers")
        from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

        kind, found = CLASSES[name], tokenizer_class_from_name(name + ending)
        if kind is AS_STORED:
            assert found.__name__ in ("TokenizersBackend", "PythonBackend")
            return
        assert found.__name__ == kind.name
        assert "__init__" in found.__dict__  # builds anew what a tokenizer.json says
        if found.model is not None:  # CamemBERT's does not name it
            assert found.model.__name__ == kind.model
        assert ("token_type_ids" in found.model_input_names) == kind.token_types

    @pytest.mark.parametrize("family", IN_TRANSFORMERS)
    def test_by_family(self, family: str) -> None:
        pytest.importorskip("transformers")
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

        assert FAMILY_CLASSES[family].name == TOKENIZER_MAPPING_NAMES[family]


class TestRefusals:
    """Files that transformers reads in another way, or not at all, are not guessed at."""

    @pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
    @pytest.mark.parametrize(
        "named", ["BertJapaneseTokenizer", "PhobertTokenizer", "BertweetTokenizer", "MyTokenizer"]
    )
    def test_words_of_other_classes(self, tmp_path: Path, named: str, where: str) -> None:
        folder = write_vocabulary_folder(tmp_path / "m", vocabulary())
        (folder / "config.json").write_text('{"model_type": "bert"}')
        config = {"model_type": "bert", "tokenizer_class": named}
        (folder / where).write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=rf"a {named}, .*save_pretrained\(FOLDER\)"):
            read_tokenizer(folder)

    @pytest.mark.parametrize(
        ("files", "config"),
        [
            (("vocab.txt",), {"model_type": "xlm-roberta"}),
            (("vocab.txt",), {"model_type": "roberta"}),
            (("vocab.txt",), {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}),
            (("vocab.txt",), {"model_type": "modernbert"}),
            (("vocab.json", "merges.txt"), {"model_type": "bert"}),
            (("vocab.json",), {"model_type": "roberta"}),
            (("sentencepiece.bpe.model",), {"model_type": "xlm-roberta"}),
            (("spiece.model",), {}),
        ],
        ids=str,
    )
    def test_vocabularies_of_other_classes(
        self, tmp_path: Path, files: tuple[str, ...], config: dict[str, str]
    ) -> None:
        for name in files:
            (tmp_path / name).write_text("{}")
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=rf"{files[0]}.* no tokenizer\.json, and .* no "):
            read_tokenizer(tmp_path)

    @pytest.mark.parametrize(
        "auto_map", [{"AutoTokenizer": [None, "mine.Tokenizer"]}, ["mine.Tokenizer", None]]
    )
    def test_code_of_its_own(self, tmp_path: Path, tiny_bert: Any, auto_map: Any) -> None:
        folder = rewritten(tmp_path, tiny_bert())
        (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
        with pytest.raises(CheckpointError, match="brings its own code"):
            read_tokenizer(folder)

    @pytest.mark.parametrize(
        ("family", "other"), [("bert", "roberta"), ("roberta", "bert"), ("xlm-roberta", "bert")]
    )
    def test_a_vocabulary_of_another_kind(
        self, tmp_path: Path, tiny_bert: Any, family: str, other: str
    ) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type=other))
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
        with pytest.raises(CheckpointError, match="its tokenizer class requires"):
            read_tokenizer(folder)

    def test_a_class_that_transformers_has_saved_anew(self, tmp_path: Path) -> None:
        """HerBERT's byte pairs end words with </w>, in a class of their own."""
        transformers = pytest.importorskip("transformers")
        words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"ferySTh", "e</w>", "y</w>", "fe"]
        theirs = transformers.HerbertTokenizer(
            vocab={word: index for index, word in enumerate(words)}, merges=[("f", "e")]
        )
        theirs.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        same_as_transformers(tmp_path, ["fe fey", "The ferry S.", "<mask> fey"])
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        del config["backend"]  # as transformers 4 wrote it
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="a HerbertTokenizer, which sparsebert does not"):
            read_tokenizer(tmp_path)


# One byte of SentencePiece's table of characters: Q becomes q.
_UNITS = [0] * 0x352
_UNITS[0], _UNITS[0x151] = 0x100 << 10, (0x200 << 10) | 1 << 8 | ord("Q")
TABLE = struct.pack(f"<I{len(_UNITS)}I", 4 * len(_UNITS), *_UNITS) + b"q\0"
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(TABLE).decode()}
PARTS = {
    "no special tokens": {"post_processor": None},
    "other special tokens": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "end", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 1}},
                {"SpecialToken": {"id": "end", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"end": {"id": "end", "ids": [3], "tokens": ["end"]}},
        }
    },
    "a normaliser": {"normalizer": {"type": "Lowercase"}},
    "a table of characters": {"normalizer": PRECOMPILED},
    "a table among others": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, PRECOMPILED]}
    },
    "a way to cut words": {"pre_tokenizer": {"type": "Whitespace"}},
    "texts cut at the left": {
        "truncation": {
            "direction": "Left",
            "max_length": 9,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    },
    "no added tokens": {"added_tokens": []},
}


class TestParts:
    """Of a tokenizer.json, what the class takes counts, and what it builds itself does not."""

    texts: list[str] = [*TRICKY, "The QUEEN's  ferry", "a <mask> b", "a [MASK] b"]  # noqa: RUF012

    @pytest.mark.parametrize("kind", [None, "PreTrainedTokenizerFast"])
    @pytest.mark.parametrize("parts", PARTS.values(), ids=list(PARTS))
    @pytest.mark.parametrize("family", IN_TRANSFORMERS)
    def test_each(
        self, tmp_path: Path, tiny_bert: Any, family: str, parts: dict[str, Any], kind: str | None
    ) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type=family), **parts)
        if kind:
            (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        same_as_transformers(folder, self.texts)

    @pytest.mark.parametrize("kind", [None, "PreTrainedTokenizerFast"])
    @pytest.mark.parametrize("family", ["bert", "mpnet"])
    def test_the_limit_of_word_pieces(
        self, tmp_path: Path, tiny_bert: Any, family: str, kind: str | None
    ) -> None:
        limit = {"max_input_chars_per_word": 5, "continuing_subword_prefix": "##"}
        folder = rewritten(tmp_path, tiny_bert(model_type=family), model=limit)
        if kind:
            (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        same_as_transformers(folder, self.texts)

    def test_xlm_rs_unknown_token_has_its_place(self, tmp_path: Path, tiny_bert: Any) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type="xlm-roberta"), model={"unk_id": 1})
        same_as_transformers(folder, self.texts)

    @pytest.mark.parametrize("family", ["bert", "roberta"])
    def test_xlm_rs_pieces_in_another_family(
        self, tmp_path: Path, tiny_bert: Any, family: str
    ) -> None:
        """As the multilingual MiniLMs have them."""
        folder = rewritten(tmp_path, tiny_bert(model_type="xlm-roberta"), normalizer=PRECOMPILED)
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
        for settings in ({}, {"add_prefix_space": False}):
            named = {"tokenizer_class": "XLMRobertaTokenizerFast", **settings}
            (folder / "tokenizer_config.json").write_text(json.dumps(named))
            same_as_transformers(folder, self.texts)

    def test_added_tokens_that_the_config_does_not_list(
        self, tmp_path: Path, tiny_bert: Any
    ) -> None:
        source = tiny_bert()
        added = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
        ferry = {**added[-1], "id": vocabulary().index("ferry"), "content": "ferry"}
        folder = rewritten(tmp_path, source, added_tokens=[*added, ferry])
        same_as_transformers(folder, self.texts)
        listed = {"4": {"content": "[MASK]", "special": True}}
        config = {"added_tokens_decoder": listed}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        same_as_transformers(folder, self.texts)


class TestSettings:
    """Keys of tokenizer_config.json that say what becomes of the tokens."""

    texts: list[str] = [*TRICKY, "a <mask> b", "a [MASK] b<mask>", "[CLS] </s>"]  # noqa: RUF012

    @pytest.mark.parametrize(
        "settings",
        [
            {"model_input_names": ["input_ids", "attention_mask"]},
            {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
            {"split_special_tokens": True},
            {"truncation_side": "left"},
            {"mask_token": "[MASK]"},
            {"mask_token": "<mask>", "pad_token": "[PAD]"},
            {"cls_token": "a", "sep_token": "b", "bos_token": "b", "eos_token": "a"},
            {"model_specific_special_tokens": {"ferry_token": "ferry"}},
            {"extra_special_tokens": {"first": "ferry"}, "additional_special_tokens": ["noon"]},
            {"extra_special_tokens": ["ferry"], "additional_special_tokens": ["noon"]},
            {"extra_special_tokens": {}, "additional_special_tokens": ["noon"]},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "xlm-roberta", "modernbert"])
    def test_each(
        self, tmp_path: Path, tiny_bert: Any, family: str, settings: dict[str, Any]
    ) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type=family), added_tokens=[])
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        same_as_transformers(folder, self.texts)

    @pytest.mark.parametrize("family", ["xlm-roberta", "camembert", "albert", "deberta-v2"])
    @pytest.mark.parametrize("switch", ["add_prefix_space", "do_lower_case", "keep_accents"])
    def test_null_is_false_to_classes_for_unigrams(
        self, tmp_path: Path, tiny_bert: Any, family: str, switch: str
    ) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type=family))
        (folder / "tokenizer_config.json").write_text(json.dumps({switch: None}))
        same_as_transformers(folder, self.texts)

    @pytest.mark.parametrize("family", ["bert", "electra", "modernbert"])
    def test_distilberts_class_tells_no_token_types(
        self, tmp_path: Path, tiny_bert: Any, family: str
    ) -> None:
        folder = rewritten(tmp_path, tiny_bert(model_type=family))
        config = {"tokenizer_class": "DistilBertTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        same_as_transformers(folder, self.texts)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"truncation_side": "middle"},
                "truncation_side must be 'right' or 'left', not 'middle'",
            ),
            ({"model_input_names": "input_ids"}, "must be a list of names"),
            (
                {"split_special_tokens": "yes"},
                "split_special_tokens must be true or false, not 'yes'",
            ),
            ({"init_inputs": ["a"]}, "init_inputs is set, but sparsebert builds"),
            ({"vocab": {"a": 0}}, "vocab is set, but sparsebert reads it from"),
            ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "only reads tokenizer.json"),
        ],
        ids=str,
    )
    def test_values_that_are_none(
        self, tmp_path: Path, settings: dict[str, Any], message: str
    ) -> None:
        folder = write_vocabulary_folder(tmp_path / "m", vocabulary(), **settings)
        with pytest.raises(CheckpointError, match=message):
            read_tokenizer(folder)
