"""The loss of upstream pruning against plain numpy, a row at a time and without padding."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.checkpoint import Pooling, open_checkpoint
from sparsebert.tasks.table import Kind
from sparsebert.training.upstream.objective import NOT_MASKED, UpstreamObjective, pooled
from sparsebert.training.upstream.options import UpstreamOptions
from sparsebert.training.upstream.run import encoder_model
from tiny_models import TinyBert, make_tiny_bert

LENGTHS = (7, 1, 12, 5, 9)
NOTHING: dict[str, float] = dict.fromkeys(
    (
        "hidden_weight",
        "embedding_weight",
        "masked_lm_weight",
        "token_logits_weight",
        "logits_weight",
    ),
    0.0,
)
MEAN = Pooling(("mean",), normalize=True)


@pytest.fixture(scope="module")
def models(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Student and teacher with a masked-LM head, of three layers."""
    folder = tmp_path_factory.mktemp("objective")
    made = [
        make_tiny_bert(folder / str(seed), "masked-lm", num_hidden_layers=3, seed=seed)
        for seed in (1, 2)
    ]
    student, teacher = (encoder_model(open_checkpoint(path), 0) for path in made)
    return student.eval(), teacher.eval()


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(5, 150, length).tolist() for length in LENGTHS]


def batch_of(rows: list[list[int]], labels: list[list[int]] | None = None) -> dict[str, Any]:
    longest = max(map(len, rows))

    def padded(values: list[list[int]], filler: int) -> Any:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in values])

    batch = {
        "input_ids": padded(rows, 0),
        "token_type_ids": padded(
            [[0] * (len(row) // 2) + [1] * -(-len(row) // 2) for row in rows], 0
        ),
        "attention_mask": padded([[1] * len(row) for row in rows], 0),
        "indices": torch.arange(len(rows)),
    }
    if labels is not None:
        batch["labels"] = padded(labels, NOT_MASKED)
    return batch


def alone(model: Any, rows: list[list[int]]) -> list[Any]:
    """transformers' outputs for each row by itself: hidden states float64 [tokens, features]."""
    found = []
    for index in range(len(rows)):
        batch = batch_of([rows[index]])
        batch.pop("indices")
        with torch.no_grad():
            output = model(**batch, output_hidden_states=True)
        states = [state[0].double().numpy() for state in output.hidden_states]
        found.append((states, output.logits[0].double().numpy()))
    return found


def loss(
    models: tuple[Any, Any], batch: Any, pooling: Pooling | None = None, **weights: float
) -> float:
    student, teacher = models
    options = UpstreamOptions(**{**NOTHING, **weights})
    objective = UpstreamObjective(teacher, options, pooling)
    with torch.no_grad():
        return float(objective.loss(student, batch, len(batch["indices"])))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_hidden_states(models: tuple[Any, Any], rows: list[list[int]]) -> None:
    expected = []
    for (one, _), (other, _) in zip(alone(models[0], rows), alone(models[1], rows), strict=True):
        layers = []
        for found, wanted in zip(one[1:], other[1:], strict=True):
            error = ((found - wanted) ** 2).sum(axis=1)
            layers.append(np.mean(error / (wanted.var(axis=1) * wanted.shape[1])))
        expected.append(np.mean(layers))
    found = loss(models, batch_of(rows), hidden_weight=3.0)
    assert found == pytest.approx(3 * np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "mean_sqrt_len"])
def test_embeddings(models: tuple[Any, Any], rows: list[list[int]], mode: str) -> None:
    def embed(states: np.ndarray) -> np.ndarray:
        vector = {
            "mean": states.mean(axis=0),
            "cls": states[0],
            "max": states.max(axis=0),
            "mean_sqrt_len": states.sum(axis=0) / np.sqrt(len(states)),
        }[mode]
        return np.asarray(vector / np.linalg.norm(vector))

    student, teacher = (
        np.stack([embed(states[-1]) for states, _ in alone(model, rows)]) for model in models
    )
    pooling = Pooling((mode,), normalize=True)
    distance = np.mean(2 - 2 * (student * teacher).sum(axis=1))
    found = loss(models, batch_of(rows), pooling, embedding_weight=2.0)
    assert found == pytest.approx(2 * distance, rel=1e-4)


def test_masked_tokens(models: tuple[Any, Any], rows: list[list[int]]) -> None:
    labels = [[NOT_MASKED] * length for length in LENGTHS]
    for row, place, token in ((0, 1, 9), (0, 5, 77), (2, 11, 140), (3, 0, 33), (4, 8, 5)):
        labels[row][place] = token  # row 1 has none
    entropies, divergences = [], []
    for (_, student), (_, teacher), row in zip(
        alone(models[0], rows), alone(models[1], rows), labels, strict=True
    ):
        places = [place for place, token in enumerate(row) if token != NOT_MASKED]
        one, other = log_softmax(student), log_softmax(teacher)
        entropies.append(np.mean([-one[place, row[place]] for place in places] or [0]))
        kept = [(np.exp(other[place]) * (other[place] - one[place])).sum() for place in places]
        divergences.append(np.mean(kept or [0]))
    batch = batch_of(rows, labels)
    found = loss(models, batch, masked_lm_weight=2.0)
    assert found == pytest.approx(2 * np.mean(entropies), rel=1e-5)
    found = loss(models, batch, token_logits_weight=3.0)
    assert found == pytest.approx(3 * np.mean(divergences), rel=1e-5)


def test_the_teacher_itself_has_nothing_to_learn(
    models: tuple[Any, Any], rows: list[list[int]]
) -> None:
    weights = {**dict.fromkeys(NOTHING, 1.0), "masked_lm_weight": 0.0}
    labels = [[7] * length for length in LENGTHS]
    same = (models[1], models[1])
    assert loss(same, batch_of(rows, labels), MEAN, **weights) == pytest.approx(0, abs=1e-6)


def test_parts_of_a_step_add_up(models: tuple[Any, Any], rows: list[list[int]]) -> None:
    student, teacher = models
    labels = [[7] * length for length in LENGTHS]
    options = UpstreamOptions()
    objective = UpstreamObjective(teacher, options, MEAN)
    whole = objective.loss(student, batch_of(rows, labels), 5)
    parts = [
        objective.loss(student, batch_of(rows[part], labels[part]), 5)
        for part in (slice(0, 2), slice(2, 5))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_gradients_reach_the_student_alone(models: tuple[Any, Any], rows: list[list[int]]) -> None:
    student, teacher = models
    objective = UpstreamObjective(teacher, UpstreamOptions(), MEAN)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.loss(student, batch_of(rows, [[7] * length for length in LENGTHS]), 5)
    assert found.dtype is torch.float32
    found.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    student.zero_grad()


def test_the_teacher_goes_where_the_batch_is(
    models: tuple[Any, Any], rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = (copy.deepcopy(model) for model in models)
    devices = []

    def outputs(_: Any, model: Any, batch: dict[str, Any]) -> Any:
        devices.extend(parameter.device.type for parameter in model.parameters())
        states = torch.ones(*batch["input_ids"].shape, 32, device="meta")
        return SimpleNamespace(hidden_states=[states] * 4)

    monkeypatch.setattr(UpstreamObjective, "_outputs", outputs)
    objective = UpstreamObjective(teacher, UpstreamOptions(), MEAN)
    batch = {name: values.to("meta") for name, values in batch_of(rows).items()}
    assert objective.loss(student.to("meta"), batch, 5).is_meta
    assert {*devices} == {"meta"}


def test_max_pooling_sees_no_padding() -> None:
    states = torch.tensor([[[-3.0, -4.0], [5.0, 6.0]]])
    real = torch.tensor([[True, False]])
    assert pooled(states, real, ("max",)).tolist() == [pytest.approx([-0.6, -0.8])]


def test_the_models_are_those_of_transformers(
    models: tuple[Any, Any], rows: list[list[int]], tmp_path: Path
) -> None:
    folder = make_tiny_bert(tmp_path / "model", "masked-lm", tie_word_embeddings=False, seed=3)
    ours = encoder_model(open_checkpoint(folder), 0).eval()
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert np.allclose(alone(ours, rows)[2][1], alone(theirs, rows)[2][1], atol=1e-5)


def test_logits_of_several_labels(tiny_bert: TinyBert) -> None:
    """The sum over the labels, against plain numpy."""
    student, teacher = (
        encoder_model(open_checkpoint(tiny_bert("sequence-classification", seed=seed)), 0).eval()
        for seed in (1, 2)
    )
    batch = batch_of([[7, 8, 9], [11, 12]])
    inputs = {name: values for name, values in batch.items() if name != "indices"}
    options = UpstreamOptions(**{**NOTHING, "logits_weight": 3.0})
    objective = UpstreamObjective(teacher, options, None, Kind.LABEL_SETS)
    with torch.no_grad():
        s, t = (model(**inputs).logits.double().numpy() for model in (student, teacher))
        found = float(objective.loss(student, batch, 2))
    p, q = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(-s))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
    assert found == pytest.approx(3 * expected.mean(), rel=1e-3)
