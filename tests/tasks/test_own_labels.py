"""Labels of a user's own data: text, one reading for every split, checked against the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

from sparsebert.errors import DataError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.labels import label_notes, label_order, near_equal, same_labels
from sparsebert.tasks.own import find_task, own_task
from sparsebert.tasks.table import CUSTOM, Kind, get_task
from tiny_tasks import write_rows

RATINGS = ("1", "2", "3", "4", "5", "unknown")


def write_csv(path: Path, labels: list[str], header: str = "text,label") -> Path:
    rows = [f"text {row},{label}" for row, label in enumerate(labels)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


class TestOneReading:
    def test_whole_numbers_in_one_split_are_the_names_that_they_are_in_another(
        self, tmp_path: Path
    ) -> None:
        write_csv(tmp_path / "train.csv", list(RATINGS))
        write_csv(tmp_path / "validation.csv", ["1", "5", "3"])
        task = own_task(CUSTOM, tmp_path)
        assert task.labels == RATINGS
        assert load_split(task, tmp_path, "validation").labels.tolist() == [0, 4, 2]

    @pytest.mark.parametrize("write", ["csv", "jsonl", "parquet"])
    def test_and_those_of_the_model(self, tmp_path: Path, write: str) -> None:
        path = tmp_path / f"validation.{write}"
        if write == "csv":
            write_csv(path, ["1", "5", "3"])
        elif write == "jsonl":
            write_rows(path, ({"text": "a", "label": label} for label in (1, 5, 3)))
        else:
            pq.write_table(pa.table({"text": ["a"] * 3, "label": [1, 5, 3]}), path)
        task = own_task(CUSTOM, tmp_path, split="validation", labels=RATINGS)
        found = load_split(task, tmp_path, "validation")
        assert found.labels.tolist() == [0, 4, 2]
        assert found.notes == ()

    def test_positions_of_a_models_named_classes_are_told(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "validation.csv", ["1", "0"])
        task = own_task(CUSTOM, tmp_path, split="validation", labels=("bad", "good"))
        found = load_split(task, tmp_path, "validation")
        assert found.labels.tolist() == [1, 0]
        assert "taken as indices of its classes (0 bad, 1 good)" in found.notes[0]

    def test_positions_are_not_mixed_with_names(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "validation.csv", ["good", "1"])
        task = own_task(CUSTOM, tmp_path, split="validation", labels=("bad", "good"))
        with pytest.raises(DataError, match="row 2: 1 is not one of the labels"):
            load_split(task, tmp_path, "validation")

    def test_in_ones_own_splits_numbers_do_not_stand_for_names(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "train.csv", ["good", "bad"])
        write_csv(tmp_path / "validation.csv", ["1", "0"])
        task = own_task(CUSTOM, tmp_path)
        with pytest.raises(DataError, match=r"row 1: 1 is not one of the labels \(bad, good\)"):
            load_split(task, tmp_path, "validation")

    def test_a_benchmarks_numbers_are_positions_in_any_format(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "train.csv", ["1", "0"], "sentence,label")
        write_csv(tmp_path / "dev.csv", ["positive", "negative"], "sentence,label")
        for split in ("train", "validation"):
            assert load_split(get_task("sst2"), tmp_path, split).labels.tolist() == [1, 0]

    @pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("LABEL_1", "LABEL_2")])
    def test_default_names_may_be_in_the_data(
        self, tmp_path: Path, labels: tuple[str, ...]
    ) -> None:
        write_csv(tmp_path / "train.csv", list(labels))
        task = own_task(CUSTOM, tmp_path, labels=labels)
        assert load_split(task, tmp_path, "train").labels.tolist() == [0, 1]
        write_csv(tmp_path / "train.csv", ["1", "0"])
        task = own_task(CUSTOM, tmp_path, labels=labels)
        assert (task.labels, load_split(task, tmp_path, "train").notes) == (("0", "1"), ())


class TestSchema:
    """Names that the ``datasets`` library stored for a column of integers."""

    @staticmethod
    def write(path: Path, names: list[str]) -> Path:
        feature = {"names": names, "_type": "ClassLabel"}
        about = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
        table = pa.table({"text": ["good", "bad"], "label": [0, 1]})
        pq.write_table(table.replace_schema_metadata(about), path)
        return path

    @pytest.mark.parametrize(
        "labels",
        [
            None,
            ("negative", "positive"),
            ("positive", "neutral", "negative"),
            ("LABEL_0", "LABEL_1"),
        ],
    )
    def test_numbers_mean_what_it_says(
        self, tmp_path: Path, labels: tuple[str, ...] | None
    ) -> None:
        file = self.write(tmp_path / "data.parquet", ["positive", "negative"])
        task = own_task(CUSTOM, file, labels=labels)
        found = load_split(task, file, "train")
        assert [task.labels[label] for label in found.labels] == ["positive", "negative"]
        assert found.notes == ()

    def test_other_words_are_matched_by_position_with_a_note(self, tmp_path: Path) -> None:
        file = self.write(tmp_path / "data.parquet", ["neg", "pos"])
        found = load_split(own_task(CUSTOM, file, labels=("NEGATIVE", "POSITIVE")), file, "train")
        assert found.labels.tolist() == [0, 1]
        assert "(0 NEGATIVE, 1 POSITIVE)" in found.notes[0]
        numbers = own_task(CUSTOM, file, labels=("0", "1"))
        assert load_split(numbers, file, "train").labels.tolist() == [0, 1]

    def test_names_that_partly_agree_are_refused(self, tmp_path: Path) -> None:
        file = self.write(tmp_path / "data.parquet", ["pos", "negative"])
        with pytest.raises(DataError, match="the labels pos are not among the model's"):
            own_task(CUSTOM, file, labels=("negative", "positive"))

    def test_names_that_are_numbers_are_left_out(self, tmp_path: Path) -> None:
        file = self.write(tmp_path / "data.parquet", ["1", "2"])
        task = own_task(CUSTOM, file)
        assert (task.labels, load_split(task, file, "train").labels.tolist()) == (
            ("0", "1"),
            [0, 1],
        )


class TestText:
    def test_labels_that_look_like_numbers_stay_as_they_are_written(self, tmp_path: Path) -> None:
        written = ["01", "1", "007", "7", "0x10", "1.10", "1.9", "-1"]
        write_csv(tmp_path / "train.csv", written)
        task = own_task(CUSTOM, tmp_path)
        assert (task.kind, task.labels) == (Kind.CLASSIFICATION, tuple(sorted(written)))
        found = load_split(task, tmp_path, "train")
        assert [task.labels[place] for place in found.labels] == written

    def test_lists_in_a_csv_are_no_names_of_classes(self, tmp_path: Path) -> None:
        """pandas writes a column of lists so: each combination would be a class of its own."""
        for write in (repr, json.dumps):
            labels = [write(each).replace('"', '""') for each in (["red", "blue"], [], ["green"])]
            write_csv(tmp_path / "train.csv", [f'"{label}"' for label in labels])
            with pytest.raises(DataError, match="lists written as text, such as .*red.*blue"):
                own_task(CUSTOM, tmp_path)
        write_csv(tmp_path / "train.csv", ["[spam]", '"[ham, eggs]"', "[1]"])
        assert len(own_task(CUSTOM, tmp_path).labels) == 3

    @pytest.mark.parametrize("empty", ["", "  "])
    def test_an_empty_label_is_none(self, tmp_path: Path, empty: str) -> None:
        write_csv(tmp_path / "train.csv", ["a", empty, "b"])
        with pytest.raises(DataError, match=r"column 'label', row 2 has no label \(it is empty\)"):
            own_task(CUSTOM, tmp_path)

    def test_typed_fractions_ask_what_they_are(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.jsonl", ({"text": "a", "label": label} for label in (0.0, 1)))
        with pytest.raises(DataError, match=r"decimal point.*--regression \(regression=True\)"):
            own_task(CUSTOM, tmp_path)
        task = own_task(CUSTOM, tmp_path, options=DataOptions(regression=True))
        assert load_split(task, tmp_path, "train").labels.tolist() == [0.0, 1.0]

    @pytest.mark.parametrize("label", ["five", "1_000", "nan", ""])
    def test_a_regressions_labels_are_numbers(self, tmp_path: Path, label: str) -> None:
        write_csv(tmp_path / "train.csv", ["1.5", label])
        task = own_task(CUSTOM, tmp_path, options=DataOptions(regression=True))
        with pytest.raises(DataError, match=r"column 'label', row 2: .* not a (finite )?number"):
            load_split(task, tmp_path, "train")

    def test_a_column_score_holds_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("sentence1,sentence2,score\na,b,3\nc,d,4.5\n")
        task = own_task(CUSTOM, tmp_path)
        assert (task.kind, task.label_column) == (Kind.REGRESSION, "score")
        assert load_split(task, tmp_path, "train").labels.tolist() == [3.0, 4.5]


class TestOptions:
    def test_columns_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("subject,body,queue\na,b,x\nc,d,y\n")
        options = DataOptions("subject", "body", "queue")
        task = own_task(CUSTOM, tmp_path, options=options)
        found = load_split(task, tmp_path, "train")
        assert (found.texts, found.pairs) == (["a", "c"], ["b", "d"])
        assert task.labels == ("x", "y")
        known = find_task("rte", None, options=DataOptions("subject", "body", "queue"))
        assert known.columns == ("subject", "body", "queue")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pair_column": "b"}, "pass text_column as well"),
            ({"regression": True, "positive_label": "x"}, "a regression has no classes"),
            ({"validation_share": 1.0}, "at least 0 and below 1"),
        ],
    )
    def test_what_does_not_go_together(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            DataOptions(**options)

    def test_what_a_benchmark_says_itself(self) -> None:
        with pytest.raises(DataError, match="regression is for the task custom"):
            find_task("sst2", None, options=DataOptions(regression=True))
        with pytest.raises(
            DataError, match="reads two texts per row, but one text column was named"
        ):
            find_task("rte", None, options=DataOptions(text_column="a"))

    def test_a_positive_label_is_no_number(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "train.csv", ["1", "2"], "text,score")
        with pytest.raises(DataError, match="'1' is a class, and this task is a regression"):
            own_task(CUSTOM, tmp_path, options=DataOptions(positive_label="1"))

    def test_refusals_name_the_option(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("words,kind\na,x\n")
        with pytest.raises(DataError, match=r"--text-column \(text_column=\)"):
            own_task(CUSTOM, tmp_path)
        with pytest.raises(DataError, match=r"--label-column \(label_column=\)"):
            own_task(CUSTOM, tmp_path, options=DataOptions("words"))
        with pytest.raises(DataError, match="--text-column, --pair-column and --label-column"):
            load_split(get_task("sst2"), tmp_path, "train")

    def test_the_positive_label(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "train.csv", ["legit", "fraud"])
        assert own_task(CUSTOM, tmp_path).positive is None
        assert own_task(CUSTOM, tmp_path, options=DataOptions(positive_label="fraud")).positive
        with pytest.raises(DataError, match=r"'scam' is not one of the labels \(fraud, legit\)"):
            own_task(CUSTOM, tmp_path, options=DataOptions(positive_label="scam"))
        for pair in (["0", "1"], ["true", "false"], ["True", "False"]):  # pandas writes the last
            write_csv(tmp_path / "train.csv", pair)
            assert own_task(CUSTOM, tmp_path).positive in ("1", "true", "True")


class TestNames:
    def test_near_equal_labels(self) -> None:
        labels = ("Billing", "billing", "billing ", "tech", "007", "7", "\uff17", "nan", "NaN")
        assert near_equal(labels) == [
            ("Billing", "billing", "billing "),
            ("007", "7", "\uff17"),
            ("nan", "NaN"),
        ]

    def test_what_finetune_says_of_them(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "train.csv", ["Billing", "billing", "tech"])
        (note,) = label_notes(own_task(CUSTOM, tmp_path))
        assert note.startswith("the labels 'Billing', 'billing' are 2 separate classes")
        write_csv(tmp_path / "train.csv", ["0.5", "1.5"])
        (note,) = label_notes(own_task(CUSTOM, tmp_path))
        assert "pass --regression (regression=True)" in note
        write_csv(tmp_path / "train.csv", ["0", "1", "2"])
        assert label_notes(own_task(CUSTOM, tmp_path)) == []

    @pytest.mark.parametrize("labels", [("-1", "0"), ("-0.5", "0"), ("1-", "0"), ("-", "0")])
    def test_a_sign_is_part_of_a_name(self, tmp_path: Path, labels: tuple[str, ...]) -> None:
        write_csv(tmp_path / "train.csv", list(labels))
        task = own_task(CUSTOM, tmp_path)
        for model in (("0", labels[0].strip("-")), (labels[0].replace("-", "_"), "0")):
            assert not same_labels(task, model)
        write_csv(tmp_path / "train.csv", ["Not-spam", "3_stars", " 4  stars"])
        assert same_labels(own_task(CUSTOM, tmp_path), ("not spam", "3 STARS", "4-stars"))

    def test_names_that_agree_must_stand_in_the_same_position(self) -> None:
        mnli = get_task("mnli")
        with pytest.raises(DataError, match=r"'contradiction' is at another position.*id2label"):
            label_order(mnli, ("contradiction", "maybe", "yes"))
        order, note = label_order(mnli, ("yes", "maybe", "contradiction"))
        assert order.tolist() == [0, 1, 2]
        assert note is not None


class TestSplitNames:
    @pytest.mark.parametrize(
        "name", ["validation.csv", "dev.csv", "valid.csv", "val.csv", "Dev.csv", "val_small.csv"]
    )
    def test_of_validation(self, tmp_path: Path, name: str) -> None:
        write_csv(tmp_path / name, ["1", "0"], "sentence,label")
        write_csv(tmp_path / "values.csv", ["1"], "sentence,label")
        assert len(load_split(get_task("sst2"), tmp_path, "validation")) == 2

    def test_of_mnli(self, tmp_path: Path) -> None:
        for half in ("matched", "mismatched"):
            write_csv(tmp_path / f"dev_{half}.csv", ["a,0"], "premise,hypothesis,label")
            assert len(load_split(get_task("mnli"), tmp_path, f"validation_{half}")) == 1

    def test_two_of_them_are_one_too_many(self, tmp_path: Path) -> None:
        for name in ("dev.csv", "validation.csv"):
            write_csv(tmp_path / name, ["1"], "sentence,label")
        with pytest.raises(DataError, match=r"several files .*\(dev.csv, validation.csv\)"):
            load_split(get_task("sst2"), tmp_path, "validation")

    def test_what_there_is_instead_is_said(self, tmp_path: Path) -> None:
        for name in ("one.csv", "two.csv"):
            write_csv(tmp_path / name, ["1"], "sentence,label")
        with pytest.raises(DataError, match=r"its tables are one.csv, two.csv"):
            load_split(get_task("sst2"), tmp_path, "train")
