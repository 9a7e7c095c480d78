"""Fine-tuning every family of encoders on tiny models: zeros, heads, teachers, upstream pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from family_configs import DISTINCT
from sentences import SENTENCES
from short_runs import assert_zeros_held, weights
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.families import FAMILIES, Head
from sparsebert.errors import TrainingError
from sparsebert.evaluation import evaluate
from sparsebert.pruning import prune
from sparsebert.pruning.inspection import inspect
from sparsebert.torch_models import canonical_parameters
from sparsebert.training import finetune, prune_upstream
from sparsebert.training.distillation.losses import last_projections
from sparsebert.training.task_model import build_model
from sparsebert.training.upstream.objective import predicted_tokens
from tiny_models import TinyBert
from tiny_tasks import write_classification, write_regression, write_squad

pytestmark = pytest.mark.usefixtures("short_garbage_collections")

TYPES = [name for name in DISTINCT if name != "bert"]
QUICK: dict[str, Any] = {
    "epochs": 1,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "precision": "fp32",
}
WRITERS = {"custom": write_classification, "stsb": write_regression, "squad": write_squad}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {task: write(folder / task, train=20, validation=6) for task, write in WRITERS.items()}


@pytest.fixture(scope="module")
def sparse(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sparse encoder of a family."""
    made: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = tmp_path_factory.mktemp(model_type) / "sparse"
            prune(tiny_bert("encoder", model_type=model_type), made[model_type])
        return made[model_type]

    return make


HEADS = [
    (name, task)
    for name in TYPES
    for task, head in (("stsb", Head.SEQUENCE), ("squad", Head.QUESTION))
    if head in FAMILIES[name].heads
]


@pytest.mark.parametrize(("model_type", "task"), HEADS)  # a teacher teaches classes below
def test_zeros_hold_under_every_head(
    sparse: Any, data: dict[str, Path], tmp_path: Path, model_type: str, task: str
) -> None:
    """And both torch and what anyone loads from the folder give the score that was recorded."""
    source, out = sparse(model_type), tmp_path / "task"
    result = finetune(source, out, task=task, data=data[task], **QUICK)
    assert_zeros_held(out, source)
    checkpoint, before = open_checkpoint(out), open_checkpoint(source)
    head = Head.QUESTION if task == "squad" else Head.SEQUENCE
    assert checkpoint.config.raw["architectures"] == [FAMILIES[model_type].architecture(head)]
    for name in read_masks(before):  # and the rest did train
        assert not np.array_equal(checkpoint.weight(name), before.weight(name)), name
    again = evaluate(out, task=task, data=data[task], engine="torch")
    for split, scores in result.scores.items():  # another attention rounds otherwise
        assert again.scores[split] == pytest.approx(scores, abs=1e-3)
    _, loading = getattr(transformers, FAMILIES[model_type].architecture(head)).from_pretrained(
        out, output_loading_info=True
    )
    assert not any(loading.values())


@pytest.mark.parametrize("model_type", TYPES)
def test_a_dense_model_is_pruned_while_a_teacher_teaches_it(
    tiny_bert: TinyBert, data: dict[str, Path], tmp_path: Path, model_type: str
) -> None:
    """Gradual pruning, hidden states and attention relations, and only used embeddings."""
    dense = tiny_bert("encoder", model_type=model_type)
    finetune(dense, tmp_path / "teacher", task="custom", data=data["custom"], **QUICK)
    out = tmp_path / "student"
    settings = {**QUICK, "epochs": 4, "dropout": 0.0}
    finetune(
        dense,
        out,
        task="custom",
        data=data["custom"],
        teacher=str(tmp_path / "teacher"),
        hidden_weight=1.0,
        attention_weight=1.0,
        embeddings="used",
        method="snip-momentum" if model_type in ("electra", "modernbert") else "gradual",
        **settings,
    )
    found = inspect(out)
    assert found.whole
    assert found.pattern == "1:2"
    student, before = open_checkpoint(out), open_checkpoint(dense)
    assert sorted(read_masks(student)) == [
        layer.name for layer in sorted(before.linear_layers(), key=lambda layer: layer.name)
    ]
    words = "embeddings.word_embeddings.weight"
    moved = (student.weight(words) != before.weight(words)).any(axis=1)
    assert 0 < moved.sum() < len(moved) / 2


UPSTREAM = [(name, "masked-lm") for name in TYPES]
UPSTREAM += [(name, "encoder") for name in ("distilbert", "modernbert")]


@pytest.mark.parametrize(("model_type", "head"), UPSTREAM)
def test_upstream_pruning(tiny_bert: TinyBert, tmp_path: Path, model_type: str, head: str) -> None:
    folder = tiny_bert(head, model_type=model_type)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:24]), encoding="utf-8")
    out = tmp_path / "sparse"
    prune_upstream(folder, out, corpus=texts, method="magnitude", max_length=24, **QUICK)
    dense, tensors = weights(folder), weights(out)
    assert tensors.keys() == dense.keys()
    checkpoint = open_checkpoint(out)
    assert inspect(out).whole
    masks = read_masks(checkpoint)
    assert sorted(masks) == sorted(layer.name for layer in open_checkpoint(folder).linear_layers())
    for name, mask in masks.items():
        stored = checkpoint.stored_name[name]
        assert not tensors[stored][~mask].view(np.int32).any(), name
        assert not np.array_equal(tensors[stored][mask], dense[stored][mask]), name
    words = checkpoint.stored_name["embeddings.word_embeddings.weight"]
    assert not np.array_equal(tensors[words], dense[words])


@pytest.mark.parametrize("model_type", DISTINCT)
def test_masked_tokens_are_predicted_as_transformers_predicts_them(
    tiny_bert: TinyBert, model_type: str
) -> None:
    folder = tiny_bert("masked-lm", model_type=model_type)
    checkpoint = open_checkpoint(folder)
    mine = build_model(
        checkpoint, checkpoint.config.raw, keep_head=True, dropout=0.0, seed=3
    ).eval()
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 9, 7, 30, 6, 8]])
    with torch.inference_mode():
        wanted = theirs(input_ids=ids)
        states = mine.base_model(input_ids=ids).last_hidden_state[0, 2:4]
        assert torch.allclose(predicted_tokens(mine, states), wanted.logits[0, 2:4], atol=1e-5)
    named, known = canonical_parameters(mine), canonical_parameters(theirs)
    assert named.keys() == known.keys()
    assert all(torch.equal(named[name], known[name]) for name in known)


@pytest.mark.parametrize("model_type", DISTINCT)
def test_relations_are_of_the_last_layers_queries_keys_and_values(
    tiny_bert: TinyBert, model_type: str
) -> None:
    folder = tiny_bert("encoder", model_type=model_type)
    checkpoint = open_checkpoint(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 9, 7, 30, 6, 8], [11, 3, 2, 8, 6, 5]])
    number = checkpoint.config.stored_layers - 1
    last = f"encoder.layer.{number}.attention"
    inputs: list[Any] = []
    module = model.get_submodule(checkpoint.config.family.spelled(f"encoder.layer.{number}.x")[:-2])
    module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.inference_mode(), last_projections(model) as found:
        model(input_ids=ids)
    assert len(inputs) == checkpoint.config.layer_order.count(number)
    x = inputs[-1]
    if checkpoint.config.family.norm_first:
        norm = torch.from_numpy(np.array(checkpoint.weight(f"{last}.LayerNorm.weight")))
        x = torch.nn.functional.layer_norm(x, norm.shape, norm, eps=1e-5)
    names = [name for name in checkpoint.used if name.startswith(f"{last}.self.")]
    rows = torch.cat([torch.tensor(checkpoint.weight(n)) for n in names if n.endswith("weight")])
    wanted = x @ rows.T
    if any(name.endswith("bias") for name in names):
        wanted += torch.cat([torch.tensor(checkpoint.weight(n)) for n in names if "bias" in n])
    assert torch.allclose(torch.cat(found, dim=-1), wanted, atol=1e-5)


def test_a_head_that_transformers_lacks_is_refused(
    tiny_bert: TinyBert, data: dict[str, Path], tmp_path: Path
) -> None:
    dense = tiny_bert("encoder", model_type="nomic_bert")
    with pytest.raises(TrainingError, match="is a NomicBERT, for which .* no question-answering"):
        finetune(dense, tmp_path / "out", task="squad", data=data["squad"], **QUICK)
