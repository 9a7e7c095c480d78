"""Named entities: CoNLL files and tables of words, labels by name and number, word to token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsebert.errors import DataError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import find_task, own_task
from sparsebert.tasks.table import Kind
from sparsebert.tasks.word_tokens import UNLABELLED, first_tokens, tokenize_words
from tiny_models import TinyBert
from tiny_tasks import write_rows

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
ROWS = [
    {"tokens": ["EU", "rejects", "German"], "ner_tags": ["B-ORG", "O", "B-MISC"]},
    {"tokens": ["Peter", "Blackburn"], "ner_tags": ["B-PER", "I-PER"]},
]
NAMES = ("O", "B-MISC", "B-ORG", "B-PER", "I-PER")


def read(path: Path, **options: Any) -> Any:
    task = find_task("ner", path, options=DataOptions(**options))
    return load_split(task, path, "train")


def as_names(examples: Any) -> list[list[str]]:
    return [[examples.task.labels[label] for label in row.labels] for row in examples.words]


class TestFiles:
    @pytest.mark.parametrize("name", ["train.conll", "train.txt", "train.bio", "train.tsv"])
    def test_conll_files(self, tmp_path: Path, name: str) -> None:
        text = CONLL.replace(" ", "\t") if name.endswith("tsv") else CONLL
        (tmp_path / name).write_text(text.replace("\n", "\r\n" if name.endswith("txt") else "\n"))
        examples = read(tmp_path)
        assert examples.task.kind is Kind.TOKENS
        assert examples.task.labels == NAMES
        assert examples.texts == ["EU rejects German", "Peter Blackburn"]
        assert as_names(examples) == [row["ner_tags"] for row in ROWS]
        for text, words in zip(examples.texts, examples.words, strict=True):
            assert [text[start:end] for start, end in words.spans] == text.split()

    def test_comments_and_words_that_look_like_one(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text("# id 7 domain=en\n# O\n1 B-RANK\n\n\n# id 8 x\nx O\n")
        assert read(tmp_path).texts == ["# 1", "x"]

    def test_a_tab_in_a_comment_separates_no_columns(self, tmp_path: Path) -> None:
        """MultiCoNER has one before each sentence."""
        text = "# id 5239\tdomain=en\nEU _ _ B-ORG\nrejects _ _ O\n\n# id 1\tdomain=en\n#1 _ _ O\n"
        (tmp_path / "train.conll").write_text(text)
        assert read(tmp_path).texts == ["EU rejects", "#1"]

    def test_documents_and_no_break_spaces(self, tmp_path: Path) -> None:
        text = "EU B-ORG\n-DOCSTART- O\n1\u00a0000  B-SUM\n\u00a0 O\n"
        (tmp_path / "train.txt").write_text(text, encoding="utf-8")
        assert read(tmp_path).texts == ["EU", "1\u00a0000 \u00a0"]

    @pytest.mark.parametrize("columns", [("tokens", "ner_tags"), ("words", "tags")])
    def test_tables_of_lists(self, tmp_path: Path, columns: tuple[str, str]) -> None:
        rows = [dict(zip(columns, row.values(), strict=True)) for row in ROWS]
        examples = read(write_rows(tmp_path / "train.jsonl", rows))
        assert (examples.texts[0], as_names(examples)[1]) == (
            "EU rejects German",
            ["B-PER", "I-PER"],
        )

    def test_numbers_mean_what_the_schema_or_the_user_says(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = [[NAMES.index(tag) for tag in row["ner_tags"]] for row in ROWS]
        table = pa.table({"tokens": [row["tokens"] for row in ROWS], "ner_tags": numbers})
        pq.write_table(table, tmp_path / "train.parquet")
        with pytest.raises(DataError, match="numbers: name them with --label-names"):
            read(tmp_path)
        examples = read(tmp_path, label_names=",".join(NAMES))
        assert as_names(examples) == [row["ner_tags"] for row in ROWS]
        feature = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "List"}
        about = json.dumps({"info": {"features": {"ner_tags": feature}}})
        pq.write_table(
            table.replace_schema_metadata({"huggingface": about}), tmp_path / "train.parquet"
        )
        assert read(tmp_path).task.labels == NAMES
        # A trained model's labels stand in another order: numbers are those of the file still.
        task = own_task("ner", tmp_path, labels=NAMES[::-1])
        assert as_names(load_split(task, tmp_path, "train")) == [row["ner_tags"] for row in ROWS]

    def test_numbers_for_a_models_names_are_told(self, tmp_path: Path) -> None:
        rows = [{"tokens": ["a", "b"], "ner_tags": [0, 2]}]
        path = write_rows(tmp_path / "train.jsonl", rows)

        def of(*labels: str, **options: Any) -> Any:
            task = own_task("ner", path, labels=labels, options=DataOptions(**options))
            return load_split(task, path, "train")

        found = of("O", "B-PER", "B-LOC")
        assert as_names(found) == [["O", "B-LOC"]]
        assert "(0 O, 1 B-PER, 2 B-LOC); if they mean others, name them" in found.notes[0]
        found = of("O", "B-PER", "B-LOC", label_names="O,B-LOC,B-PER")
        assert (as_names(found), found.notes) == ([["O", "B-PER"]], ())
        assert of("LABEL_0", "LABEL_1", "LABEL_2").notes == ()
        write_rows(path, [{"tokens": ["a", "b"], "ner_tags": ["LABEL_0", "LABEL_1"]}])
        assert as_names(of("LABEL_0", "LABEL_1")) == [["LABEL_0", "LABEL_1"]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a O\nb\nc O\n", "line 2: it has 1 column and the other lines have 2"),
            ("a\tO\nb\t\n", "line 2: 'b' has no tag"),
            ("a\nb\n", "has only one column"),
            ("#\tn-tv.de\t[2009]\n1\tDas\tO\tO\n2\tRom\tB-LOC\tO\n", "counts the words: remove it"),
            ("1-2 zum O\n1 zu O\n2 dem B-X\n", "counts the words: remove it"),
            ("a O\nb O\n", "every word has the label 'O'"),
            ("", "has no rows"),
        ],
    )
    def test_what_is_no_conll_file(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "train.conll").write_text(text)
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "row 3 has 2 words and 1 labels"),
            ({"tokens": ["a"], "ner_tags": [None]}, "is not a list of labels"),
            ({"tokens": None, "ner_tags": ["O"]}, "row 3 has no value"),
        ],
    )
    def test_rows_that_do_not_fit(self, tmp_path: Path, row: Any, message: str) -> None:
        path = write_rows(tmp_path / "train.jsonl", [*ROWS, row])
        with pytest.raises(DataError, match=message):
            read(path)

    def test_a_label_that_the_model_has_not(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "validation.jsonl", ROWS)
        task = own_task("ner", path, split="validation", labels=("O", "B-ORG"))
        with pytest.raises(DataError, match="row 1: 'B-MISC' is not one of the labels"):
            load_split(task, path, "validation")

    def test_options_of_other_tasks(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "train.jsonl", ROWS)
        with pytest.raises(DataError, match="regression does not apply to the task ner"):
            find_task("ner", path, options=DataOptions(regression=True))
        with pytest.raises(DataError, match="label_names is for"):
            find_task("sst2", None, options=DataOptions(label_names="a,b"))
        with pytest.raises(DataError, match="distinct names separated by commas"):
            DataOptions(label_names="a,,b")


class TestAlignment:
    def test_first_tokens_by_hand(self) -> None:
        # "ab  c d": tokens a, b, a blank alone, " c" with its blank, and none for d.
        spans = np.array([[0, 2], [4, 5], [6, 7]])
        offsets = np.array([[0, 0], [0, 1], [1, 2], [2, 3], [3, 5], [0, 0]])
        assert first_tokens(spans, offsets).tolist() == [1, 4, -1]
        assert first_tokens(spans, offsets[:2]).tolist() == [1, -1, -1]
        assert first_tokens(np.zeros((0, 2), int), offsets).tolist() == []

    @pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "mpnet"])
    def test_as_transformers_aligns_words(
        self, tiny_bert: TinyBert, tmp_path: Path, family: str
    ) -> None:
        """A word's first token is the one that transformers' word_ids name."""
        from sparsebert.tasks.tokens import load_tokenizer

        folder = tiny_bert(model_type=family)
        words = [["walked", "U.S.", "x-ray", "", "\u200b", "won't", "zzz"], [], ["one"] * 90]
        tags = [["B-A", "I-A", "O", "O", "O", "B-A", "O"], [], ["O"] * 90]
        rows = [{"tokens": a, "ner_tags": b} for a, b in zip(words, tags, strict=True)]
        examples = read(write_rows(tmp_path / "train.jsonl", rows))
        tokenizer = load_tokenizer(folder)
        found = tokenize_words(tokenizer, examples, 40)
        flat = [word for row in words for word in row]
        pieces = tokenizer.convert_ids_to_tokens(found.rows.ids.tolist())
        for word, place in zip(flat, found.first.tolist(), strict=True):
            if place >= 0 and word.isascii():
                piece = pieces[place].lstrip("#Ġ▁").lower()
                assert word.lower().startswith(piece) or piece == "[unk]" or piece == "<unk>", word
        assert (found.first[:3] > 0).all()
        assert found.first[3] == -1
        assert (np.diff(found.first[found.first >= 0]) > 0).all()
        assert 0 < found.unread < 90
        labelled = found.labels[found.labels != UNLABELLED]
        assert len(labelled) == (found.first >= 0).sum()
        assert (found.rows.lengths <= 40).all()
        if family == "bert":
            encoded = tokenizer(
                words[0],
                is_split_into_words=True,
                add_special_tokens=True,
                return_offsets_mapping=False,
            )
            ids = encoded.word_ids()
            firsts = [ids.index(word) if word in ids else -1 for word in range(len(words[0]))]
            assert encoded["input_ids"] == found.rows.row(0)[0].tolist()
            assert found.first[: len(firsts)].tolist() == firsts
