"""`doctor --data`: labels, rows, lengths and answers; every fault is listed, not only the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from findings import by_kind, the_check
from sparsebert.diagnosis import Severity, diagnose
from sparsebert.errors import DataError
from tiny_tasks import (
    write_classification,
    write_conll,
    write_regression,
    write_rows,
    write_squad,
)

Rows = list[dict[str, Any]]


def sentences(count: int = 20, start: int = 0) -> Rows:
    """SST-2 rows, all different, both labels alike often."""
    return [
        {"sentence": f"the film number {row + start} is good", "label": row % 2}
        for row in range(count)
    ]


def look(folder: Path, train: Rows, validation: Rows | None = None, task: str = "sst2") -> Any:
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "validation.jsonl", validation or sentences(10, start=1000))
    return diagnose(data=folder, task=task)


class TestSoundData:
    @pytest.mark.parametrize(
        ("write", "task"),
        [
            (write_classification, "custom"),
            (write_regression, "stsb"),
            (write_squad, "squad"),
            (write_conll, "ner"),
        ],
    )
    def test_nothing_is_found(self, write: Any, task: str, tmp_path: Path, tiny_bert: Any) -> None:
        write(tmp_path)
        report = diagnose(tiny_bert(), data=tmp_path, task=task)
        # Few random letters: that a text comes twice is chance, and true.
        chance = {"duplicate-rows", "train-in-validation"}
        assert {finding.kind for finding in report.findings} <= chance
        names = {check.name for check in report.checks if check.group == "data"}
        expected = {"files", "rows of train", "rows of validation", "validation beside train"}
        expected |= {"lengths of train", "lengths of validation"}
        kind = "answers" if task == "squad" else "labels"
        expected |= {f"{kind} of train", f"{kind} of validation"}
        expected |= {
            f"windows of {split}" for split in ("train", "validation") if kind == "answers"
        }
        assert names == expected
        assert not any(check.skipped for check in report.checks if check.group == "data")

    def test_of_sentences_too(self, tmp_path: Path) -> None:
        assert by_kind(look(tmp_path, sentences())) == {}


class TestWords:
    """Labels of words: ``--task ner``."""

    def look(self, folder: Path, train: str, validation: str = "a O\nb B-A\n") -> Any:
        (folder / "train.conll").write_text(train)
        (folder / "validation.conll").write_text(validation)
        return by_kind(diagnose(data=folder, task="ner"))

    def test_rows_without_a_label_for_each_word(self, tmp_path: Path) -> None:
        rows = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-A"]}] * 2
        write_rows(tmp_path / "train.jsonl", [*rows, {"tokens": ["c"], "ner_tags": []}])
        write_rows(tmp_path / "validation.jsonl", [{"tokens": ["d"], "ner_tags": ["B-A"]}])
        found = by_kind(diagnose(data=tmp_path, task="ner"))
        assert found["word-counts"].examples == ("row 3: 1 word, 0 labels",)

    def test_labels_that_no_training_row_has(self, tmp_path: Path) -> None:
        found = self.look(tmp_path, "a O\nb B-A\n", "c B-X\nd B-A\n")
        assert found["word-labels-outside-set"].examples == ("row 1: 'B-X'",)

    def test_a_file_without_entities(self, tmp_path: Path) -> None:
        assert set(self.look(tmp_path, "a O\nb B-A\n", "c O\nd O\n")) == {"no-entities"}

    def test_entities_that_begin_nowhere(self, tmp_path: Path) -> None:
        found = self.look(tmp_path, "a I-A\nb O\nc B-A\nd I-A\ne B-B\nf I-A\n")
        assert found["headless-entities"].examples == (
            "row 1: I-A after nothing",
            "row 1: I-A after B-B",
        )
        # IOB1 has no B- but between neighbours, IO has none at all: nothing is wrong with that.
        assert self.look(tmp_path, "a I-A\nb O\nc I-B\n", "d I-A\n") == {}

    def test_names_with_and_without_prefixes(self, tmp_path: Path) -> None:
        assert "mixed-prefixes" in self.look(tmp_path, "a O\nb B-A\nc PLACE\n")
        assert self.look(tmp_path, "a O\nb E-mail\nc PLACE\n", "d PLACE\n") == {}


class TestLabels:
    def test_every_label_outside_the_set_is_listed(self, tmp_path: Path) -> None:
        rows = sentences()
        rows[3]["label"], rows[17]["label"] = 2, -1
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"labels-outside-set"}
        assert (found["labels-outside-set"].count, found["labels-outside-set"].total) == (2, 20)
        assert found["labels-outside-set"].examples == ("row 4: 2", "row 18: -1")
        assert "0 negative, 1 positive" in found["labels-outside-set"].what

    def test_missing_labels_do_not_hide_wrong_ones(self, tmp_path: Path) -> None:
        rows = sentences()
        rows[0]["label"] = rows[7]["label"] = None
        rows[9]["label"] = 5
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"missing-labels", "labels-outside-set"}
        assert found["missing-labels"].examples == ("row 1", "row 8")
        assert found["labels-outside-set"].examples == ("row 10: 5",)

    def test_hidden_labels(self, tmp_path: Path) -> None:
        hidden = [{**row, "label": -1} for row in sentences(10, start=500)]
        found = by_kind(look(tmp_path, sentences(), hidden))
        assert set(found) == {"hidden-labels"}
        assert found["hidden-labels"].where == "validation"

    def test_one_label_and_labels_that_train_lacks(self, tmp_path: Path) -> None:
        found = by_kind(look(tmp_path, [{**row, "label": 1} for row in sentences()]))
        assert set(found) == {"one-label", "unseen-labels"}
        assert found["unseen-labels"].examples == ("negative: 5 rows",)

    def test_unbalanced_labels(self, tmp_path: Path) -> None:
        rows = [{**row, "label": int(place == 0)} for place, row in enumerate(sentences(100))]
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"unbalanced-labels"}
        assert found["unbalanced-labels"].examples == ("positive: 1 of 100 (1.0 %)",)
        assert "always answering 'negative' scores 99.0 % accuracy" in (
            found["unbalanced-labels"].what
        )
        rows = [{**row, "label": int(place < 5)} for place, row in enumerate(sentences(100))]
        assert by_kind(look(tmp_path, rows)) == {}  # a tenth of half: rare, not yet hopeless

    def test_a_regressions_targets(self, tmp_path: Path) -> None:
        write_regression(tmp_path, train=40)
        rows = [
            {"sentence1": f"a {row}", "sentence2": "b", "label": float(row % 6)}
            for row in range(20)
        ]
        rows[2]["label"], rows[5]["label"] = 5.5, float("nan")
        write_rows(tmp_path / "train.jsonl", rows)
        found = by_kind(diagnose(data=tmp_path, task="stsb"))
        assert found["wrong-targets"].examples == ("row 3: 5.5", "row 6: nan")
        for label, kind in ((-1.0, "hidden-labels"), (3.0, "one-label")):
            write_rows(tmp_path / "train.jsonl", [{**row, "label": label} for row in rows])
            assert kind in by_kind(diagnose(data=tmp_path, task="stsb"))

    def test_a_column_of_another_type(self, tmp_path: Path) -> None:
        rows = [{**row, "label": [1]} for row in (*sentences(), *sentences(1))]
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"unusable-data", "duplicate-rows"}
        assert "neither integers nor class names" in found["unusable-data"].what

    def test_labels_that_may_mean_something_else(self, tmp_path: Path) -> None:
        rows = [
            {"text": f"t {row}", "label": ["tech", "billing", "Billing", "billing "][row % 4]}
            for row in range(40)
        ]
        write_rows(tmp_path / "train.jsonl", rows)
        write_rows(tmp_path / "validation.jsonl", [{**row, "text": "v"} for row in rows[:4]])
        found = by_kind(diagnose(data=tmp_path, task="custom"))
        assert found["near-equal-labels"].examples == (
            "'Billing' (10 rows), 'billing' (10 rows), 'billing ' (10 rows)",
        )
        assert found["near-equal-labels"].severity is Severity.WARNING
        (tmp_path / "train.jsonl").unlink()
        scores = "".join(f"t {row},{row / 4}\n" for row in range(8))
        (tmp_path / "train.csv").write_text("text,label\n" + scores)
        (tmp_path / "validation.jsonl").unlink()
        assert "number-labels" in by_kind(diagnose(data=tmp_path, task="custom"))
        told = diagnose(data=tmp_path, task="custom", regression=True)
        assert set(by_kind(told)) == {"split-missing"}

    def test_an_empty_label_is_a_missing_one(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,x\nb,\nc,y\nd, \n")
        found = by_kind(diagnose(data=tmp_path, task="custom"))
        assert found["missing-labels"].examples == ("row 2", "row 4")

    def test_a_custom_tasks_labels_are_those_of_its_training_rows(self, tmp_path: Path) -> None:
        write_classification(tmp_path)
        validation = [{"text": f"x {row}", "label": ["yes", "maybe"][row % 2]} for row in range(6)]
        write_rows(tmp_path / "validation.jsonl", validation)
        found = by_kind(diagnose(data=tmp_path, task="custom"))
        assert found["labels-outside-set"].examples[0] == "row 2: 'maybe'"


class TestRows:
    def test_missing_and_empty_texts(self, tmp_path: Path) -> None:
        rows = sentences()
        rows[1]["sentence"], rows[2]["sentence"], rows[3]["sentence"] = None, "", " \t"
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"missing-texts", "empty-texts"}
        assert found["missing-texts"].examples == ("row 2",)
        assert found["empty-texts"].examples == ("row 3", "row 4")

    def test_duplicates_and_contradictions(self, tmp_path: Path) -> None:
        rows = sentences()
        rows[5] = {"sentence": "The  film number 0 IS good ", "label": 0}  # as row 1
        rows[8] = {"sentence": "the film number 3 is good", "label": 0}  # row 4 says 1
        found = by_kind(look(tmp_path, rows))
        assert set(found) == {"duplicate-rows", "contradictory-labels"}
        assert (found["duplicate-rows"].count, found["duplicate-rows"].total) == (2, 20)
        assert found["duplicate-rows"].examples[0].startswith("rows 1, 6: ")
        assert found["contradictory-labels"].count == 2
        assert found["contradictory-labels"].examples[0].startswith("rows 4 (1), 9 (0): ")
        assert found["duplicate-rows"].severity is Severity.WARNING

    def test_sets_of_labels_have_no_order(self, tmp_path: Path) -> None:
        rows: Rows = [{"text": f"text {row}", "label": ["x", "y"]} for row in range(6)]
        rows.append({"text": "text 0", "label": ["y", "x"]})
        held: Rows = [{"text": "a", "label": ["x"]}]
        assert "contradictory-labels" not in by_kind(look(tmp_path, rows, held, task="custom"))
        rows.append({"text": "text 0", "label": ["y"]})
        assert "contradictory-labels" in by_kind(look(tmp_path, rows, held, task="custom"))

    def test_few_are_a_note(self, tmp_path: Path) -> None:
        rows = sentences(202)
        rows[5] = {**rows[1]}
        report = look(tmp_path, rows)
        (finding,) = report.findings
        assert (finding.kind, finding.severity) == ("duplicate-rows", Severity.NOTE)
        assert finding.remedy == "nothing: so few hardly matter."

    def test_train_rows_in_validation(self, tmp_path: Path) -> None:
        validation = sentences(10, start=500)
        validation[4] = {"sentence": "the film number 6 is good", "label": 0}
        found = by_kind(look(tmp_path, sentences(), validation))
        assert set(found) == {"train-in-validation"}
        assert found["train-in-validation"].examples[0].startswith("row 5 = train row 7: ")

    def test_pairs_are_the_same_only_as_pairs(self, tmp_path: Path) -> None:
        def pairs(start: int) -> Rows:
            return [
                {"sentence1": "one side", "sentence2": f"side {start + row}", "label": row % 2}
                for row in range(10)
            ]

        assert by_kind(look(tmp_path, pairs(0), pairs(50), task="rte")) == {}
        found = by_kind(look(tmp_path, pairs(0), pairs(8), task="rte"))
        assert set(found) == {"train-in-validation"}
        assert found["train-in-validation"].count == 2


class TestFiles:
    def test_what_cannot_be_read_is_said_and_the_rest_looked_at(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "validation.jsonl", [{"sentence": "a", "label": 9}])
        (tmp_path / "train.parquet").write_bytes(b"PAR1 no more")
        found = by_kind(diagnose(data=tmp_path, task="sst2"))
        assert {"unusable-data", "labels-outside-set"} <= set(found)
        assert "train.parquet cannot be read: Parquet" in found["unusable-data"].what

    @pytest.mark.parametrize(
        ("row", "what"),
        [
            ({"text": "a", "label": 0}, "lacks the column 'sentence'"),
            ({"sentence": 7, "label": 0}, "not text"),
        ],
    )
    def test_columns(self, tmp_path: Path, row: dict[str, Any], what: str) -> None:
        found = by_kind(look(tmp_path, [row]))
        assert set(found) == {"unusable-data"}
        assert what in found["unusable-data"].what

    def test_a_single_file_is_divided(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "reviews.jsonl", sentences())
        report = diagnose(data=file, task="sst2")
        assert report.findings == []
        assert the_check(report, "files").seen == (
            "train 20 rows, of which 4 are held out for scoring"
        )
        report = diagnose(data=write_rows(tmp_path / "one.jsonl", sentences(1)), task="sst2")
        assert "too few rows" in by_kind(report)["split-missing"].what
        report = diagnose(data=write_rows(tmp_path / "train.jsonl", sentences()), task="sst2")
        assert set(by_kind(report)) == {"split-missing"}  # all of it is for training
        report = diagnose(data=write_rows(tmp_path / "dev.jsonl", sentences()), task="sst2")
        assert report.findings == []
        assert the_check(report, "files").seen == "validation 20 rows"

    def test_faults_of_a_single_file_are_counted_in_its_rows(self, tmp_path: Path) -> None:
        rows = sentences()
        rows[17]["label"] = 7
        found = by_kind(diagnose(data=write_rows(tmp_path / "a.jsonl", rows), task="sst2"))
        assert set(found) == {"labels-outside-set"}
        assert found["labels-outside-set"].examples[0].startswith("row 18: ")

    def test_lines_within_quotes(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text('sentence,label\n"a,0\nb,1\nc",1\nd,0\n')
        found = by_kind(diagnose(data=tmp_path, task="sst2"))
        assert "(row 1) lines 2 to 4" in found["lines-in-quotes"].what

    def test_columns_of_ones_own(self, tmp_path: Path) -> None:
        rows = [{"body": f"t {row}", "queue": "xy"[row % 2]} for row in range(20)]
        write_rows(tmp_path / "tickets.jsonl", rows)
        report = diagnose(data=tmp_path, task="custom", text_column="body", label_column="queue")
        assert report.findings == []
        assert the_check(report, "files").seen.startswith("train 20 rows, of which 4 ")

    def test_a_folder_without_data(self, tmp_path: Path) -> None:
        assert set(by_kind(diagnose(data=tmp_path, task="sst2"))) == {"unusable-data"}

    def test_a_custom_file_without_a_task_in_it(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.jsonl", [{"words": "a", "label": "x"}])
        found = by_kind(diagnose(data=tmp_path, task="custom"))
        assert set(found) == {"unusable-data"}
        assert "no text column" in found["unusable-data"].what

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            diagnose(data=tmp_path / "nowhere", task="sst2")
        with pytest.raises(DataError, match="not a task"):
            diagnose(data=tmp_path, task="chess")


class TestDocuments:
    def test_wrong_negatives_and_few_documents(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = [
            {"query": f"q {row}", "document": f"d {row} {row}", "negative": f"n {row}"}
            for row in range(6)
        ]
        rows[2]["query"], rows[2]["negative"] = rows[1]["query"], rows[1]["document"]
        write_rows(tmp_path / "train.jsonl", rows)
        write_rows(tmp_path / "validation.jsonl", [{**row, "query": "v"} for row in rows[3:]])
        report = diagnose(tiny_bert("encoder"), data=tmp_path, task="retrieval", max_length=8)
        found = by_kind(report)
        assert set(found) == {"wrong-negatives", "small-corpus"}
        assert found["wrong-negatives"].examples == ("row 3: 'q 1'",)
        # Each text is read by itself, so that none is too long.
        assert "truncated-texts" not in found

    def test_scored_pairs(self, tmp_path: Path) -> None:
        rows = [{"text1": f"a {row}", "text2": "b", "score": 3.0} for row in range(4)]
        write_rows(tmp_path / "train.jsonl", rows)
        assert "one-label" in by_kind(diagnose(data=tmp_path, task="pairs"))


class TestLengths:
    def test_truncated_texts(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = sentences()
        rows[4]["sentence"] = "a " * 40
        rows[9]["sentence"] = "b " * 29  # with [CLS] and [SEP] just too long
        write_rows(tmp_path / "train.jsonl", rows)
        write_rows(tmp_path / "validation.jsonl", sentences(10, start=500))
        report = diagnose(tiny_bert(), data=tmp_path, task="sst2", max_length=30)
        found = by_kind(report)
        assert set(found) == {"truncated-texts"}
        assert found["truncated-texts"].examples == ("row 5: 42 tokens", "row 10: 31 tokens")
        assert (found["truncated-texts"].count, found["truncated-texts"].total) == (2, 20)
        assert "--max-length 40 would keep 99 % whole" in found["truncated-texts"].what
        report = diagnose(tiny_bert(), data=tmp_path, task="sst2", max_length=42)
        assert by_kind(report) == {}

    def test_pairs_count_together(self, tmp_path: Path, tiny_bert: Any) -> None:
        row = {"sentence1": "a " * 10, "sentence2": "b " * 10, "label": 0}
        write_rows(tmp_path / "train.jsonl", [row])
        for limit, cut in ((23, False), (22, True)):
            report = diagnose(tiny_bert(), data=tmp_path, task="rte", max_length=limit)
            assert ("truncated-texts" in by_kind(report)) is cut

    def test_unknown_tokens(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = sentences()
        rows[6]["sentence"] = "好 film 好 的"
        write_rows(tmp_path / "train.jsonl", rows)
        write_rows(tmp_path / "validation.jsonl", sentences(10, start=500))
        found = by_kind(diagnose(tiny_bert(), data=tmp_path, task="sst2"))
        assert set(found) == {"unknown-tokens"}
        assert found["unknown-tokens"].count == 3
        assert found["unknown-tokens"].examples[0].startswith("row 7: 3 in ")

    def test_without_a_model_it_is_skipped(self, tmp_path: Path) -> None:
        assert the_check(look(tmp_path, sentences()), "lengths").skipped


class TestAnswers:
    def look(self, folder: Path, model: Path, rows: Rows, **options: Any) -> Any:
        write_squad(folder)
        write_rows(folder / "train.jsonl", rows)
        return diagnose(model, data=folder, task="squad", **options)

    def rows(self) -> Rows:
        return [
            {
                "id": str(row),
                "question": f"which {row} ?",
                "context": f"a b {row}",
                "answers": {"text": [str(row)], "answer_start": [4]},
            }
            for row in range(6)
        ]

    def test_all_that_cannot_be_used(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = self.rows()
        rows[0]["answers"] = {"text": ["0"], "answer_start": [3]}
        rows[2]["answers"] = {"text": ["2"], "answer_start": [-1]}
        rows[3]["answers"] = {"text": [], "answer_start": []}
        rows[5]["answers"] = None
        found = by_kind(self.look(tmp_path, tiny_bert(), rows))
        assert set(found) == {"wrong-answers"}
        assert found["wrong-answers"].count == 4
        assert [example.partition(":")[0] for example in found["wrong-answers"].examples] == [
            *("row 1", "row 3", "row 4", "row 6")
        ]

    def test_double_ids(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = self.rows()
        rows[1]["id"] = rows[4]["id"] = "3"
        found = by_kind(self.look(tmp_path, tiny_bert(), rows))
        assert set(found) == {"double-ids"}
        assert found["double-ids"].count == 3

    def test_answers_that_no_window_holds(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = self.rows()
        context = " ".join("abcdefghij" * 4)
        # Windows of 24 tokens, of which neighbours share 8: an answer of 30 is in none of them.
        rows[2] |= {"context": context, "answers": {"text": [context[:59]], "answer_start": [0]}}
        report = self.look(tmp_path, tiny_bert(), rows, max_length=24)
        assert set(by_kind(report)) == {"cut-answers"}
        assert by_kind(report)["cut-answers"].examples[0].startswith("row 3: ")
        assert by_kind(self.look(tmp_path, tiny_bert(), rows, max_length=60)) == {}

    def test_a_flat_column(self, tmp_path: Path, tiny_bert: Any) -> None:
        rows = [{**row, "answers": "a"} for row in self.rows()]
        found = by_kind(self.look(tmp_path, tiny_bert(), rows))
        assert set(found) == {"unusable-data"}
        assert "must hold lists 'text' and 'answer_start'" in found["unusable-data"].what


@pytest.mark.shared
@pytest.mark.parametrize("task", ["mrpc", "rte"])
def test_real_data_is_sound(shared_data: Path, minilm: Path, task: str) -> None:
    report = diagnose(minilm, data=shared_data / task, task=task)
    assert report.healthy
    kinds = {finding.kind for finding in report.findings}
    # RTE: an eighth of the pairs is longer than 128 tokens, and two rows come twice.
    assert kinds == ({"truncated-texts", "duplicate-rows"} if task == "rte" else set())
