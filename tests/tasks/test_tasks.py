"""Task files: found, read and checked, with errors that name file, column, row and value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.csv
import pyarrow.parquet as pq

from sparsebert.errors import DataError, MissingExtraError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split, selection, validation_splits
from sparsebert.tasks.files import split_files
from sparsebert.tasks.labels import label_order, same_labels
from sparsebert.tasks.own import own_task
from sparsebert.tasks.table import CUSTOM, TASKS, Kind, get_task
from tiny_tasks import write_rows

SST2 = get_task("sst2")


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


class TestTable:
    def test_names_are_read_as_people_write_them(self) -> None:
        assert get_task("SST-2") is get_task("sst2")
        assert get_task("STS_B").name == "stsb"
        with pytest.raises(DataError, match="'imdb' is not a task; the tasks are mnli"):
            get_task("imdb")

    def test_what_the_reference_table_needs_is_there(self) -> None:
        assert set(TASKS) == {
            *("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte", "squad", "squad_v2"),
        }
        assert TASKS["mnli"].validation_splits == ("validation_matched", "validation_mismatched")
        assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")
        assert TASKS["qqp"].metrics == ("accuracy", "f1")
        assert TASKS["cola"].metrics == ("matthews",)
        assert TASKS["stsb"].metrics == ("pearson", "spearman")
        assert TASKS["squad"].metrics == ("exact_match", "f1")
        for task in TASKS.values():
            assert task.main_metric in task.metrics
            assert (len(task.labels) > 1) == (task.kind is Kind.CLASSIFICATION)


class TestFiles:
    def test_the_exact_name_wins_over_one_that_only_begins_so(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a"], label=[0])
        (tmp_path / "train_ambiguous_ids.json").write_text("[]")
        assert split_files(tmp_path, "train") == [tmp_path / "train.parquet"]

    def test_a_single_file_that_begins_so_is_taken(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train_subset.parquet", sentence=["a"], label=[0])
        assert split_files(tmp_path, "train") == [tmp_path / "train_subset.parquet"]
        assert split_files(tmp_path, "validation") == []

    def test_two_candidates_are_an_error_that_names_them(self, tmp_path: Path) -> None:
        for name in ("train_a.parquet", "train_b.parquet"):
            parquet(tmp_path / name, sentence=["a"], label=[0])
        with pytest.raises(DataError, match=r"train_a.parquet, train_b.parquet\): keep one, or"):
            split_files(tmp_path, "train")

    def test_one_name_in_two_formats_is_an_error(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a"], label=[0])
        write_rows(tmp_path / "train.jsonl", [{"sentence": "a", "label": 0}])
        with pytest.raises(DataError, match="several files for the split train"):
            split_files(tmp_path, "train")

    @pytest.mark.parametrize("hashes", [("", ""), ("-a09b74b3ef9c3b56", "-00f8e21d4cbb7a91")])
    def test_shards_are_joined_in_order_and_none_may_be_missing(
        self, tmp_path: Path, hashes: tuple[str, str]
    ) -> None:
        """As the hub names them, also as it once did: with a hash behind the number."""
        for part, text in ((1, "b"), (0, "a")):
            path = tmp_path / f"train-0000{part}-of-00002{hashes[part]}.parquet"
            parquet(path, sentence=[text], label=[part])
        examples = load_split(SST2, tmp_path, "train")
        assert examples.texts == ["a", "b"]
        assert examples.labels.tolist() == [0, 1]
        (tmp_path / f"train-00000-of-00002{hashes[0]}.parquet").unlink()
        with pytest.raises(DataError, match="only some parts of train: 1 of 2"):
            load_split(SST2, tmp_path, "train")

    def test_missing_folder_split_and_unknown_type(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist: pass a data folder or file"):
            load_split(SST2, tmp_path / "no", "train")
        with pytest.raises(DataError, match="no file for the split train: name one train.parquet"):
            load_split(SST2, tmp_path, "train")
        (tmp_path / "data.xlsx").write_text("")
        with pytest.raises(DataError, match="an unknown file type: use one of .parquet, .csv"):
            load_split(SST2, tmp_path / "data.xlsx", "train")

    @pytest.mark.parametrize("name", ["train.parquet", "train.csv", "train.jsonl"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b'"\xff{')
        with pytest.raises(DataError, match=re.escape(str(tmp_path / name)) + " cannot be read"):
            load_split(SST2, tmp_path, "train")

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
    def test_all_formats_give_the_same_examples(self, tmp_path: Path, suffix: str) -> None:
        texts, labels = ['a "quoted", text', "two\nlines", "12"], [1, 0, 1]
        path = tmp_path / f"train{suffix}"
        if suffix == ".parquet":
            parquet(path, sentence=texts, label=labels)
        elif suffix in (".csv", ".tsv"):
            separator = "," if suffix == ".csv" else "\t"
            options = pyarrow.csv.WriteOptions(delimiter=separator)
            table = pa.table({"sentence": texts, "label": labels})
            pyarrow.csv.write_csv(table, path, options)
        else:
            write_rows(path, ({"sentence": t, "label": y} for t, y in zip(texts, labels)))
        examples = load_split(SST2, tmp_path, "train")
        assert examples.texts == texts
        assert examples.labels.tolist() == labels

    def test_texts_that_look_like_numbers_stay_texts_in_csv(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("sentence,label\n007,1\n12,0\n")
        assert load_split(SST2, tmp_path, "train").texts == ["007", "12"]

    def test_dictionary_and_view_typed_text_is_read(self, tmp_path: Path) -> None:
        encoded = pa.array(["a", "b", "a"]).dictionary_encode()
        parquet(tmp_path / "train.parquet", sentence=encoded, label=[0, 1, 0])
        assert load_split(SST2, tmp_path, "train").texts == ["a", "b", "a"]


class TestChecks:
    def test_missing_columns_are_all_named(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "train.parquet", text=["a"])
        message = f"{path} lacks the columns 'sentence', 'label'; it has 'text'."
        with pytest.raises(DataError, match=re.escape(message)):
            load_split(SST2, tmp_path, "train")

    def test_no_rows(self, tmp_path: Path) -> None:
        empty = pa.array([], pa.string()), pa.array([], pa.int64())
        parquet(tmp_path / "train.parquet", sentence=empty[0], label=empty[1])
        with pytest.raises(DataError, match="has no rows"):
            load_split(SST2, tmp_path, "train")

    def test_a_null_text_is_named_by_row(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a", None], label=[0, 1])
        with pytest.raises(DataError, match=r"column 'sentence', row 2 has no value \(null\)"):
            load_split(SST2, tmp_path, "train")

    def test_text_of_another_type(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence=[3, 4], label=[0, 1])
        with pytest.raises(DataError, match="'sentence' holds int64, not text; row 1 is 3"):
            load_split(SST2, tmp_path, "train")

    @pytest.mark.parametrize("outside", [2, -7])
    def test_a_label_outside_the_set(self, tmp_path: Path, outside: int) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a", "b", "c"], label=[0, 1, outside])
        message = f"row 3: {outside} is not one of the labels (0 negative, 1 positive)."
        with pytest.raises(DataError, match=re.escape(message) + "$"):
            load_split(SST2, tmp_path, "train")

    def test_hidden_test_labels_are_told(self, tmp_path: Path) -> None:
        parquet(tmp_path / "validation.parquet", sentence=["a"], label=[-1])
        with pytest.raises(DataError, match="row 1: -1 is not.*test set whose labels are hidden"):
            load_split(SST2, tmp_path, "validation")
        columns = {"sentence1": ["a"], "sentence2": ["b"], "label": pa.array([-1.0], pa.float32())}
        parquet(tmp_path / "stsb" / "validation.parquet", **columns)
        with pytest.raises(DataError, match="-1.0 is not a number from 0 to 5.*hidden"):
            load_split(get_task("stsb"), tmp_path / "stsb", "validation")

    def test_labels_may_be_names(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a", "b"], label=["positive", "negative"])
        assert load_split(SST2, tmp_path, "train").labels.tolist() == [1, 0]
        parquet(tmp_path / "train.parquet", sentence=["a", "b"], label=["positive", "neutral"])
        with pytest.raises(DataError, match="row 2: 'neutral' is not one of the labels"):
            load_split(SST2, tmp_path, "train")

    @pytest.mark.parametrize("label", [1.5, float("nan")])
    def test_fractions_are_no_class_labels(self, tmp_path: Path, label: float) -> None:
        parquet(tmp_path / "train.parquet", sentence=["a"], label=[label])
        with pytest.raises(DataError, match="'label' holds double, which is neither"):
            load_split(SST2, tmp_path, "train")

    @pytest.mark.parametrize("label", [5.5, -0.5, float("nan"), float("inf")])
    def test_regression_labels_must_be_in_range(self, tmp_path: Path, label: float) -> None:
        columns = {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "label": [1.0, label]}
        parquet(tmp_path / "train.parquet", **columns)
        with pytest.raises(DataError, match=rf"row 2: {label} is not a number from 0 to 5"):
            load_split(get_task("stsb"), tmp_path, "train")

    def test_regression_labels_may_be_whole_numbers(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train.parquet", sentence1=["a"], sentence2=["b"], label=[4])
        labels = load_split(get_task("stsb"), tmp_path, "train").labels
        assert labels.dtype == np.float32
        assert labels.tolist() == [4.0]

    def test_a_column_twice(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("sentence,label,label\na,0,1\n")
        with pytest.raises(DataError, match="more than one column 'label'"):
            load_split(SST2, tmp_path, "train")


class TestSelection:
    def test_the_same_rows_each_time_and_in_order(self) -> None:
        first = selection(1000, 20)
        assert first is not None
        assert first.tolist() == sorted(first.tolist())
        assert len(set(first.tolist())) == 20
        assert selection(1000, 20).tolist() == first.tolist()  # type: ignore[union-attr]
        # Held for good: results are comparable only on the same rows.
        assert first[:3].tolist() == [25, 36, 52]

    def test_more_rows_asked_for_contain_the_fewer(self) -> None:
        few, many = selection(500, 50), selection(500, 200)
        assert set(few.tolist()) < set(many.tolist())  # type: ignore[union-attr]

    def test_all_or_none(self, tmp_path: Path) -> None:
        assert selection(5, None) is None
        assert selection(5, 5) is None
        with pytest.raises(DataError, match="max_rows must be at least 1, not 0"):
            selection(5, 0)

    def test_a_sorted_file_gives_both_labels(self, tmp_path: Path) -> None:
        texts, labels = [f"t{row}" for row in range(200)], [0] * 100 + [1] * 100
        parquet(tmp_path / "train.parquet", sentence=texts, label=labels, idx=list(range(200)))
        examples = load_split(SST2, tmp_path, "train", max_rows=40)
        assert len(examples) == 40
        assert 10 <= int(examples.labels.sum()) <= 30
        for text, label, name in zip(examples.texts, examples.labels, examples.ids):
            assert text == f"t{name}"
            assert label == (int(name) >= 100)


class TestCustom:
    @pytest.mark.parametrize(
        "columns", [("text",), ("sentence",), ("text1", "text2"), ("sentence1", "sentence2")]
    )
    def test_text_columns_by_any_of_their_names(
        self, tmp_path: Path, columns: tuple[str, ...]
    ) -> None:
        rows = ({**dict.fromkeys(columns, "a"), "label": name} for name in ("good", "bad"))
        write_rows(tmp_path / "train.jsonl", rows)
        task = own_task(CUSTOM, tmp_path)
        assert task.text_columns == columns
        assert (task.kind, task.labels) == (Kind.CLASSIFICATION, ("bad", "good"))
        examples = load_split(task, tmp_path, "train")
        assert (examples.pairs is not None) == (len(columns) == 2)
        assert examples.labels.tolist() == [1, 0]

    def test_whole_numbers_are_classes_in_numeric_order(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,10\nb,9\nc,-1\n")
        task = own_task(CUSTOM, tmp_path)
        assert task.labels == ("-1", "9", "10")
        assert load_split(task, tmp_path, "train").labels.tolist() == [2, 1, 0]

    def test_booleans_are_classes(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,true\nb,false\n")
        assert own_task(CUSTOM, tmp_path).labels == ("false", "true")

    def test_numbers_are_a_regression_where_the_task_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,0.5\nb,12\n")
        assert own_task(CUSTOM, tmp_path).labels == ("0.5", "12")
        task = own_task(CUSTOM, tmp_path, options=DataOptions(regression=True))
        assert (task.kind, task.labels) == (Kind.REGRESSION, ())
        assert task.metrics == ("pearson", "spearman")
        assert load_split(task, tmp_path, "train").labels.tolist() == [0.5, 12.0]

    def test_validation_labels_must_be_known_from_train(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,good\nb,bad\n")
        (tmp_path / "validation.csv").write_text("text,label\na,good\nb,ugly\n")
        task = own_task(CUSTOM, tmp_path)
        with pytest.raises(DataError, match=r"validation.csv.*row 2: 'ugly' is not one of"):
            load_split(task, tmp_path, "validation")

    def test_a_models_labels_decide_where_given(self, tmp_path: Path) -> None:
        (tmp_path / "validation.csv").write_text("text,label\na,good\n")
        task = own_task(CUSTOM, tmp_path, split="validation", labels=("bad", "good"))
        assert load_split(task, tmp_path, "validation").labels.tolist() == [1]
        (tmp_path / "validation.csv").write_text("text,label\na,1\n")
        for labels in (("bad", "good"), ("LABEL_0", "LABEL_1"), ("0", "1")):
            task = own_task(CUSTOM, tmp_path, split="validation", labels=labels)
            assert load_split(task, tmp_path, "validation").labels.tolist() == [1]
        assert own_task(CUSTOM, tmp_path, split="validation", labels=()).kind is Kind.REGRESSION

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("words,label", "no text column: name it 'text' or 'sentence'"),
            ("text,sentence,label", "more than one set of text columns"),
            ("text,target", "lacks the column 'label'"),
        ],
    )
    def test_columns_that_do_not_tell(self, tmp_path: Path, header: str, message: str) -> None:
        (tmp_path / "train.csv").write_text(f"{header}\n" + ",".join("a" * (header.count(",") + 1)))
        with pytest.raises(DataError, match=message):
            own_task(CUSTOM, tmp_path)

    def test_labels_that_make_no_task(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,x\nb,x\n")
        with pytest.raises(DataError, match="every row has the label 'x'"):
            own_task(CUSTOM, tmp_path)
        rows = "".join(f"t,{row}\n" for row in range(1001))
        (tmp_path / "train.csv").write_text("text,label\n" + rows)
        with pytest.raises(DataError, match="1001 different labels, too many"):
            own_task(CUSTOM, tmp_path)

    def test_data_is_needed(self) -> None:
        with pytest.raises(DataError, match="the task custom needs your data"):
            own_task(CUSTOM, None)


class TestSplits:
    def test_which_validation_splits_there_are(self, tmp_path: Path) -> None:
        mnli = get_task("mnli")
        assert validation_splits(mnli, None) == ("validation_matched", "validation_mismatched")
        path = parquet(tmp_path / "validation_mismatched.parquet", premise=["a"])
        assert validation_splits(mnli, tmp_path) == ("validation_mismatched",)
        assert validation_splits(mnli, path) == ("validation_mismatched",)
        other = parquet(tmp_path / "mine.parquet", premise=["a"])
        assert validation_splits(mnli, other) == ("validation_matched",)


class TestHub:
    def test_the_datasets_library_is_asked_for_the_split(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        datasets = pytest.importorskip("datasets")
        asked = []

        def load_dataset(*where: str, split: str) -> Any:
            asked.append((*where, split))
            return datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        examples = load_split(SST2, None, "validation")
        assert asked == [("nyu-mll/glue", "sst2", "validation")]
        assert examples.texts == ["a", "b"]
        assert examples.labels.tolist() == [1, 0]

    def test_a_failure_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")

        def load_dataset(*where: str, split: str) -> Any:
            raise ConnectionError("no route to host\nand more")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        message = "could not be fetched from the hub (nyu-mll/glue): no route to host. Pass the"
        with pytest.raises(DataError, match=re.escape(message)):
            load_split(SST2, None, "train")

    def test_a_missing_library_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "datasets", None)
        with pytest.raises(MissingExtraError, match=r"needs the \[train\] extra"):
            load_split(SST2, None, "train")


class TestLabels:
    def test_other_order_is_matched_by_name(self) -> None:
        mnli = get_task("mnli")
        order, note = label_order(mnli, ("CONTRADICTION", "Entailment", "neutral"))
        assert order.tolist() == [1, 2, 0]
        assert note is None
        assert same_labels(mnli, ("CONTRADICTION", "Entailment", "neutral"))

    def test_unnamed_labels_are_matched_by_position_in_silence(self) -> None:
        order, note = label_order(SST2, ("LABEL_0", "LABEL_1"))
        assert order.tolist() == [0, 1]
        assert note is None

    def test_other_names_are_matched_by_position_and_told(self) -> None:
        order, note = label_order(SST2, ("bad", "good"))
        assert order.tolist() == [0, 1]
        assert note is not None
        assert "matched by position" in note
        assert not same_labels(SST2, ("bad", "good"))

    def test_another_count_is_an_error(self) -> None:
        with pytest.raises(
            DataError, match="has 2 labels .* has 3 .*fine-tune it on the task first"
        ):
            label_order(SST2, ("a", "b", "c"))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["sst2", "stsb", "mrpc", "rte", "qnli", "qqp", "mnli", "squad"])
def test_the_real_files_are_read(shared_data: Path, name: str) -> None:
    rows = {"sst2": 872, "stsb": 1500, "mrpc": 408, "rte": 277, "qnli": 5463, "qqp": 40430}
    rows |= {"squad": 10570}
    task = get_task(name)
    found = {
        split: len(load_split(task, shared_data / name, split))
        for split in validation_splits(task, shared_data / name)
    }
    if name == "mnli":
        assert found == {"validation_matched": 9815, "validation_mismatched": 9832}
    else:
        assert found == {"validation": rows[name]}
