"""Fine-tuning in int8 for every family: what the packed folder gives, in padded batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from family_configs import DISTINCT
from short_runs import assert_zeros_held
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.families import Head
from sparsebert.evaluation import evaluate
from sparsebert.inference import load
from sparsebert.packing import pack
from sparsebert.pruning import prune
from sparsebert.torch_models import model_inputs
from sparsebert.training import finetune
from sparsebert.training import int8_functions as functions
from sparsebert.training.quantization_aware import int8_arithmetic
from tiny_models import TinyBert
from tiny_tasks import write_classification

pytestmark = pytest.mark.usefixtures("short_garbage_collections")

TYPES = [name for name in DISTINCT if name != "bert"]
STEP = 1 / 255
LENGTHS = [5, 17, 40, 1, 9, 33] * 4


def relative(found: Any, wanted: Any) -> float:
    """Root mean square of the difference, of that of what was wanted."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))


HEADS = [(name, "sequence-classification") for name in TYPES]
HEADS += [(name, "question-answering") for name in ("distilbert", "modernbert")]


@pytest.mark.parametrize(("model_type", "head"), HEADS)
def test_logits_are_those_of_the_packed_folder(
    tiny_bert: TinyBert, tmp_path: Path, model_type: str, head: str
) -> None:
    local = {"local_attention": 8, "num_hidden_layers": 3} if model_type == "modernbert" else {}
    prune(tiny_bert(head, model_type=model_type, **local), tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="int8")
    family = open_checkpoint(tmp_path / "sparse").config.family
    random = np.random.default_rng(1)
    rows = [random.integers(5, 200, length) for length in LENGTHS]
    engine = load(tmp_path / "packed", threads=1).forward(rows)
    wanted = np.concatenate([np.atleast_2d(each) for each in engine])
    batch = {
        "input_ids": torch.full(
            (len(rows), max(LENGTHS)), 1 if family.positions == "counted" else 0
        ),
        "token_type_ids": torch.zeros((len(rows), max(LENGTHS)), dtype=torch.long),
        "attention_mask": torch.zeros((len(rows), max(LENGTHS)), dtype=torch.long),
    }
    for place, ids in enumerate(rows):
        batch["input_ids"][place, : len(ids)] = torch.from_numpy(ids)
        batch["attention_mask"][place, : len(ids)] = 1
    model = getattr(transformers, family.architecture(Head(head))).from_pretrained(
        tmp_path / "sparse"
    )
    model.eval()

    def logits() -> np.ndarray:
        with torch.inference_mode():
            output = model(**model_inputs(model, batch))
        if head == "sequence-classification":
            return np.asarray(output.logits)
        spans = torch.stack((output.start_logits, output.end_logits), -1).numpy()
        return np.concatenate([each[:n] for each, n in zip(spans, LENGTHS, strict=True)])

    before = logits()
    with int8_arithmetic(model):
        in_int8 = logits()
    found, floats = relative(in_int8, wanted), relative(before, wanted)
    # Where no value is rounded to the next integer, only the order of float sums differs.
    assert np.median(np.abs(in_int8 - wanted)) < 1e-6 * np.abs(wanted).max()
    assert found < STEP
    assert found < floats / 2
    assert np.array_equal(logits(), before)


@pytest.mark.parametrize("model_type", ["roberta", "mpnet", "modernbert"])
def test_the_score_is_the_served_one_and_zeros_hold(
    tiny_bert: TinyBert, tmp_path: Path, model_type: str
) -> None:
    data = write_classification(tmp_path / "data", train=40, validation=24)
    sparse, out = tmp_path / "sparse", tmp_path / "out"
    prune(tiny_bert("encoder", model_type=model_type), sparse)
    result = finetune(
        sparse, out, task="custom", data=data, epochs=2, learning_rate=1e-3, batch_size=8,
        quantize="int8", embeddings="used",
    )  # fmt: skip
    assert_zeros_held(out, sparse)
    pack(out, tmp_path / "packed", dtype="int8")
    served = evaluate(tmp_path / "packed", task="custom", data=data, engine="sparsebert")
    assert served.scores["validation"] == pytest.approx(result.scores["validation"], abs=5)


@pytest.mark.parametrize("rows_of_bias", [1, 5])
def test_a_bias_of_attention_is_added_and_learns(rows_of_bias: int) -> None:
    """Beside plain floats with the rounding passed through, in several chunks of rows."""
    torch.manual_seed(0)
    shape = (5, 4, 300, 8)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    bias = torch.randn(rows_of_bias, 4, 300, 300, requires_grad=True)
    found = functions.Int8Attention.apply(query, key, value, None, bias, 0.0, 0)
    given = torch.randn_like(found)
    gradients = torch.autograd.grad(found, (query, key, value, bias), given)
    doubles = [each.detach().double().requires_grad_() for each in (query, key, value, bias)]
    q, k, v, b = doubles
    scores = q @ k.transpose(-1, -2) / np.sqrt(shape[-1]) + b
    wanted = scores.softmax(-1) @ v
    exact = torch.autograd.grad(wanted, doubles, given.double())
    assert relative(found.detach(), wanted.detach()) < 0.02
    for mine, theirs in zip(gradients, exact, strict=True):
        assert relative(mine, theirs) < 0.03
