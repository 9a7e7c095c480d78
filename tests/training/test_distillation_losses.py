"""The parts of the distillation loss against their formulas in numpy, at odd shapes and padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from sparsebert.tasks.table import Kind
from sparsebert.training.distillation.losses import (
    hidden_states_loss,
    last_projections,
    layer_pairs,
    logits_loss,
    relation_heads,
    relations_loss,
)

Array = npt.NDArray[np.float64]
LENGTHS = (7, 1, 4, 5)  # of rows that are padded to 7 tokens


def real_tokens() -> Any:
    return torch.tensor([[token < length for token in range(7)] for length in LENGTHS])


def draw(random: np.random.Generator, *shape: int) -> tuple[Any, Array]:
    """The same float32 numbers for torch, and for numpy in float64."""
    values = 3 * random.standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values.copy()).requires_grad_(), values.astype(np.float64)


def kl(teacher: Array, student: Array) -> float:
    """sum_i p_i log(p_i / q_i) of two vectors of logits."""
    p = np.exp(teacher) / np.exp(teacher).sum()
    q = np.exp(student) / np.exp(student).sum()
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
class TestLogits:
    def test_classes(self, temperature: float) -> None:
        random = np.random.default_rng(0)
        (student, s), (teacher, t) = draw(random, 5, 3), draw(random, 5, 3)
        expected = [
            temperature**2 * kl(theirs / temperature, mine / temperature)
            for mine, theirs in zip(s, t)
        ]
        loss = logits_loss(Kind.CLASSIFICATION, student, teacher, real_tokens(), temperature)
        assert loss.shape == (5,)
        np.testing.assert_allclose(loss.detach(), expected, rtol=1e-4)
        same = logits_loss(Kind.CLASSIFICATION, teacher, teacher, real_tokens(), temperature)
        np.testing.assert_allclose(same.detach(), np.zeros(5), atol=1e-5)

    def test_spans_leave_padding_out(self, temperature: float) -> None:
        random = np.random.default_rng(1)
        (student, s), (teacher, t) = draw(random, 4, 7, 2), draw(random, 4, 7, 2)
        expected = [
            temperature**2
            * sum(
                kl(t[row, :n, place] / temperature, s[row, :n, place] / temperature)
                for place in range(2)
            )
            / 2
            for row, n in enumerate(LENGTHS)
        ]
        loss = logits_loss(Kind.QUESTION, student, teacher, real_tokens(), temperature)
        np.testing.assert_allclose(loss.detach(), expected, rtol=1e-4, atol=1e-5)
        loss.sum().backward()
        assert torch.isfinite(student.grad).all()
        assert not student.grad[~real_tokens()].any()
        assert student.grad[0].all()


def test_the_gradient_keeps_its_size_at_high_temperature() -> None:
    # Hinton et al.: for T far above the logits it tends to (student - teacher) / labels, centred.
    student = torch.tensor([[0.3, -0.1, 0.4, 0.2]], requires_grad=True)
    teacher = torch.tensor([[-0.2, 0.1, 0.3, 0.0]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    logits_loss(Kind.CLASSIFICATION, student, teacher, mask, 1000.0).sum().backward()
    apart = (student - teacher).detach()
    np.testing.assert_allclose(student.grad, (apart - apart.mean()) / 4, rtol=2e-2, atol=1e-3)


def test_a_value_is_compared_by_its_square() -> None:
    student, teacher = torch.tensor([[1.5], [-2.0]]), torch.tensor([[1.0], [1.0]])
    mask = torch.ones(2, 1, dtype=torch.bool)
    for temperature in (1.0, 2.0):
        found = logits_loss(Kind.REGRESSION, student, teacher, mask, temperature)
        np.testing.assert_array_equal(found, [0.25, 9.0])


class TestHiddenStates:
    def test_formula_and_padding(self) -> None:
        random = np.random.default_rng(2)
        student, s = zip(*(draw(random, 4, 7, 5) for _ in range(2)))
        teacher, t = zip(*(draw(random, 4, 7, 5) for _ in range(3)))
        variance = (2.0, 0.3, 7.0)
        # Of three layers the first student layer follows the second: ceil(1 * 3 / 2).
        expected = [
            np.mean(
                [
                    ((s[mine][row, :n] - t[theirs][row, :n]) ** 2).mean() / variance[theirs]
                    for mine, theirs in ((0, 1), (1, 2))
                ]
            )
            for row, n in enumerate(LENGTHS)
        ]
        loss = hidden_states_loss(student, teacher, variance, real_tokens())
        np.testing.assert_allclose(loss.detach(), expected, rtol=1e-5)
        loss.sum().backward()
        assert not student[0].grad[~real_tokens()].any()
        assert student[0].grad[real_tokens()].all()

    def test_a_student_that_gives_the_mean_explains_nothing(self) -> None:
        values = (
            5 * np.random.default_rng(3).standard_normal((1, 400, 6)) + 11
        )  # neither scale nor mean of the teacher matters
        variance = values[0].var(0).mean()
        teacher = torch.from_numpy(values)
        real = torch.ones((1, 400), dtype=torch.bool)
        mean = teacher.mean(1, keepdim=True).expand_as(teacher)
        loss = hidden_states_loss([mean], [teacher], [variance], real)
        assert loss.item() == pytest.approx(1.0, rel=1e-5)

    @pytest.mark.parametrize(
        ("student", "teacher", "followed"),
        [
            (3, 3, [0, 1, 2]),
            (2, 4, [1, 3]),
            (3, 5, [1, 3, 4]),
            (1, 12, [11]),
            (4, 2, [0, 0, 1, 1]),
        ],
    )
    def test_layers_are_spread_evenly(
        self, student: int, teacher: int, followed: list[int]
    ) -> None:
        assert layer_pairs(student, teacher) == list(enumerate(followed))


class TestRelations:
    @pytest.mark.parametrize(("student_width", "teacher_width", "heads"), [(12, 18, 3), (4, 10, 1)])
    def test_formula_and_padding(self, student_width: int, teacher_width: int, heads: int) -> None:
        random = np.random.default_rng(4)
        student, s = zip(*(draw(random, 4, 7, student_width) for _ in range(3)))
        teacher, t = zip(*(draw(random, 4, 7, teacher_width) for _ in range(3)))

        def scores(vectors: Array, head: int) -> Array:
            width = vectors.shape[1] // heads
            part = vectors[:, head * width : (head + 1) * width]
            return part @ part.T / np.sqrt(width)

        expected = [
            sum(
                kl(scores(t[which][row, :n], head)[token], scores(s[which][row, :n], head)[token])
                for which in range(3)
                for head in range(heads)
                for token in range(n)
            )
            / (heads * n)
            for row, n in enumerate(LENGTHS)
        ]
        loss = relations_loss(student, teacher, heads, real_tokens())
        np.testing.assert_allclose(loss.detach(), expected, rtol=1e-3, atol=1e-5)
        loss.sum().backward()
        for vectors in student:
            assert torch.isfinite(vectors.grad).all()
            assert not vectors.grad[~real_tokens()].any()

    def test_as_many_heads_as_divide_both(self) -> None:
        assert relation_heads(12, 768) == 12
        assert relation_heads(12, 1024) == 4
        assert relation_heads(5, 32) == 1

    def test_the_vectors_are_those_of_the_last_layer(self) -> None:
        import transformers

        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=10,
        )
        model = transformers.BertForSequenceClassification(config).eval()
        ids = torch.arange(10).reshape(2, 5)
        with torch.no_grad(), last_projections(model) as found:
            states = model(ids, output_hidden_states=True).hidden_states
        attention = model.bert.encoder.layer[1].attention.self
        for vectors, name in zip(found, ("query", "key", "value")):
            torch.testing.assert_close(vectors, getattr(attention, name)(states[1]))
        with torch.no_grad():
            model(ids)
        assert len(found) == 3  # the hooks are gone
