"""A corpus of unlabelled texts: what is read, once each, and the token rows it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("transformers")

import numpy as np
import torch

from sparsebert.errors import DataError
from sparsebert.tasks.division import Division
from sparsebert.tasks.tokens import TokenRows, load_tokenizer
from sparsebert.training.upstream.corpus import (
    Corpus,
    CorpusExamples,
    Masking,
    read_corpus,
    tokenize_corpus,
)
from sparsebert.training.upstream.objective import NOT_MASKED
from tiny_models import TinyBert
from tiny_tasks import write_rows

CLS, SEP, MASK = 2, 3, 4


def test_each_text_is_read_once_with_what_follows_it(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n\n  two \r\none\nthree\n", encoding="utf-8")
    rows = [{"sentence1": "four", "sentence2": "five"}, {"sentence1": "six", "sentence2": "two"}]
    write_rows(tmp_path / "task" / "train.jsonl", rows)
    write_rows(tmp_path / "task" / "validation.jsonl", [{"sentence1": "no", "sentence2": "never"}])
    corpus = read_corpus([tmp_path / "lines.txt", tmp_path / "task"])
    assert corpus.texts == ["one", "two", "three", "four", "five", "six"]
    assert corpus.next_texts == ["two", "one", None, "five", "six", "two"]


def test_rows_held_out_for_scoring_are_not_read(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "tickets.jsonl", [{"text": text} for text in ("a", "b", "c")])
    division = Division.of(data, 3, 0.2, [1])
    assert read_corpus([data], division=division).texts == ["a", "c"]
    assert read_corpus([data]).texts == ["a", "b", "c"]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_corpus_without_texts_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(DataError, match=r"empty\.txt.*text"):
        read_corpus([tmp_path / "empty.txt"])


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("na\xefve".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt"):
        read_corpus([tmp_path / "latin.txt"])
    with pytest.raises(DataError, match=r"nowhere"):
        read_corpus([tmp_path / "nowhere"])


class TestTokenRows:
    @pytest.fixture(scope="class")
    def corpus(self) -> Corpus:
        texts = [f"{'a ' * (1 + number % 3)}b" for number in range(400)]
        texts = [f"{text} {chr(97 + number % 26)}" for number, text in enumerate(texts)]
        return Corpus(texts, [*texts[1:], None])

    def test_a_long_text_makes_several_rows(self, tiny_bert: TinyBert) -> None:
        tokenizer = load_tokenizer(tiny_bert("encoder"))
        text = "a b c d e f g h i j k l m"
        rows = tokenize_corpus(Corpus([text, "x"], [None, None]), tokenizer, max_length=8)
        assert rows.lengths.tolist() == [8, 8, 3, 3]
        words = [token for row in range(3) for token in rows.row(row)[0][1:-1]]
        assert tokenizer.decode(words) == text
        for row in range(4):
            ids, type_ids = rows.row(row)
            assert (ids[0], ids[-1], type_ids.any()) == (CLS, SEP, False)

    def test_a_share_is_joined_with_what_follows(self, tiny_bert: TinyBert, corpus: Corpus) -> None:
        tokenizer = load_tokenizer(tiny_bert("encoder"))
        rows = tokenize_corpus(corpus, tokenizer, max_length=32, pairs=0.3)
        assert len(rows) == 400
        joined = [row for row in range(400) if rows.row(row)[1].any()]
        assert 90 < len(joined) < 150
        told = []
        for row in joined:
            ids, type_ids = rows.row(row)
            first, second = tokenizer.decode(ids[1:-1]).split(" [SEP] ")
            told.append((first, second))
            assert type_ids.tolist() == sorted(type_ids.tolist())
            assert ids[int(np.argmax(type_ids)) - 1] == SEP
        assert set(told) <= set(zip(corpus.texts, corpus.next_texts, strict=True))

    def test_max_rows_is_a_fixed_selection(self, tiny_bert: TinyBert, corpus: Corpus) -> None:
        tokenizer = load_tokenizer(tiny_bert("encoder"))
        some = tokenize_corpus(corpus, tokenizer, max_length=32, max_rows=30)
        again = tokenize_corpus(corpus, tokenizer, max_length=32, max_rows=30)
        assert len(some) == 30
        assert np.array_equal(some.ids, again.ids)


class TestMasking:
    MASKING = Masking(0.15, MASK, special=(0, 1, CLS, SEP, MASK), vocabulary=500)

    def test_shares_are_those_of_bert(self) -> None:
        random = np.random.default_rng(0)
        ids = np.concatenate(([CLS], np.arange(100, 20_100) % 400 + 50, [SEP])).astype(np.int32)
        seen, labels = self.MASKING.mask(ids, random)
        chosen = labels != NOT_MASKED
        assert chosen.sum() == 3000
        assert np.array_equal(labels[chosen], ids[chosen])
        assert np.array_equal(seen[~chosen], ids[~chosen])
        assert not chosen[[0, -1]].any()
        assert abs(np.mean(seen[chosen] == MASK) - 0.8) < 0.03
        assert abs(np.mean(seen[chosen] == ids[chosen]) - 0.1) < 0.03

    def test_a_short_row_has_one_masked_token_and_an_empty_one_none(self) -> None:
        random = np.random.default_rng(0)
        _, labels = self.MASKING.mask(np.array([CLS, 7, SEP], np.int32), random)
        assert labels.tolist() == [NOT_MASKED, 7, NOT_MASKED]
        seen, labels = self.MASKING.mask(np.array([CLS, SEP], np.int32), random)
        assert (seen.tolist(), labels.tolist()) == ([CLS, SEP], [NOT_MASKED] * 2)

    def test_masks_depend_on_seed_epoch_and_row_alone(self) -> None:
        ids = [[CLS, *range(10, 10 + length), SEP] for length in (40, 3, 25)]
        tokens = TokenRows.of(ids, [[0] * len(row) for row in ids])
        examples = CorpusExamples(tokens, self.MASKING, seed=3)
        both, alone = examples.batch([0, 2]), examples.batch([2])
        for name in ("input_ids", "labels"):
            assert torch.equal(both[name][1, :27], alone[name][0])
        assert (both["labels"][1, 27:] == NOT_MASKED).all()
        assert both["indices"].tolist() == [0, 2]
        examples.set_epoch(1)
        assert not torch.equal(examples.batch([2])["labels"], alone["labels"])
        examples.set_epoch(0)
        assert torch.equal(examples.batch([2])["labels"], alone["labels"])
