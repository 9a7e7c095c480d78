"""Data in one file: which rows are held out, where that is written, and who reads it again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from sparsebert.errors import CheckpointError, DataError
from sparsebert.tasks.division import SPLIT_NAME, Division, divide, read_division
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.files import undivided_file
from sparsebert.tasks.own import own_task
from sparsebert.tasks.table import CUSTOM, get_task
from tiny_tasks import write_contexts, write_rows

QUEUES = ("billing", "sales", "tech")


def write_tickets(path: Path, count: int = 100) -> Path:
    """Tickets whose queue is a word in them; every tenth goes to sales, half of the rest each."""
    rows = []
    for row in range(count):
        queue = QUEUES[1] if row % 10 == 0 else QUEUES[2 * (row % 2)]
        rows.append({"text": f"{queue[0]} {'abcdefghij'[row % 7]} {row}", "label": queue})
    return write_rows(path, rows)


def divided(path: Path, share: float = 0.2) -> Division:
    return divide(load_split(own_task(CUSTOM, path), path, "train"), path, share)


class TestChoice:
    def test_each_class_has_its_share_on_both_sides(self, tmp_path: Path) -> None:
        file = write_tickets(tmp_path / "tickets.jsonl")
        division = divided(file)
        whole = load_split(own_task(CUSTOM, file), file, "train")
        train, held = division.parts(whole, "validation")
        assert (len(train), len(held), held.split) == (80, 20, "validation")
        assert sorted(train.texts + held.texts) == sorted(whole.texts)
        counts = Counter(QUEUES[label] for label in held.labels)
        assert counts == {"billing": 8, "sales": 2, "tech": 10}

    def test_the_same_rows_every_time(self, tmp_path: Path) -> None:
        file = write_tickets(tmp_path / "tickets.jsonl", 30)
        assert divided(file) == divided(file)
        # Held for good: what a model has not seen must not change with a version of this package.
        assert divided(file).validation == (1, 5, 7, 14, 16, 30)

    def test_equal_texts_stay_together(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{row % 25}", "label": "ab"[row % 25 % 2]} for row in range(100)]
        file = write_rows(tmp_path / "tickets.jsonl", rows)
        train, held = divided(file).parts(load_split(own_task(CUSTOM, file), file, "train"), "v")
        assert not set(train.texts) & set(held.texts)
        assert len(held) == 20

    def test_questions_about_a_context_stay_together(self, tmp_path: Path) -> None:
        file = write_contexts(tmp_path / "squad.jsonl")
        whole = load_split(get_task("squad"), file, "train")
        train, held = divide(whole, file, 0.2).parts(whole, "validation")
        assert (len(train), len(held)) == (60, 15)
        assert not {*(train.pairs or ())} & {*(held.pairs or ())}

    def test_a_class_of_one_row_trains(self, tmp_path: Path) -> None:
        rows = [{"text": str(row), "label": "rare" if row == 3 else "often"} for row in range(8)]
        file = write_rows(tmp_path / "tickets.jsonl", rows)
        assert 4 not in divided(file).validation

    def test_too_few_rows(self, tmp_path: Path) -> None:
        rows = [{"text": label, "label": label} for label in "ab"]
        file = write_rows(tmp_path / "tickets.jsonl", rows)
        with pytest.raises(DataError, match=r"--validation-share 0 \(validation_share=0\)"):
            divided(file)


class TestFiles:
    def test_which_data_is_in_one_piece(self, tmp_path: Path) -> None:
        file = write_tickets(tmp_path / "tickets.jsonl")
        assert undivided_file(file) == undivided_file(tmp_path) == file
        assert undivided_file(None) is None
        for name in ("testimonials", "trainers", "validated", "developers", "trainset"):
            other = shutil.copyfile(file, tmp_path / f"{name}.jsonl")
            assert undivided_file(other) == other
            other.unlink()
        for name in ("train", "training_tickets", "train2", "dev", "validation_matched", "test"):
            named = tmp_path / "named" / f"{name}.jsonl"
            named.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, named)
            assert undivided_file(named) is None
        write_tickets(tmp_path / "more.jsonl")
        assert undivided_file(tmp_path) is None

    def test_the_record(self, tmp_path: Path) -> None:
        file = write_tickets(tmp_path / "tickets.jsonl")
        assert read_division(tmp_path) is None
        division = divided(file)
        division.write(tmp_path)
        assert read_division(tmp_path) == division
        assert division.is_of(shutil.copyfile(file, tmp_path / "renamed.jsonl"))
        record = json.loads((tmp_path / SPLIT_NAME).read_text())
        assert (record["file"], record["rows"], record["share"]) == ("tickets.jsonl", 100, 0.2)
        for damage in ({"validation": [0]}, {"validation": ["x"]}, {"more": 1}):
            (tmp_path / SPLIT_NAME).write_text(json.dumps({**record, **damage}))
            with pytest.raises(CheckpointError, match=r"split.json is damaged"):
                read_division(tmp_path)


class TestTheWayThrough:
    @pytest.fixture(scope="class")
    def tickets(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_tickets(tmp_path_factory.mktemp("tickets") / "tickets.jsonl")

    @pytest.fixture(scope="class")
    def trained(
        self, sparse: Path, tickets: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Path:
        pytest.importorskip("torch")
        from sparsebert.training import finetune

        out = tmp_path_factory.mktemp("trained") / "out"
        result = finetune(
            sparse, out, task="custom", data=tickets, epochs=1, positive_label="sales"
        )
        assert result.rows == 80
        assert set(result.by_class["validation"]) <= set(QUEUES)
        assert sum(each["rows"] for each in result.by_class["validation"].values()) == 20
        assert any("20 of its 100 rows were held out" in note for note in result.notes)
        assert "F1 is that of the class 'sales'." in result.notes
        return out

    def test_evaluate_scores_the_rows_that_were_held_out(
        self, trained: Path, tickets: Path, tmp_path: Path
    ) -> None:
        from sparsebert.evaluation import evaluate

        training = json.loads((trained / "training.json").read_text())
        found = evaluate(trained, task="custom", data=tickets)
        assert found.rows == {"validation": 20}
        assert found.scores["validation"] == pytest.approx(training["scores"]["validation"])
        assert any("20 rows held out of its training" in note for note in found.notes)
        assert "F1 is that of the class 'sales'." in found.notes  # as the training had it
        assert evaluate(trained, task="custom", data=tickets.parent).rows == {"validation": 20}
        seen = evaluate(trained, task="custom", data=tickets, split="train")
        assert seen.rows == {"train": 80}
        shutil.copyfile(tickets, tmp_path / "validation.jsonl")  # who names a split means all of it
        assert evaluate(trained, task="custom", data=tmp_path).rows == {"validation": 100}

    def test_packed_too(self, trained: Path, tickets: Path, tmp_path: Path) -> None:
        from sparsebert.evaluation import evaluate
        from sparsebert.packing import pack

        pack(trained, tmp_path / "packed")
        found = evaluate(tmp_path / "packed", task="custom", data=tickets)
        assert found.rows == {"validation": 20}

    def test_a_file_that_was_changed_is_refused(
        self, trained: Path, tickets: Path, tmp_path: Path
    ) -> None:
        from sparsebert.evaluation import evaluate

        changed = write_tickets(tmp_path / "tickets.jsonl", 99)
        with pytest.raises(DataError, match=r"is not the tickets.jsonl that the model was trained"):
            evaluate(trained, task="custom", data=changed)
        other = write_tickets(tmp_path / "new" / "november.jsonl", 30)
        found = evaluate(trained, task="custom", data=other)
        assert found.rows == {"validation": 30}
        assert any(
            "without checking whether some are also in tickets.jsonl" in note
            for note in found.notes
        )

    def test_all_rows_on_demand(self, trained: Path, tickets: Path, tmp_path: Path) -> None:
        from sparsebert.training import finetune

        out = tmp_path / "out"
        result = finetune(trained, out, task="custom", data=tickets, epochs=0.1, validation_share=0)
        assert (result.rows, result.scores) == (100, {})
        assert not (out / SPLIT_NAME).exists()  # the model that it began from has one
        assert not any("held out" in note for note in result.notes)  # as was asked for
        self.assert_seen(out, tickets)

    def assert_seen(self, model: Path, file: Path) -> None:
        """Evaluation says that the model was trained on this file, and not of another one."""
        from sparsebert.evaluation import evaluate

        seen = f"{file.name}: the model was trained on this file, which flatters the score."
        assert seen in evaluate(model, task="custom", data=file).notes
        assert seen not in evaluate(model, task="custom", data=file, split="train").notes
        other = shutil.copyfile(file, model.with_name(file.name))
        other.write_text(other.read_text().replace("b ", "d "))
        assert seen not in evaluate(model, task="custom", data=other).notes

    def test_a_file_that_is_named_after_a_split_is_not_divided(
        self, sparse: Path, tickets: Path, tmp_path: Path
    ) -> None:
        from sparsebert.evaluation import evaluate
        from sparsebert.training import finetune

        data = tmp_path / "data"
        data.mkdir()
        file = shutil.copyfile(tickets, data / "train.jsonl")
        for name, given in (("alone", file), ("in-folder", data)):
            result = finetune(sparse, tmp_path / name, task="custom", data=given, epochs=0.1)
            assert (result.rows, result.scores) == (100, {})
            assert any("nothing was held out for scoring" in note for note in result.notes)
            self.assert_seen(tmp_path / name, file)
        write_tickets(data / "validation.jsonl", 30)
        found = evaluate(tmp_path / "alone", task="custom", data=data)
        assert found.rows == {"validation": 30}
        assert not any("was trained on" in note for note in found.notes)

    def test_a_share_of_data_that_has_splits_is_refused(
        self, sparse: Path, tickets: Path, tmp_path: Path
    ) -> None:
        from sparsebert.training import finetune

        shutil.copyfile(tickets, tmp_path / "train.jsonl")
        with pytest.raises(DataError, match="already has splits, so leave it out"):
            finetune(sparse, tmp_path / "b", task="custom", data=tmp_path, validation_share=0.1)

    def test_rows_are_chosen_by_the_file_and_not_by_the_seed(
        self, sparse: Path, trained: Path, tickets: Path, tmp_path: Path
    ) -> None:
        from sparsebert.training import finetune

        finetune(sparse, tmp_path / "b", task="custom", data=tickets, epochs=0.1, seed=7)
        records = [(folder / SPLIT_NAME).read_bytes() for folder in (trained, tmp_path / "b")]
        assert records[0] == records[1]
        assert np.all(np.diff(json.loads(records[0])["validation"]) > 0)
