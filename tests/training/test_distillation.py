"""The loss of a student with a teacher: its parts add up, and batches of a step do too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.progress import silent
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import padded_batch
from sparsebert.training.distillation.losses import layer_pairs
from sparsebert.training.distillation.objective import DistillationObjective
from sparsebert.training.distillation.outputs import compute_outputs
from sparsebert.training.objective import TaskObjective
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.quantization_aware import int8_arithmetic
from tiny_models import TinyBert

ROWS = 7
KINDS = {
    Kind.CLASSIFICATION: ("sequence-classification", {"num_labels": 3}),
    Kind.REGRESSION: ("sequence-classification", {"num_labels": 1}),
    Kind.QUESTION: ("question-answering", {}),
}
ALL: dict[str, float] = {
    "temperature": 3.0,
    "task_weight": 0.3,
    "logits_weight": 0.7,
    "hidden_weight": 0.2,
    "attention_weight": 0.1,
}


def load(folder: Path, kind: Kind) -> Any:
    name = "QuestionAnswering" if kind is Kind.QUESTION else "SequenceClassification"
    return getattr(transformers, f"BertFor{name}").from_pretrained(folder).eval()


class Lesson:
    """A student, a teacher of another depth, and rows with labels."""

    def __init__(self, tiny_bert: TinyBert, kind: Kind) -> None:
        head, sizes = KINDS[kind]
        self.kind = kind
        self.student = load(tiny_bert(head, seed=1, **sizes), kind)
        self.teacher = load(tiny_bert(head, seed=2, num_hidden_layers=3, **sizes), kind)
        random = np.random.default_rng(5)
        ids = [random.integers(5, 90, size=length).tolist() for length in (4, 9, 2, 9, 6, 1, 12)]
        self.rows = TokenRows.of(ids, [[0] * len(row) for row in ids])
        self.labels = {
            Kind.CLASSIFICATION: torch.from_numpy(random.integers(3, size=ROWS)),
            Kind.REGRESSION: torch.from_numpy(random.random(ROWS).astype(np.float32)),
            Kind.QUESTION: torch.zeros((ROWS, 2), dtype=torch.int64),
        }[kind]
        self.outputs = compute_outputs(self.teacher, self.rows, kind, batch_size=3, progress=silent)

    def batch(self, chosen: list[int]) -> dict[str, Any]:
        rows = torch.tensor(chosen)
        return {
            **padded_batch(self.rows, np.array(chosen)),
            "labels": self.labels[rows],
            "indices": rows,
        }

    def objective(self, **weights: float) -> DistillationObjective:
        teacher: Any = SimpleNamespace(
            outputs=self.outputs, model=lambda: self.teacher, columns=None
        )
        return DistillationObjective(
            self.kind, teacher, FinetuneOptions(teacher="teacher", **weights)
        )

    def gradients(self, batches: list[list[int]], **weights: float) -> dict[str, Any]:
        objective = self.objective(**weights)
        self.student.zero_grad()
        for chosen in batches:
            objective.loss(self.student, self.batch(chosen), ROWS).backward()
        return {
            name: parameter.grad.clone()
            for name, parameter in self.student.named_parameters()
            if parameter.grad is not None
        }


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.value)
def lesson(request: pytest.FixtureRequest, tiny_bert: TinyBert) -> Lesson:
    return Lesson(tiny_bert, request.param)


def softened_kl(teacher: Any, student: Any, temperature: float) -> float:
    p, q = (np.exp(x / temperature - (x / temperature).max()) for x in (teacher, student))
    p, q = p / p.sum(), q / q.sum()
    return float(temperature**2 * (p * np.log(p / q)).sum())


def by_hand(lesson: Lesson, row: int) -> tuple[float, float]:
    """The logits' and the hidden states' part of one row, run alone through both models."""
    ids, types = (torch.from_numpy(part.astype(np.int64))[None] for part in lesson.rows.row(row))
    with torch.no_grad():
        mine, theirs = (
            model(ids, token_type_ids=types, output_hidden_states=True)
            for model in (lesson.student, lesson.teacher)
        )
    if lesson.kind is Kind.CLASSIFICATION:
        logits = softened_kl(theirs.logits[0].numpy(), mine.logits[0].numpy(), 3.0)
    elif lesson.kind is Kind.REGRESSION:
        logits = (theirs.logits - mine.logits).item() ** 2
    else:
        pairs = (
            (theirs.start_logits, mine.start_logits),
            (theirs.end_logits, mine.end_logits),
        )
        logits = sum(softened_kl(t[0].numpy(), s[0].numpy(), 3.0) for t, s in pairs) / 2
    hidden = np.mean(
        [
            ((mine.hidden_states[s + 1] - theirs.hidden_states[t + 1]) ** 2).mean()
            / lesson.outputs.hidden_variance[t]
            for s, t in layer_pairs(2, 3)
        ]
    )
    return logits, float(hidden)


class TestObjective:
    def test_logits_and_hidden_states_are_those_of_each_row_alone(self, lesson: Lesson) -> None:
        chosen = [3, 0, 5, 6]
        logits, hidden = np.array([by_hand(lesson, row) for row in chosen]).sum(0) / 10
        weights = {"temperature": 3.0, "logits_weight": 0.5, "hidden_weight": 2.0}
        with torch.no_grad():
            loss = lesson.objective(**weights).loss(lesson.student, lesson.batch(chosen), 10)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(0.5 * logits + 2.0 * hidden, rel=1e-4)

    def test_the_parts_add_up(self, lesson: Lesson) -> None:
        batch = lesson.batch([0, 1, 2])
        nothing = {**dict.fromkeys(ALL, 0.0), "temperature": 3.0}
        with torch.no_grad():
            whole = lesson.objective(**ALL).loss(lesson.student, batch, 3)
            parts = {
                name: lesson.objective(**{**nothing, name: 1.0}).loss(lesson.student, batch, 3)
                for name in ALL
                if name != "temperature"
            }
            task = TaskObjective(lesson.kind).loss(lesson.student, batch, 3)
        assert all(part.item() > 0 for part in parts.values())
        assert parts["task_weight"].item() == pytest.approx(task.item(), rel=1e-5)
        total = sum(ALL[name] * part.item() for name, part in parts.items())
        assert whole.item() == pytest.approx(total, rel=1e-5)

    def test_an_accumulated_step_equals_one_large_batch(self, lesson: Lesson) -> None:
        # Other company means other padding, and the last batch is short. The task's own loss of a
        # span counts padding in, as transformers' does.
        weights = {**ALL, "task_weight": 0.0 if lesson.kind is Kind.QUESTION else 0.3}
        large = lesson.gradients([[6, 1, 0, 3, 2, 5, 4]], **weights)
        small = lesson.gradients([[0, 6, 2], [1, 5, 4], [3]], **weights)
        assert large.keys() == small.keys()
        for name, gradient in large.items():
            torch.testing.assert_close(gradient, small[name], rtol=1e-3, atol=2e-6)

    def test_by_default_the_labels_are_not_looked_at(self, lesson: Lesson) -> None:
        batch = lesson.batch([0, 1, 2])
        objective = lesson.objective()
        with torch.no_grad():
            loss = objective.loss(lesson.student, batch, 3)
            other = objective.loss(lesson.student, {**batch, "labels": None}, 3)
        assert loss.item() == other.item() > 0

    def test_a_student_that_is_its_teacher_has_nothing_to_learn(self, lesson: Lesson) -> None:
        objective = lesson.objective(**{**ALL, "task_weight": 0.0})
        with torch.no_grad():
            loss = objective.loss(lesson.teacher, lesson.batch([0, 1, 2, 3]), 4)
        assert loss.item() == pytest.approx(0, abs=1e-5)

    def test_the_teacher_stays_as_it_is(self, lesson: Lesson) -> None:
        lesson.teacher.train()
        lesson.gradients([[0, 1]], **ALL)
        assert not any(module.training for module in lesson.teacher.base_model.modules())
        assert all(parameter.grad is None for parameter in lesson.teacher.parameters())

    def test_under_autocast_the_loss_is_float32(self, lesson: Lesson) -> None:
        batch = lesson.batch([0, 1, 2, 3])
        with torch.no_grad():
            exact = lesson.objective(**ALL).loss(lesson.student, batch, 4)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = lesson.objective(**ALL).loss(lesson.student, batch, 4)
        assert rounded.dtype == torch.float32
        assert rounded.item() == pytest.approx(exact.item(), rel=0.05)

    def test_a_student_that_computes_in_int8(self, lesson: Lesson) -> None:
        # Its layers are replaced while it trains; they are heard all the same.
        exact = lesson.gradients([[0, 2, 3]], **ALL)
        with int8_arithmetic(lesson.student):
            rounded = lesson.gradients([[0, 2, 3]], **ALL)
        assert rounded.keys() == exact.keys()
        name = "bert.encoder.layer.1.attention.self.query.weight"
        assert not torch.equal(rounded[name], exact[name])
        assert torch.cosine_similarity(rounded[name].flatten(), exact[name].flatten(), 0) > 0.9


@pytest.mark.parametrize("name", ["hidden_weight", "attention_weight"])
def test_the_teacher_is_loaded_only_if_it_is_asked_live(lesson: Lesson, name: str) -> None:
    loaded = []

    def load_teacher() -> Any:
        loaded.append(lesson.teacher)
        return lesson.teacher

    teacher: Any = SimpleNamespace(outputs=lesson.outputs, model=load_teacher, columns=None)
    for weight in (0.0, 0.1):
        DistillationObjective(
            lesson.kind, teacher, FinetuneOptions(teacher="teacher", **{name: weight})
        )
        assert bool(loaded) == (weight > 0)
