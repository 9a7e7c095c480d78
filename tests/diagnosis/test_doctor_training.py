"""`doctor` on how a training went, from its record, and on several seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sparsebert
from bert_folders import write_bert
from findings import by_kind, the_check
from sparsebert.diagnosis import Severity, diagnose
from sparsebert.tasks.division import Division
from tiny_tasks import write_classification, write_rows

Record = dict[str, Any]
HEAD = "sequence-classification"
# Knows the words of TestScores.
VOCABULARY = "\n".join(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "train", "validation"]
    + [f"{mark}{digit}" for digit in range(10) for mark in ("", "##")]
)


def falling(points: int = 50) -> list[Record]:
    """A sound run: the loss falls, with some noise, and gradients are calm."""
    return [
        {
            "step": 2 * (place + 1),
            "epoch": 3 * place / points,
            "loss": 0.7 * math.exp(-place / 20) + 0.02 * (place % 3),
            "grad_norm": 2.0 + 0.5 * (place % 4),
            "learning_rate": 5e-5 * (1 - place / points),
        }
        for place in range(points)
    ]


def record(**changes: Any) -> Record:
    """training.json as `finetune` writes it, of a run in which nothing is wrong."""
    arguments = {
        "task": "sst2",
        "data": "sst2",
        "seed": 1,
        "epochs": 3.0,
        "learning_rate": 5e-5,
        "batch_size": 32,
        "warmup_ratio": 0.06,
        "max_grad_norm": 1.0,
        "early_stopping": 0,
        "optimizer": "adamw",
        "dropout": None,
        **changes.pop("arguments", {}),
    }
    return {
        "arguments": arguments,
        "max_length": 16,
        "rows": {"train": 1000, "validation": 100},
        "steps": 100,
        "history": falling(),
        "scores": {"validation": {"accuracy": 80.0}},
        "notes": [],
        **changes,
    }


def lineage(*steps: str) -> Record:
    """The record in config.json of a dense model that was made in these steps."""
    return {"format_version": 1, "lineage": [{"step": step} for step in steps]}


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """``model(record)``: the folder of a fine-tuned model with this training.json."""

    def write(document: Any, name: str = "model", **config: Any) -> Path:
        folder = write_bert(tmp_path / name, HEAD, **{"sparsity": lineage("finetune"), **config})
        (folder / "training.json").write_text(json.dumps(document))
        return folder

    return write


def found_in(folder: Path, **options: Any) -> dict[str, Any]:
    return by_kind(diagnose(folder, **options))


def test_a_sound_run_has_nothing(model: Any) -> None:
    report = diagnose(model(record()))
    assert report.findings == []
    names = [check.name for check in report.checks if check.group == "training"]
    assert names == ["loss", "learning rate", "gradients", "early stopping", "scores"]


class TestLoss:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_that_is_no_number(self, model: Any, value: float) -> None:
        history = falling()
        history[30]["loss"] = history[31]["loss"] = value
        found = found_in(model(record(history=history)))
        assert set(found) == {"loss-not-finite"}
        assert (found["loss-not-finite"].count, found["loss-not-finite"].total) == (2, 50)
        assert "the first of them 62" in found["loss-not-finite"].what

    def test_that_rises(self, model: Any) -> None:
        history = falling()
        for place in range(40, 50):
            history[place]["loss"] += 0.3
        found = found_in(model(record(history=history)))
        assert set(found) == {"loss-rising"}

    def test_that_does_not_fall(self, model: Any) -> None:
        history = [{**point, "loss": 0.69 + 0.01 * (point["step"] % 4)} for point in falling()]
        assert set(found_in(model(record(history=history)))) == {"loss-not-falling"}

    @pytest.mark.parametrize(
        ("fifths", "told"),
        [
            # Fine-tunings of MiniLM on 12 classes of 576 rows, from 50.7 to 100.0 percent right.
            ((2.484, 2.471, 2.451, 2.426, 2.406), "loss-not-falling"),
            ((2.483, 2.461, 2.421, 2.368, 2.328), "loss-still-falling"),
            ((2.479, 2.410, 2.210, 1.979, 1.821), "loss-still-falling"),
            ((2.389, 1.305, 0.390, 0.142, 0.089), None),
            ((2.315, 1.143, 0.425, 0.218, 0.168), None),
            # Hard to learn, and learnt as far as it goes.
            ((0.690, 0.640, 0.600, 0.585, 0.580), None),
        ],
    )
    def test_that_ends_too_early(
        self, model: Any, fifths: tuple[float, ...], told: str | None
    ) -> None:
        history = falling()
        for place, point in enumerate(history):
            point["loss"] = fifths[5 * place // len(history)]
        found = set(found_in(model(record(history=history))))
        assert found == ({told} if told else set())

    def test_of_a_few_points_says_nothing(self, model: Any) -> None:
        report = diagnose(model(record(history=falling()[:9][::-1])))
        assert report.findings == []
        assert "too few" in the_check(report, "loss").seen

    def test_small_losses_may_wander(self, model: Any) -> None:
        history = falling()
        for place in range(30, 50):
            history[place]["loss"] = 0.001 + 0.004 * (place % 2) + 0.0002 * place
        assert found_in(model(record(history=history))) == {}


class TestRates:
    @pytest.mark.parametrize(
        ("arguments", "width", "usual"),
        [
            ({"learning_rate": 5e-4}, 8, True),
            ({"learning_rate": 5e-4}, 768, False),
            ({"learning_rate": 2e-5}, 768, True),
            ({"learning_rate": 2e-2}, 8, False),
            ({"learning_rate": 1e-7}, 8, False),
            ({"learning_rate": 0.01, "optimizer": "sgd"}, 8, True),
            ({"learning_rate": 1e-5, "optimizer": "sgd"}, 8, False),
            ({"learning_rate": 0.01, "optimizer": "lion"}, 8, True),  # nothing is known of it
        ],
    )
    def test_outside_of_what_is_usual(
        self, model: Any, arguments: Record, width: int, usual: bool
    ) -> None:
        sizes = {"hidden_size": width, "num_hidden_layers": 1}
        found = found_in(model(record(arguments=arguments), **sizes))
        assert set(found) == (set() if usual else {"unusual-learning-rate"})


class TestGradients:
    def history(self, spikes: int) -> list[Record]:
        history = falling()
        for place in range(20, 20 + spikes):
            history[place]["grad_norm"] = 300.0
        return history

    def test_many_spikes(self, model: Any) -> None:
        found = found_in(model(record(history=self.history(4))))
        assert set(found) == {"gradient-spikes"}
        assert found["gradient-spikes"].count == 4

    def test_one_is_cut_by_clipping_or_is_not(self, model: Any) -> None:
        assert found_in(model(record(history=self.history(1)))) == {}
        unclipped = record(history=self.history(1), arguments={"max_grad_norm": 0.0})
        found = found_in(model(unclipped, "unclipped"))
        assert set(found) == {"gradient-spikes"}
        assert "none was clipped" in found["gradient-spikes"].what

    def test_those_of_the_warm_up_are_usual(self, model: Any) -> None:
        history = falling()
        for point in history[:10]:
            point["grad_norm"] = 100.0
        assert found_in(model(record(history=history, arguments={"warmup_ratio": 0.2}))) == {}


class TestScores:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """60 of 100 validation rows are positive."""
        for split in ("train", "validation"):
            write_rows(
                tmp_path / "data" / f"{split}.jsonl",
                [{"sentence": f"{split} {row}", "label": int(row % 5 < 3)} for row in range(100)],
            )
        return tmp_path / "data"

    @pytest.mark.parametrize(
        ("accuracy", "kind"),
        [
            (60.0, "majority-score"),
            (41.0, "majority-score"),
            (69.0, "near-majority-score"),  # two standard errors of 60 % on 100 rows are 9.8
            (70.0, None),
        ],
    )
    def test_beside_the_largest_class(
        self, model: Any, data: Path, accuracy: float, kind: str | None
    ) -> None:
        folder = model(record(scores={"validation": {"accuracy": accuracy}}))
        (folder / "vocab.txt").write_text(VOCABULARY)
        assert set(found_in(folder, data=data)) == ({kind} if kind else set())
        assert found_in(folder) == {}  # without data nothing is known

    def test_beside_the_held_out_rows_of_a_single_file(self, model: Any, tmp_path: Path) -> None:
        rows = [{"sentence": f"train {row}", "label": int(row % 5 < 3)} for row in range(10)]
        file = write_rows(tmp_path / "reviews.jsonl", rows)
        folder = model(record(scores={"validation": {"accuracy": 50.0}}, rows={"validation": 3}))
        (folder / "vocab.txt").write_text(VOCABULARY)
        Division.of(file, 10, 0.2, [0, 1, 3]).write(folder)
        report = diagnose(folder, data=file)
        assert set(by_kind(report)) == {"majority-score"}
        seen = the_check(report, "scores").seen
        assert seen == "validation accuracy 50.0 (66.7 by always answering 'positive')"
        folder = model(record(rows={"validation": 3}), "other")
        (folder / "vocab.txt").write_text(VOCABULARY)
        assert "pass --data" in the_check(diagnose(folder), "scores").seen
        seen = the_check(diagnose(folder, data=file), "scores").seen
        assert "pass --data" not in seen

    def test_of_other_rows_than_these_nothing_is_said(self, model: Any, data: Path) -> None:
        scored = record(scores={"validation": {"accuracy": 60.0}}, rows={"validation": 872})
        folder = model(scored)
        (folder / "vocab.txt").write_text(VOCABULARY)
        assert found_in(folder, data=data) == {}

    def test_the_same_answer_always(self, model: Any) -> None:
        note = "validation: every row got the same label: the model does not distinguish them."
        found = found_in(model(record(notes=[note])))
        assert set(found) == {"constant-predictions"}
        assert found["constant-predictions"].examples == (note,)

    def test_evaluation_still_says_it_in_these_words(self) -> None:
        import numpy as np

        from sparsebert.diagnosis.training_run import CONSTANT_NOTES
        from sparsebert.evaluation.metrics import classification_scores, regression_scores

        zeros = np.zeros(4, int)
        said = classification_scores(("accuracy",), zeros, np.array([0, 1, 0, 1]), ("a", "b")).notes
        said += regression_scores(("pearson",), zeros, np.arange(4)).notes
        assert len(said) == 2
        assert all(any(sign in note for sign in CONSTANT_NOTES) for note in said)

    def test_chosen_on_validation(self, model: Any) -> None:
        found = found_in(model(record(arguments={"early_stopping": 2})))
        assert set(found) == {"chosen-on-validation"}
        assert found["chosen-on-validation"].severity is Severity.NOTE

    def test_unscored(self, model: Any) -> None:
        assert the_check(diagnose(model(record(scores={}))), "scores").skipped

    def test_of_the_training_are_not_those_of_what_was_made_from_it(self, model: Any) -> None:
        note = "validation: every row got the same label: the model does not distinguish them."
        folder = model(record(notes=[note]), sparsity=lineage("finetune", "prune"))
        report = diagnose(folder)
        assert report.findings == []
        assert "evaluate --save" in the_check(report, "scores").seen
        evaluated = {"scores": {"validation": {"accuracy": 61.0}}, "rows": {"validation": 50}}
        (folder / "evaluation.json").write_text(json.dumps({**evaluated, "notes": [note]}))
        report = diagnose(folder)
        assert set(by_kind(report)) == {"constant-predictions"}
        assert the_check(report, "scores").seen.startswith("validation accuracy 61.0")

    def test_a_damaged_evaluation(self, model: Any) -> None:
        folder = model(record())
        (folder / "evaluation.json").write_text('{"scores": {"validation": 3}}')
        assert "evaluation.json: 'scores' must" in found_in(folder)["unreadable-record"].what


class TestSeeds:
    @pytest.fixture
    def runs(self, tmp_path: Path) -> Callable[..., Path]:
        """``runs(name, scores)``: a folder of seeds with these accuracies."""

        def write(name: str, scores: list[float], **arguments: Any) -> Path:
            folder = tmp_path / name
            for seed, score in enumerate(scores, 1):
                seed_folder = write_bert(
                    folder / f"seed-{seed}", HEAD, sparsity=lineage("finetune")
                )
                written = record(
                    arguments={"seed": seed, **arguments},
                    scores={"validation": {"accuracy": score}},
                )
                (seed_folder / "training.json").write_text(json.dumps(written))
            summary = {
                "seeds": {
                    str(seed): {"validation": {"accuracy": score}}
                    for seed, score in enumerate(scores, 1)
                }
            }
            (folder / "seeds.json").write_text(json.dumps(summary))
            return folder

        return write

    def test_sound_seeds(self, runs: Any) -> None:
        report = diagnose(runs("five", [80, 81, 80.5, 79.5, 80]))
        assert report.findings == []
        assert the_check(report, "spread").seen == "5 seeds: validation accuracy 80.2 ± 0.6"
        groups = {check.group for check in report.checks}
        assert {"masks of seed-1", "training of seed-5", "seeds", "memory"} <= groups

    def test_a_collapsed_seed(self, runs: Any) -> None:
        found = by_kind(diagnose(runs("five", [80, 81, 50.9, 79.5, 80])))
        assert set(found) == {"collapsed-seed"}
        assert found["collapsed-seed"].examples == (
            "seed-3: validation accuracy 50.9, the median is 80.0",
        )

    def test_seeds_that_differ_in_more_than_the_seed(self, runs: Any) -> None:
        folder = runs("two", [80, 81])
        other = record(
            arguments={"seed": 2, "epochs": 1.0}, scores={"validation": {"accuracy": 81.0}}
        )
        (folder / "seed-2" / "training.json").write_text(json.dumps(other))
        found = by_kind(diagnose(folder))
        assert set(found) == {"unlike-seeds"}
        assert found["unlike-seeds"].examples == ("epochs: 1.0, 3.0",)

    @pytest.mark.parametrize("damage", ["another score", "a seed more", "no JSON"])
    def test_a_summary_that_is_not_of_these_seeds(self, runs: Any, damage: str) -> None:
        folder = runs("two", [80, 81])
        path = folder / "seeds.json"
        summary = json.loads(path.read_text())
        if damage == "another score":
            summary["seeds"]["2"]["validation"]["accuracy"] = 91.0
        elif damage == "a seed more":
            summary["seeds"]["3"] = summary["seeds"]["1"]
        path.write_text(json.dumps(summary) if damage != "no JSON" else "{")
        assert set(by_kind(diagnose(folder))) == {"stale-seeds-summary"}

    def test_a_difference_that_chance_explains(self, runs: Any) -> None:
        dense, sparse = runs("dense", [80, 82, 84]), runs("sparse", [79, 81, 83])
        found = by_kind(diagnose(sparse, against=dense))
        assert set(found) == {"difference-within-spread"}
        assert "1.00 points apart, no more than the standard deviation of 2.00" in (
            found["difference-within-spread"].what
        )

    def test_a_difference_beyond_it(self, runs: Any) -> None:
        dense, sparse = runs("dense", [86, 86.5, 86.2]), runs("sparse", [84, 84.3, 83.9])
        report = diagnose(sparse, against=dense)
        assert report.findings == []
        assert the_check(report, "difference").seen.endswith("validation accuracy -2.17")

    def test_what_was_packed_has_the_scores_of_its_evaluation(self, runs: Any) -> None:
        trained, packed = runs("trained", [86, 86.5]), runs("packed", [86, 86.5])
        for seed, score in ((1, 70.0), (2, 70.5)):
            folder = packed / f"seed-{seed}"
            config = json.loads((folder / "config.json").read_text())
            config["sparsity"] = lineage("finetune", "pack")
            (folder / "config.json").write_text(json.dumps(config))
            if seed == 1:
                seen = the_check(diagnose(packed, against=trained), "difference").seen
                assert seen.endswith("validation accuracy +0.25")  # of seed 2 alone
            scores = {"scores": {"validation": {"accuracy": score}}}
            (folder / "evaluation.json").write_text(json.dumps(scores))
        report = diagnose(packed, against=trained)
        assert the_check(report, "difference").seen.endswith("validation accuracy -16.00")
        assert "stale-seeds-summary" not in by_kind(report)  # it tells of the training

    def test_one_seed_shows_no_spread(self, runs: Any, model: Any) -> None:
        dense, single = runs("dense", [86, 86.5]), model(record())
        found = by_kind(diagnose(single, against=dense))
        assert set(found) == {"single-seed"}

    def test_models_that_were_not_trained_alike(self, runs: Any) -> None:
        dense, sparse = runs("dense", [86, 86.5], epochs=1.0), runs("sparse", [84, 84.3])
        found = by_kind(diagnose(sparse, against=dense))
        assert set(found) == {"unequal-training"}
        assert found["unequal-training"].examples == ("epochs: 3.0 and 1.0",)

    def test_against_a_model_that_says_nothing(self, runs: Any, tmp_path: Path) -> None:
        other = write_bert(tmp_path / "plain")
        assert the_check(diagnose(runs("a", [1, 2]), against=other), "difference").skipped


def test_what_finetune_writes_is_understood(tiny_bert: Any, tmp_path: Path) -> None:
    from sparsebert.training.seeds import finetune_seeds

    data = write_classification(tmp_path / "data", train=40, validation=30)
    sparsebert.prune(tiny_bert(), tmp_path / "sparse")
    finetune_seeds(
        tmp_path / "sparse",
        tmp_path / "runs",
        task="custom",
        data=data,
        seeds=(1, 2),
        epochs=2,
        batch_size=4,
        learning_rate=2e-3,
        early_stopping=2,
    )
    report = diagnose(tmp_path / "runs", data=data)
    assert report.task == "custom"
    kinds = {finding.kind for finding in report.findings}
    assert {"unusual-learning-rate", "chosen-on-validation"} <= kinds
    assert not kinds & {"unreadable-record", "stale-seeds-summary", "unlike-seeds"}
    seeds = [check for check in report.checks if check.group == "training of seed-2"]
    assert [check.name for check in seeds if check.skipped] == []
    loss = next(check for check in seeds if check.name == "loss")
    assert loss.seen.startswith("20 points")
    assert the_check(report, "spread").seen.startswith("2 seeds: validation accuracy")


class TestHostileRecords:
    @pytest.mark.parametrize(
        ("document", "what"),
        [
            ([1], "must hold a JSON object, not list"),
            (record(history={}), "'history' must be a list, not dict"),
            (record(history=[7]), "'history' must be a list of objects"),
            (record(history=[{"loss": "low"}]), "history loss must be a number, not str"),
            (record(history=[{"step": True}]), "history step must be a number, not bool"),
            (record(history=[{}] * 100_001), "'history' has 100,001 entries"),
            (record(scores=[1]), "'scores' must map splits to metrics"),
            (record(scores={"validation": {"accuracy": "high"}}), "'scores' must map splits"),
            ({"arguments": "none"}, "'arguments' must be an object, not str"),
            (record(rows=3), "'rows' must be an object, not int"),
            (record(notes="x"), "'notes' must be a list, not str"),
            (record(steps=[1]), "steps must be a number, not list"),
        ],
    )
    def test_wrong_types(self, model: Any, document: Any, what: str) -> None:
        folder = model(document)
        found = found_in(folder)
        assert set(found) == {"unreadable-record"}
        assert f"{folder / 'training.json'}" in found["unreadable-record"].what
        assert what in found["unreadable-record"].what

    def test_a_huge_file_is_not_read(self, model: Any) -> None:
        folder = model(record())
        with (folder / "training.json").open("ab") as file:
            file.truncate(17 << 20)
        assert "17 MiB" in found_in(folder)["unreadable-record"].what

    @pytest.mark.parametrize("text", ["{", '{"a": ' + "[" * 100_000, "\xff"])
    def test_no_json(self, model: Any, text: str) -> None:
        folder = model(record())
        (folder / "training.json").write_bytes(text.encode("latin-1"))
        assert set(found_in(folder)) == {"unreadable-record"}

    @pytest.mark.parametrize(
        "arguments",
        [
            {"learning_rate": "fast", "batch_size": "all", "dropout": [], "task": 7},
            {"learning_rate": None, "batch_size": -3, "max_grad_norm": {}, "task": "chess"},
            {"learning_rate": 10**400, "batch_size": math.inf, "warmup_ratio": math.nan},
        ],
    )
    def test_arguments_of_any_type_are_passed_over(self, model: Any, arguments: Record) -> None:
        history = [*falling(), {"step": 10**400, "loss": 0.05}]
        assert found_in(model(record(arguments=arguments, history=history))) == {}
