"""Token ids are those of transformers, and lengths are ours to limit and to tell of."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sentences import SENTENCES, long_text
from sparsebert import load
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import (
    TextTokenizer,
    TruncationWarning,
    length_limit,
    longest_first,
)
from tiny_models import vocabulary, write_vocabulary_folder
from tricky_texts import TRICKY, tokenizer_of


@pytest.fixture(scope="module")
def transformers_tokenizer(minilm):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def vocabulary_words(minilm) -> list[str]:
    return (minilm / "vocab.txt").read_text(encoding="utf-8").splitlines()


class TestSameIdsAsTransformers:
    def test_single_texts(self, minilm, transformers_tokenizer):
        ours = tokenizer_of(minilm).encode(as_texts(TRICKY))
        theirs = transformers_tokenizer(list(TRICKY), padding=False, truncation=False)
        for tokens, ids, kinds in zip(
            ours, theirs["input_ids"], theirs["token_type_ids"], strict=True
        ):
            assert tokens.ids.dtype == tokens.type_ids.dtype == np.int32
            assert tokens.ids.tolist() == ids
            assert tokens.type_ids.tolist() == kinds

    def test_pairs(self, minilm, transformers_tokenizer):
        pairs = list(zip(TRICKY, reversed(TRICKY), strict=True))
        ours = tokenizer_of(minilm).encode(as_texts(pairs))
        theirs = transformers_tokenizer([a for a, _ in pairs], [b for _, b in pairs])
        for tokens, ids, kinds in zip(
            ours, theirs["input_ids"], theirs["token_type_ids"], strict=True
        ):
            assert tokens.ids.tolist() == ids
            assert tokens.type_ids.tolist() == kinds

    @pytest.mark.parametrize("lower", [True, False])
    @pytest.mark.parametrize("strip", [None, True, False])
    @pytest.mark.parametrize("chinese", [True, False])
    def test_vocabulary_file_with_every_setting(
        self, tmp_path, vocabulary_words, lower, strip, chinese
    ):
        transformers = pytest.importorskip("transformers")
        choices = {
            "do_lower_case": lower,
            "strip_accents": strip,
            "tokenize_chinese_chars": chinese,
        }
        folder = write_vocabulary_folder(tmp_path / "m", vocabulary_words, **choices)
        theirs = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), **choices)
        ours = tokenizer_of(folder).encode(as_texts(TRICKY))
        assert [tokens.ids.tolist() for tokens in ours] == theirs(list(TRICKY))["input_ids"]

    def test_vocabulary_file_without_settings_is_lower_cased(
        self, tmp_path, minilm, vocabulary_words
    ):
        folder = tmp_path / "m"
        folder.mkdir()
        shutil.copy(minilm / "vocab.txt", folder)
        texts = as_texts(TRICKY)
        for ours, full in zip(
            tokenizer_of(folder).encode(texts), tokenizer_of(minilm).encode(texts), strict=True
        ):
            assert ours.ids.tolist() == full.ids.tolist()

    def test_config_wins_over_tokenizer_json(self, tmp_path, tiny_bert):
        transformers = pytest.importorskip("transformers")
        folder = tmp_path / "m"
        shutil.copytree(tiny_bert(), folder)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.update(do_lower_case=False, tokenize_chinese_chars=False)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        ours = tokenizer_of(folder).encode(as_texts(TRICKY))
        assert [tokens.ids.tolist() for tokens in ours] == theirs(list(TRICKY))["input_ids"]
        unchanged = tokenizer_of(tiny_bert()).encode(as_texts(TRICKY))
        assert [t.ids.tolist() for t in ours] != [t.ids.tolist() for t in unchanged]

    def test_sentence_transformers_lower_case(self, tiny_bert):
        cased = tiny_bert(lower_case=False)
        lowering = read_tokenizer(cased, lower_case=True).backend
        found = TextTokenizer(lowering, max_length=64).encode(as_texts("THE FERRY Leaves"))
        expected = tokenizer_of(cased).encode(as_texts("the ferry leaves"))
        assert found[0].ids.tolist() == expected[0].ids.tolist()
        unchanged = tokenizer_of(cased).encode(as_texts("THE FERRY Leaves"))
        assert found[0].ids.tolist() != unchanged[0].ids.tolist()

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        left=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60),
        right=st.text(alphabet="abc ferry.,é中", max_size=60),
        limit=st.integers(4, 40),
    )
    def test_any_text_cut_to_any_length(self, minilm, transformers_tokenizer, left, right, limit):
        left, right = "start " + left, "other " + right
        ours = tokenizer_of(minilm, limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            single, pair = ours.encode(as_texts([left, (left, right)]))
        cut = {"truncation": "longest_first", "max_length": limit}
        assert single.ids.tolist() == transformers_tokenizer(left, **cut)["input_ids"]
        theirs = transformers_tokenizer(left, right, **cut)
        assert pair.ids.tolist() == theirs["input_ids"]
        assert pair.type_ids.tolist() == theirs["token_type_ids"]

    def test_special_tokens_of_another_name(self, tmp_path):
        renamed = {"[CLS]": "<s>", "[SEP]": "</s>", "[UNK]": "<u>"}
        words = [renamed.get(word, word) for word in vocabulary()]
        folder = write_vocabulary_folder(
            tmp_path / "m",
            words,
            cls_token={"content": "<s>", "special": True},
            sep_token="</s>",
            unk_token="<u>",
        )
        ids = tokenizer_of(folder).encode(as_texts("ferry"))[0].ids
        assert words[ids[0]] == "<s>"
        assert words[ids[-1]] == "</s>"
        special = read_tokenizer(folder).special_tokens
        assert (special["cls_token"], special["mask_token"]) == ("<s>", "[MASK]")

    @pytest.mark.shared
    def test_real_questions_and_paragraphs(self, minilm, transformers_tokenizer, shared_data):
        parquet = pytest.importorskip("pyarrow.parquet")
        (file,) = (shared_data / "squad").glob("validation*.parquet")
        table = parquet.read_table(file, columns=["question", "context"]).slice(0, 3000)
        questions, contexts = (table[name].to_pylist() for name in ("question", "context"))
        pairs = list(zip(questions, contexts, strict=True))
        with pytest.warns(TruncationWarning):
            ours = tokenizer_of(minilm, 256).encode(as_texts(pairs))
        theirs = transformers_tokenizer(
            questions, contexts, truncation="longest_first", max_length=256
        )
        assert [tokens.ids.tolist() for tokens in ours] == theirs["input_ids"]
        assert [tokens.type_ids.tolist() for tokens in ours] == theirs["token_type_ids"]


@pytest.mark.parametrize("index", [2**31, 2**32 - 1])
def test_ids_that_no_model_has(tmp_path, tiny_bert, index):
    """Around a text; in the vocabulary they are refused before."""
    stored = json.loads((tiny_bert() / "tokenizer.json").read_text())
    begins = {"id": "[CLS]", "ids": [index], "tokens": ["[CLS]"]}
    stored["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"[CLS]": begins},
    }
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    as_it_is = '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    (tmp_path / "tokenizer_config.json").write_text(as_it_is)
    with pytest.raises(CheckpointError, match=f"the id or type {index}; the largest supported"):
        tokenizer_of(tmp_path).encode(as_texts(["the ferry"]))


class TestLength:
    def test_stored_padding_and_truncation_do_not_leak(self, minilm):
        stored = Tokenizer.from_file(str(minilm / "tokenizer.json"))
        assert stored.truncation is not None
        assert stored.padding is not None
        tokenizer = tokenizer_of(minilm)
        short, long = tokenizer.encode(as_texts(["a ferry", long_text(300)]))
        assert len(short) == 4
        assert len(long) > 300

    def test_one_warning_says_how_many_and_which(self, minilm):
        texts = as_texts(["short", long_text(50), "short", long_text(60), long_text(70)])
        with pytest.warns(TruncationWarning) as caught:
            tokens = tokenizer_of(minilm, 16).encode(texts)
        assert [len(each) for each in tokens] == [3, 16, 3, 16, 16]
        assert len(caught) == 1
        warning = caught[0].message
        assert (warning.count, warning.first, warning.limit) == (3, 1, 16)
        assert str(warning) == (
            "3 texts are longer than 16 tokens and were truncated; the first is texts[1]."
        )
        assert caught[0].filename == __file__

    def test_a_text_that_just_fits_is_not_cut(self, minilm):
        tokenizer = tokenizer_of(minilm)
        exact = len(tokenizer.encode(as_texts(SENTENCES[-1]))[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = tokenizer_of(minilm, exact).encode(as_texts(SENTENCES[-1]), strict=True)
        assert len(kept[0]) == exact
        with pytest.warns(TruncationWarning, match=r"^the text is longer than"):
            tokenizer_of(minilm, exact - 1).encode(as_texts(SENTENCES[-1]))

    def test_strict_raises_and_names_the_text(self, minilm):
        texts = as_texts(["short", (long_text(10), long_text(20))])
        with pytest.raises(InputError, match=r"texts\[1\] has \d+ tokens and only 13 fit"):
            tokenizer_of(minilm, 16).encode(texts, strict=True)

    def test_two_very_long_texts_are_cut_in_good_time(self, minilm):
        # The library would make every combination of the overflow of both sides.
        texts = as_texts([(long_text(60_000), long_text(60_000))])
        with pytest.warns(TruncationWarning):
            tokens = tokenizer_of(minilm).encode(texts)[0]
        assert len(tokens) == 512

    @given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
    def test_longest_first(self, left, right, room):
        kept = longest_first(left, right, room)
        # token by token: the longer side loses one; of equals the first does
        a, b = left, right
        while a + b > room:
            a, b = (a - 1, b) if a > b or (a == b and left <= right) else (a, b - 1)
        assert sum(kept) == min(left + right, room)
        assert sorted(kept) == sorted((a, b))

    @pytest.mark.parametrize(
        ("asked", "trained", "stored", "expected"),
        [
            (None, None, None, 512),
            (None, None, 128, 128),
            (None, None, 1000000000000000019884624838656, 512),
            (None, 256, 128, 256),
            (None, 1024, 128, 512),
            (64, 256, 128, 64),
            (4096, 256, 128, 512),
        ],
    )
    @pytest.mark.parametrize("key", ["model_max_length", "max_len"])
    def test_limit(self, tmp_path, asked, trained, stored, expected, key):
        config = {} if stored is None else {key: stored}
        folder = write_vocabulary_folder(tmp_path / "m", vocabulary(), **config)
        limits = [trained, read_tokenizer(folder).max_length]
        assert length_limit(limits, asked=asked, positions=512) == expected

    @pytest.mark.parametrize("asked", [0, -1, 1.5, "128", True])
    def test_limit_that_is_none(self, tmp_path, asked):
        with pytest.raises(InputError, match="max_length"):
            length_limit([], asked=asked, positions=512)

    def test_limit_without_room_for_a_text(self, minilm):
        with pytest.raises(InputError, match="at least 4"):
            tokenizer_of(minilm, 3)


class TestWindows:
    @pytest.mark.parametrize(
        ("max_length", "stride"), [(64, 16), (64, 0), (40, 25), (384, 128), (24, 1)]
    )
    def test_as_transformers_cuts_them(self, minilm, transformers_tokenizer, max_length, stride):
        question, context = "Who asked the witness?", " ".join(TRICKY)
        theirs = transformers_tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        ours = list(
            tokenizer_of(minilm).windows(
                question, context, max_length=max_length, doc_stride=stride
            )
        )
        assert [window.tokens.ids.tolist() for window in ours] == theirs["input_ids"]
        assert [window.tokens.type_ids.tolist() for window in ours] == theirs["token_type_ids"]
        for number, window in enumerate(ours):
            for place, part in enumerate(theirs.sequence_ids(number)):
                expected = theirs["offset_mapping"][number][place] if part == 1 else (-1, -1)
                assert tuple(window.offsets[place]) == tuple(expected)

    def test_stride_wider_than_the_room_still_moves_on(self, minilm):
        tokenizer = tokenizer_of(minilm)
        windows = list(tokenizer.windows("Who?", long_text(40), max_length=16, doc_stride=128))
        starts = [window.offsets[window.offsets[:, 0] >= 0][0, 0] for window in windows]
        assert len(windows) > 3
        assert starts == sorted(set(starts))

    def test_short_context_is_one_window(self, minilm):
        windows = tokenizer_of(minilm).windows("Who?", "She did.", max_length=384, doc_stride=128)
        assert len(list(windows)) == 1

    def test_question_that_leaves_no_room(self, minilm):
        tokenizer = tokenizer_of(minilm)
        with pytest.raises(InputError, match="leaves no room for the context"):
            list(tokenizer.windows(long_text(40), "Yes it does.", max_length=32, doc_stride=8))


class TestOffsets:
    def test_each_token_is_found_where_it_says(self, minilm):
        text = "Café ferryboats, 中文 and don't"
        located = tokenizer_of(minilm).locate(as_texts(text))[0]
        pieces = [text[start:end] for start, end in located.offsets if start >= 0]
        assert pieces == ["Café", "ferry", "boats", ",", "中", "文", "and", "don", "'", "t"]
        assert located.offsets[0].tolist() == located.offsets[-1].tolist() == [-1, -1]

    def test_cut_text(self, minilm):
        with pytest.warns(TruncationWarning):
            located = tokenizer_of(minilm, 8).locate(as_texts(long_text(30)))[0]
        assert len(located.tokens) == len(located.offsets) == 8

    def test_pairs_are_refused(self, minilm):
        with pytest.raises(InputError, match="single texts"):
            tokenizer_of(minilm).locate(as_texts([("a", "b")]))


class TestBlankTexts:
    """As transformers reads them: nothing but the special tokens."""

    BLANKS = ("", " ", "\n", "  \n\t", "\u200b", "\u200b\u200d", "\x00\x01", "\ufffd")

    @pytest.mark.parametrize("text", BLANKS)
    def test_they_have_the_special_tokens_of_transformers(
        self, minilm, transformers_tokenizer, text
    ):
        tokenizer = tokenizer_of(minilm)
        for parts in ((text,), (text, text), ("fine", text), (text, "fine")):
            expected = transformers_tokenizer(*([part] for part in parts))
            whole = parts if len(parts) == 2 else text
            found = tokenizer.encode(as_texts([whole, "another"]))[0]
            assert found.ids.tolist() == expected["input_ids"][0]
            assert found.type_ids.tolist() == expected["token_type_ids"][0]

    def test_they_have_no_places(self, minilm):
        located = tokenizer_of(minilm).locate(as_texts(" "))[0]
        assert located.offsets.tolist() == [[-1, -1], [-1, -1]]

    def test_their_embeddings_are_those_of_sentence_transformers(self, minilm):
        library = pytest.importorskip("sentence_transformers")
        texts = ["a text", *self.BLANKS]
        theirs = library.SentenceTransformer(str(minilm), device="cpu").encode(texts)
        assert load(minilm).embed(texts) == pytest.approx(theirs, abs=1e-5)


class TestRefusedTexts:
    @pytest.mark.parametrize(
        ("texts", "said"),
        [
            (["fine", 5], r"texts\[1\] must be a string or a pair of strings, not an int"),
            (["fine", None], r"texts\[1\] .* not None"),
            (["fine", ("a", "b", "c")], r"texts\[1\] has 3 parts"),
            (["fine", ("a", 3)], r"texts\[1\]\[1\] must be a string"),
            (["fine", "half \ud83d"], r"texts\[1\] is not valid Unicode: character 5"),
            (b"bytes", "not a bytes"),
            ({"text": "a"}, "not a dict"),
            (None, "not None"),
            (7, "not an int"),
        ],
    )
    def test_by_kind(self, texts, said):
        with pytest.raises(InputError, match=said):
            as_texts(texts)

    def test_a_tokenizer_without_special_tokens_leaves_nothing_of_a_blank_text(self):
        backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = TextTokenizer(backend, max_length=8)
        assert tokenizer.encode(as_texts("a a"))[0].ids.tolist() == [0, 0]
        with pytest.raises(InputError, match=r"texts\[1\] is empty"):
            tokenizer.encode(as_texts(["a", " "]))

    def test_pair_for_a_model_without_types(self, minilm):
        with pytest.raises(InputError, match="takes single texts"):
            tokenizer_of(minilm, type_vocab_size=1).encode(as_texts([("a", "b")]))

    def test_what_is_a_single_text(self):
        assert as_texts("one").single
        assert as_texts(("a premise", "a hypothesis")).items == [("a premise", "a hypothesis")]
        assert as_texts(("a premise", "a hypothesis")).single
        assert not as_texts(["one"]).single
        assert as_texts([["a", "b"]]).items == [("a", "b")]
        assert as_texts(text for text in ("a", "b")).items == ["a", "b"]
        assert as_texts(np.array(["a", "b"])).items == ["a", "b"]
        assert as_texts([]).items == []


class TestDamagedFolders:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_no_tokenizer_at_all(self, tmp_path, family):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        assert read_tokenizer(tmp_path) is None

    def test_texts_out_of_order(self):
        backend = Tokenizer(models.WordLevel({"[SEP]": 0, "a": 1}, "[SEP]"))
        backend.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", pair="$B [SEP] $A", special_tokens=[("[SEP]", 0)]
        )
        with pytest.raises(CheckpointError, match="changes the order of two texts"):
            TextTokenizer(backend, max_length=9)

    def test_none(self, tmp_path):
        assert read_tokenizer(tmp_path) is None

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"model": {"type": "Nothing"}}'])
    def test_tokenizer_json(self, tmp_path, damage):
        (tmp_path / "tokenizer.json").write_text(damage)
        with pytest.raises(
            CheckpointError, match=r"the tokenizer .*tokenizer\.json cannot be read"
        ):
            read_tokenizer(tmp_path)

    def test_config_that_is_not_json(self, tmp_path):
        write_vocabulary_folder(tmp_path, vocabulary())
        (tmp_path / "tokenizer_config.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not valid JSON"):
            read_tokenizer(tmp_path)

    def test_config_that_is_a_list(self, tmp_path):
        write_vocabulary_folder(tmp_path, vocabulary())
        (tmp_path / "tokenizer_config.json").write_text("[]")
        with pytest.raises(CheckpointError, match="JSON object"):
            read_tokenizer(tmp_path)

    def test_vocabulary_that_is_not_text(self, tmp_path):
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(CheckpointError, match="UTF-8"):
            read_tokenizer(tmp_path)

    def test_vocabulary_without_special_tokens(self, tmp_path):
        write_vocabulary_folder(tmp_path, ["[UNK]", "[PAD]", "word"])
        with pytest.raises(CheckpointError, match=r"lacks the token \[CLS\]"):
            read_tokenizer(tmp_path)

    def test_settings_of_the_wrong_type(self, tmp_path):
        write_vocabulary_folder(tmp_path, vocabulary(), do_lower_case="yes")
        with pytest.raises(CheckpointError, match="do_lower_case"):
            read_tokenizer(tmp_path)
