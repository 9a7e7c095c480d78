"""Data of embedding models: scored pairs, queries with documents, and BEIR's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from sparsebert.errors import DataError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import divide
from sparsebert.tasks.examples import load_split, selection, validation_splits
from sparsebert.tasks.own import find_task
from sparsebert.tasks.pairs import as_cosines
from sparsebert.tasks.texts import read_texts
from tiny_tasks import write_rows


class TestPairs:
    @pytest.mark.parametrize(
        "names", [("text1", "text2", "score"), ("sentence1", "sentence2", "label")]
    )
    def test_columns(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        write_rows(tmp_path / "train.jsonl", [dict(zip(names, ("a", "b", 2.5), strict=True))])
        task = find_task("pairs", tmp_path)
        assert (*task.text_columns, task.label_column) == names
        examples = load_split(task, tmp_path, "train")
        assert (examples.texts, examples.pairs, examples.labels.tolist()) == (["a"], ["b"], [2.5])

    def test_named_columns_and_what_does_not_fit(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.jsonl", [{"one": "a", "two": "b", "like": 1}])
        task = find_task("Pairs", tmp_path, options=DataOptions("one", "two", "like"))
        assert task.columns == ("one", "two", "like")
        with pytest.raises(DataError, match="pairs have two texts per row"):
            find_task("pairs", tmp_path, options=DataOptions("one", label_column="like"))
        with pytest.raises(DataError, match="no text column: name it 'text1', 'text2' or"):
            find_task("pairs", tmp_path)

    def test_scores_become_cosines(self) -> None:
        found, note = as_cosines(np.array([0, 5, 2.5], np.float32))
        assert found.tolist() == [0, 1, 0.5]
        assert note == "the scores range from 0 to 5: mapped to cosines from 0 to 1."
        cosines = np.array([-1, 0.25], np.float32)
        assert as_cosines(cosines) == (cosines, None)
        with pytest.raises(DataError, match="every pair has the score 3"):
            as_cosines(np.array([3, 3], np.float32))


class TestRetrieval:
    def test_triplets(self, tmp_path: Path) -> None:
        row = {"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "other": "x"}
        write_rows(tmp_path / "train.jsonl", [row])
        task = find_task("retrieval", tmp_path)
        assert task.columns == ("anchor", "positive", "negative_1", "negative_2")
        examples = load_split(task, tmp_path, "train")
        assert examples.negatives == [("n", "m")]
        assert examples.labels.tolist() == [1.0]

    @pytest.mark.parametrize("name", ["negatives", "hard_negative", "neg", "Negative_1"])
    def test_negatives_that_would_not_be_read(self, tmp_path: Path, name: str) -> None:
        """sentence-transformers takes them by their place, whatever they are called."""
        row = {"query": "q", "positive": "p", name: "n"}
        write_rows(tmp_path / "train.jsonl", [row])
        with pytest.raises(DataError, match=f"the column '{name}' is not read.*negative_1"):
            find_task("retrieval", tmp_path)
        found = find_task("retrieval", tmp_path, options=DataOptions("query", name))
        assert found.columns == ("query", name)

    def test_columns_of_squad_and_faults(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.jsonl", [{"question": "q", "context": "c", "title": "t"}])
        assert find_task("retrieval", tmp_path).text_columns == ("question", "context")
        write_rows(tmp_path / "train.jsonl", [{"question": "q", "context": "c", "answer": "a"}])
        with pytest.raises(DataError, match="more than one column for the document.*--pair-column"):
            find_task("retrieval", tmp_path)
        with pytest.raises(DataError, match="label_column is for tasks with labels"):
            find_task("retrieval", tmp_path, options=DataOptions(label_column="x"))

    def test_a_document_that_does_not_answer_is_refused(self, tmp_path: Path) -> None:
        rows = [{"query": "q", "document": f"d{value}", "relevance": value} for value in (2, 0)]
        write_rows(tmp_path / "train.jsonl", rows)
        with pytest.raises(DataError, match="column 'relevance', row 2: 0 is not above 0"):
            load_split(find_task("retrieval", tmp_path), tmp_path, "train")

    def test_beir(self, tmp_path: Path) -> None:
        documents = [
            {"_id": "d1", "title": "T", "text": "one"},
            {"_id": "d2", "title": "", "text": "two"},
            {"_id": "d3", "text": "three"},
        ]
        write_rows(tmp_path / "corpus.jsonl", documents)
        write_rows(tmp_path / "queries.jsonl", [{"_id": name, "text": f"{name}?"} for name in "ab"])
        (tmp_path / "qrels").mkdir()
        header = "query-id\tcorpus-id\tscore\n"
        (tmp_path / "qrels/train.tsv").write_text(f"{header}a\td1\t2\na\td2\t1\nb\td3\t0\n")
        (tmp_path / "qrels/dev.tsv").write_text(f"{header}b\td3\t1\n")
        task = find_task("retrieval", tmp_path)
        assert validation_splits(task, tmp_path) == ("validation",)
        train = load_split(task, tmp_path, "train")
        assert (train.texts, train.pairs) == (["a?", "a?"], ["T one", "two"])
        assert train.labels.tolist() == [2, 1]
        scored = load_split(task, tmp_path, "validation")
        assert (scored.texts, scored.corpus) == (["b?"], ("T one", "two", "three"))
        assert read_texts(tmp_path) == ["T one", "two", "three", "a?"]
        (tmp_path / "qrels/dev.tsv").write_text(f"{header}b\td9\t1\n")
        with pytest.raises(DataError, match="dev.tsv, row 1: corpus.jsonl has no 'd9'"):
            load_split(task, tmp_path, "validation")
        with pytest.raises(DataError, match="holds no test.tsv"):
            load_split(task, tmp_path, "test")

    def test_beir_with_an_empty_query_and_judgements_without_a_header(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "corpus.jsonl", [{"_id": name, "text": name} for name in "de"])
        texts = {"a": "", "b": "b?", "d": ""}  # d has the id of a document but not its text
        write_rows(
            tmp_path / "queries.jsonl",
            [{"_id": name, "text": text} for name, text in texts.items()],
        )
        (tmp_path / "qrels").mkdir()
        judged = "b\td\t1\nb\te\t1\n"
        (tmp_path / "qrels/dev.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
        task = find_task("retrieval", tmp_path, split="validation")
        scored = load_split(task, tmp_path, "validation")
        assert (scored.texts, scored.pairs, scored.themselves) == (["b?"] * 2, ["d", "e"], {})
        (tmp_path / "qrels/dev.tsv").write_text(judged)  # whose first line would be lost
        with pytest.raises(DataError, match="must begin with a line that names its three columns"):
            load_split(task, tmp_path, "validation")


class TestWholeQueries:
    """A query's rows stay together: a document left out would count as one that is not wanted."""

    def write(self, path: Path) -> Path:
        random = np.random.default_rng(0)
        rows = [
            {"query": f"q{query}", "document": f"d{random.integers(40)}"}
            for query in range(30)
            for _ in range(random.integers(1, 5))
        ]
        return write_rows(path, (rows[row] for row in random.permutation(len(rows))))

    @pytest.mark.parametrize("most", [1, 7, 20, 50])
    def test_of_a_selection(self, tmp_path: Path, most: int) -> None:
        file = self.write(tmp_path / "train.jsonl")
        task = find_task("retrieval", file)
        whole, some = (
            load_split(task, file, "train"),
            load_split(task, file, "train", max_rows=most),
        )
        assert 1 <= len(some) <= max(most, 4)
        kept = set(some.texts)
        assert list(zip(some.texts, some.pairs or [], strict=True)) == [
            row for row in zip(whole.texts, whole.pairs or [], strict=True) if row[0] in kept
        ]

    def test_with_a_document_each_the_rows_are_those_of_any_task(self, tmp_path: Path) -> None:
        rows = ({"query": f"q{row}", "document": f"d{row % 3}"} for row in range(60))
        file = write_rows(tmp_path / "train.jsonl", rows)
        some = load_split(find_task("retrieval", file), file, "train", max_rows=25)
        chosen = selection(60, 25)
        assert chosen is not None
        assert some.ids == [str(row) for row in chosen]

    def test_of_a_division(self, tmp_path: Path) -> None:
        file = self.write(tmp_path / "asked.jsonl")
        examples = load_split(find_task("retrieval", file), file, "train")
        train, held = divide(examples, file, 0.2).parts(examples, "validation")
        assert len(train) + len(held) == len(examples)
        assert held.texts
        assert not set(train.texts) & set(held.texts)
