"""Training all word embeddings, only those that are used, or none."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from safetensors.numpy import load_file

from short_runs import QUICK, assert_same_bits, interrupt_at
from sparsebert.evaluation.metrics import Scores
from sparsebert.evaluation.scoring import PreparedSplit
from sparsebert.tasks.tokens import TokenRows, load_tokenizer
from sparsebert.torch_models import padded_batch
from sparsebert.training import finetune
from sparsebert.training.word_embeddings import frozen_embeddings, used_embeddings
from tiny_models import TinyBert, make_tiny_bert
from tiny_tasks import letters, write_classification, write_rows

TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validation texts have words that no training text has."""
    folder = write_classification(tmp_path_factory.mktemp("embeddings") / "data")
    random = np.random.default_rng(5)
    rows = [{"text": letters(random, "x") + " q z 7", "label": "yes"} for _ in range(9)]
    write_rows(folder / "validation.jsonl", rows)
    return folder


def classifier(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def table_of(folder: Path) -> np.ndarray:
    tensors = load_file(folder / "model.safetensors")
    return tensors.get(TABLE, tensors.get(TABLE.removeprefix("bert.")))


def used_ids(folder: Path, data: Path) -> set[int]:
    tokenizer = load_tokenizer(folder)
    texts = [json.loads(line)["text"] for line in (data / "train.jsonl").read_text().splitlines()]
    return {token for text in texts for token in tokenizer(text)["input_ids"]}


class TestHolds:
    def test_it_computes_and_saves_what_the_whole_table_does(self, tiny_bert: TinyBert) -> None:
        folder = tiny_bert("sequence-classification")
        plain, held = classifier(folder), classifier(folder)
        with used_embeddings(held, np.array([5, 9, 9, 41])):
            assert held.get_input_embeddings().weight.shape == (4, 32)  # and [PAD]
            assert held.state_dict().keys() == plain.state_dict().keys()
            assert all(
                torch.equal(value, held.state_dict()[name])
                for name, value in plain.state_dict().items()
            )
            ids = torch.tensor([[5, 9, 41, 0], [41, 5, 0, 0]])
            for model in (plain, held):
                model.train()
                torch.manual_seed(3)
                model(ids, attention_mask=ids.ne(0), labels=torch.tensor([0, 2])).loss.backward()
            ours = held.get_input_embeddings().weight.grad
            theirs = plain.get_input_embeddings().weight.grad
            assert torch.equal(ours, theirs[[0, 5, 9, 41]])
            assert not ours[0].any()  # padding does not train

    def test_rows_that_are_not_used_are_read_in_evaluation(self, tiny_bert: TinyBert) -> None:
        folder = tiny_bert("sequence-classification")
        plain, held = classifier(folder).eval(), classifier(folder).eval()
        with used_embeddings(held, np.array([5, 9])):
            for model, row in ((plain, 9), (held, 2)):
                with torch.no_grad():
                    model.get_input_embeddings().weight[row] += 1
            ids = torch.tensor([[5, 9, 60, 61]])
            with torch.inference_mode():
                assert torch.equal(held(ids).logits, plain(ids).logits)
            held.train()
            with pytest.raises(IndexError):
                held(ids)

    def test_batches_are_padded_with_0_whatever_the_models_padding_token(
        self, tiny_bert: TinyBert
    ) -> None:
        plain, held = (classifier(tiny_bert("sequence-classification")) for _ in range(2))
        for model in (plain, held):
            model.get_input_embeddings().padding_idx = 60
        rows = TokenRows.of([[5, 9, 5], [9]], [[0] * 3, [0]])
        with used_embeddings(held, np.array([5, 9])):
            for model in (plain, held):
                model.train()
                torch.manual_seed(3)
                batch = padded_batch(rows, np.arange(2))
                model(**batch, labels=torch.tensor([0, 2])).loss.backward()
            ours = held.get_input_embeddings().weight.grad
        theirs = plain.get_input_embeddings().weight.grad
        assert torch.equal(ours, theirs[[0, 5, 9, 60]])
        assert not ours[[0, 3]].any()

    def test_it_moves_with_its_model(self, tiny_bert: TinyBert) -> None:
        model = classifier(tiny_bert("sequence-classification"))
        names = model.state_dict().keys()
        with used_embeddings(model, np.array([5, 9])):
            model.train().to("meta")
            ids = torch.tensor([[5, 9]], device="meta")
            assert model(ids).logits.is_meta
            assert model.eval()(ids).logits.is_meta
            assert model.state_dict().keys() == names
            assert model.state_dict()[TABLE].is_meta
        assert model.get_input_embeddings().weight.is_meta

    def test_what_was_learnt_elsewhere_comes_back(self, tiny_bert: TinyBert) -> None:
        model = classifier(tiny_bert("sequence-classification"))
        table = model.get_input_embeddings()
        before = table.weight.detach().clone()
        with used_embeddings(model, np.array([5, 9])):
            model.double()  # in other memory, as on another device
            with torch.no_grad():
                model.get_input_embeddings().weight[1:] += 1
        moved = (table.weight != before).any(dim=1).nonzero()[:, 0]
        assert moved.tolist() == [5, 9]

    def test_a_hold_that_failed_holds_nothing(self, tiny_bert: TinyBert) -> None:
        model = classifier(tiny_bert("sequence-classification"))
        table = model.get_input_embeddings()
        with pytest.raises(IndexError), used_embeddings(model, np.array([5, len(table.weight)])):
            pass
        assert model.get_input_embeddings() is table

    @pytest.mark.parametrize("fails", [False, True])
    def test_afterwards_it_is_the_model_it_was_with_what_was_learnt(
        self, tiny_bert: TinyBert, fails: bool
    ) -> None:
        model = classifier(tiny_bert("sequence-classification"))
        table = model.get_input_embeddings()
        before = table.weight.detach().clone()
        with suppress(KeyboardInterrupt), used_embeddings(model, np.array([5, 9])):
            with torch.no_grad():
                model.get_input_embeddings().weight[1:] += 1
            if fails:
                raise KeyboardInterrupt
        assert model.get_input_embeddings() is table
        moved = (table.weight != before).any(dim=1).nonzero()[:, 0]
        assert moved.tolist() == [5, 9]
        assert dict(model.named_parameters())[TABLE] is table.weight

    def test_state_comes_back(self, tiny_bert: TinyBert) -> None:
        model, other = (classifier(tiny_bert("sequence-classification")) for _ in range(2))
        with torch.no_grad():
            other.get_input_embeddings().weight.add_(1)
        with used_embeddings(model, np.array([5, 9])):
            model.load_state_dict(other.state_dict())
            wanted = other.get_input_embeddings().weight
            assert torch.equal(model.get_input_embeddings().weight, wanted[[0, 5, 9]])
            assert torch.equal(model.state_dict()[TABLE], wanted)
            state = other.state_dict()
            with pytest.raises(RuntimeError, match=r"weight has shape \[3, 32\], not"):
                model.load_state_dict({**state, TABLE: state[TABLE][:3]})
            del state[TABLE]
            with pytest.raises(RuntimeError, match=f'Missing key.* "{TABLE}"'):
                model.load_state_dict(state)

    def test_frozen_ones_get_no_gradient(self, tiny_bert: TinyBert) -> None:
        model = classifier(tiny_bert("sequence-classification"))
        with frozen_embeddings(model):
            model(torch.tensor([[5, 9]]), labels=torch.tensor([1])).loss.backward()
            assert model.get_input_embeddings().weight.grad is None
            assert model.bert.embeddings.position_embeddings.weight.grad is not None
        assert model.get_input_embeddings().weight.requires_grad


class TestFinetune:
    def test_a_padding_token_that_is_not_the_first(self, data: Path, tmp_path: Path) -> None:
        model = make_tiny_bert(tmp_path / "model", model_type="modernbert")
        raw = json.loads((model / "config.json").read_text())
        raw["pad_token_id"] = raw["vocab_size"] - 1
        (model / "config.json").write_text(json.dumps(raw))
        options = {**QUICK, "weight_decay": 0.0, "max_grad_norm": 0.0}
        for name in ("train", "used"):
            finetune(model, tmp_path / name, data=data, embeddings=name, **options)
        assert_same_bits(tmp_path / "train", tmp_path / "used")

    def test_without_weight_decay_used_ones_train_to_the_same_bits(
        self, dense: Path, data: Path, tmp_path: Path
    ) -> None:
        # Nor with clipping: with rows left out a norm is summed in another order.
        options = {**QUICK, "weight_decay": 0.0, "max_grad_norm": 0.0}
        for name in ("train", "used"):
            finetune(dense, tmp_path / name, data=data, embeddings=name, **options)
        assert_same_bits(tmp_path / "train", tmp_path / "used")

    @pytest.mark.parametrize("embeddings", ["used", "frozen"])
    def test_weight_decay_leaves_the_others_alone(
        self, dense: Path, data: Path, tmp_path: Path, embeddings: str
    ) -> None:
        options = {**QUICK, "weight_decay": 0.1}
        finetune(dense, tmp_path / "out", data=data, embeddings=embeddings, **options)
        finetune(dense, tmp_path / "all", data=data, **options)
        before = table_of(dense)
        moved = {*np.flatnonzero((table_of(tmp_path / "out") != before).any(axis=1)).tolist()}
        everywhere = (table_of(tmp_path / "all") != before).any(axis=1)
        assert everywhere.mean() > 0.9
        assert moved == (used_ids(dense, data) | {0} if embeddings == "used" else set())

    @pytest.mark.parametrize("embeddings", ["used", "frozen"])
    def test_resumed_it_ends_as_if_nothing_had_happened(
        self, dense: Path, data: Path, tmp_path: Path, embeddings: str
    ) -> None:
        options = {**QUICK, "embeddings": embeddings}
        finetune(dense, tmp_path / "whole", data=data, **options)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            finetune(dense, out, data=data, progress=interrupt_at(11), **options)
        kept = tmp_path / "out.training" / "checkpoint-11"
        assert table_of(kept).shape == table_of(dense).shape  # transformers' own names and shapes
        assert classifier(kept).get_input_embeddings().weight.shape == table_of(dense).shape
        assert finetune(dense, out, data=data, resume=True, **options).resumed_from == 11
        assert_same_bits(out, tmp_path / "whole")

    def test_the_best_epoch_brings_its_table(
        self, dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Early stopping loads a checkpoint into the model while it is held."""
        tables: list[Any] = []

        def score(self: Any, predictor: Any, *_: Any) -> Scores:
            tables.append(predictor._model.state_dict()[TABLE].numpy().copy())
            value = [60.0, 70.0, 50.0, 40.0][min(len(tables), 4) - 1]
            return Scores({"accuracy": value, "f1": value})

        monkeypatch.setattr(PreparedSplit, "score", score)
        options = {**QUICK, "embeddings": "used", "epochs": 9, "early_stopping": 2}
        assert finetune(dense, tmp_path / "out", data=data, **options).steps == 4 * 8
        assert not np.array_equal(tables[0], tables[1])
        assert np.array_equal(table_of(tmp_path / "out"), tables[1])
