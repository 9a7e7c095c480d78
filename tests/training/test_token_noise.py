"""Random tokens in distillation: what is replaced, and that the teacher answers the noisy text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import QUICK, assert_same_bits, assert_zeros_held, interrupt_at, weights
from sparsebert.errors import TrainingError
from sparsebert.progress import silent
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import padded_batch
from sparsebert.training import finetune
from sparsebert.training.distillation.noise import TokenNoise
from sparsebert.training.distillation.objective import DistillationObjective
from sparsebert.training.distillation.outputs import compute_outputs
from sparsebert.training.options import FinetuneOptions
from tiny_models import TinyBert
from tiny_tasks import write_regression

SPECIAL = (0, 1, 2)

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


def token_rows(rows: int, length: int, of: list[int]) -> TokenRows:
    """Rows of the given tokens in turn, between two special ones."""
    ids = [[1, *np.resize(np.roll(of, row), length), 2] for row in range(rows)]
    return TokenRows.of(ids, [[0] * len(row) for row in ids])


class TestTokens:
    def test_tokens_are_drawn_as_often_as_they_occur(self) -> None:
        # Three of four tokens are 7, one is 9; the batch has neither, and padding at its end.
        noise = TokenNoise(token_rows(8, 20, [7, 7, 9, 7]), SPECIAL, 0.5)
        ids = torch.full((1000, 400), 5)
        ids[:, 0], ids[:, 200], ids[:, 390:] = 1, 2, 0
        batch = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": ids[:, 0]}
        torch.manual_seed(3)
        noisy = noise(batch)
        assert noisy.keys() == batch.keys()
        assert all(noisy[name] is batch[name] for name in ("attention_mask", "labels"))
        found = noisy["input_ids"]
        kept = torch.isin(ids, torch.tensor(SPECIAL))
        assert torch.equal(found[kept], ids[kept])
        assert set(found[~kept].tolist()) == {5, 7, 9}
        replaced = ((found != 5) & ~kept).float()
        assert (found == 7).float().sum() / replaced.sum() == pytest.approx(0.75, abs=0.02)
        # The rates of the texts are even from 0 to 0.5: a mean of 1/4, a variance of 1/48.
        rates = replaced.sum(1) / 388
        assert rates.mean().item() == pytest.approx(0.25, abs=0.03)
        assert rates.std().item() == pytest.approx(48**-0.5, abs=0.02)
        assert not torch.equal(noise(batch)["input_ids"], found)

    def test_texts_without_tokens_stay(self) -> None:
        batch = {"input_ids": torch.tensor([[1, 2]])}
        assert TokenNoise(token_rows(2, 0, [3]), SPECIAL, 0.5)(batch) is batch


@pytest.mark.parametrize("kind", [Kind.CLASSIFICATION, Kind.QUESTION])
def test_the_loss_is_that_of_the_noisy_rows(tiny_bert: TinyBert, kind: Kind) -> None:
    """Row 0 becomes row 1 on its way, so the loss is that of row 1, without noise."""
    head, name = {
        Kind.CLASSIFICATION: ("sequence-classification", "BertForSequenceClassification"),
        Kind.QUESTION: ("question-answering", "BertForQuestionAnswering"),
    }[kind]
    student, teacher = (
        getattr(transformers, name).from_pretrained(tiny_bert(head, seed=seed)).eval()
        for seed in (1, 2)
    )
    rows = token_rows(2, 6, [11, 12, 13, 14, 15])
    outputs = compute_outputs(teacher, rows, kind, batch_size=2, progress=silent)
    columns = None
    if kind is Kind.CLASSIFICATION:  # the teacher's labels are in another order
        columns = np.array([2, 0, 1])
        outputs = outputs.with_columns(columns)
    asked: Any = SimpleNamespace(outputs=outputs, model=lambda: teacher, columns=columns)
    options = FinetuneOptions(teacher="t", hidden_weight=0.5, attention_weight=0.5)
    batches = [
        {**padded_batch(rows, np.array([row])), "indices": torch.tensor([row])} for row in (0, 1)
    ]

    def other_row(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "input_ids": batches[1]["input_ids"]}

    noisy = DistillationObjective(kind, asked, options, noise=other_row)
    with torch.no_grad():
        found = noisy.loss(student, batches[0], 1)
        wanted = DistillationObjective(kind, asked, options).loss(student, batches[1], 1)
        other = DistillationObjective(kind, asked, options).loss(student, batches[0], 1)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-3)
    assert other.item() != pytest.approx(wanted.item(), rel=1e-2)


class TestRuns:
    def test_an_interrupted_run_goes_on_with_the_same_noise(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        given = {**QUICK, "data": data, "teacher": teacher, "token_noise": 0.3}
        finetune(sparse, tmp_path / "whole", **given)
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, tmp_path / "out", progress=interrupt_at(5), **given)
        finetune(sparse, tmp_path / "out", resume=True, **given)
        assert_same_bits(tmp_path / "out", tmp_path / "whole")
        assert_zeros_held(tmp_path / "out", sparse)
        clean = finetune(sparse, tmp_path / "clean", **{**given, "token_noise": 0.0})
        assert clean.rows == 60
        name = "bert.encoder.layer.0.attention.self.query.weight"
        assert not np.array_equal(
            weights(tmp_path / "clean")[name], weights(tmp_path / "whole")[name]
        )

    def test_embeddings(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        """A student that is its teacher has nothing to learn from texts that both read."""
        data = write_regression(tmp_path / "data")
        given = {**QUICK, "task": "pairs", "data": data, "weight_decay": 0.0, "precision": "fp32"}
        model, out = tmp_path / "model", tmp_path / "out"
        finetune(tiny_bert(seed=4), model, **given)
        finetune(model, out, teacher=model, token_noise=0.5, optimizer="sgd", dropout=0.0, **given)
        before = weights(model)
        for name, values in weights(out).items():
            np.testing.assert_allclose(values, before[name], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "t", "token_noise": 1.0}, "token_noise must be at least 0 and below 1"),
        ({"teacher": "t", "token_noise": 0.1, "task_weight": 0.5}, "set one of them to 0"),
        ({"token_noise": 0.1}, "token_noise .*teacher"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        FinetuneOptions(**options)
