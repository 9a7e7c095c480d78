"""The lock in other people's trainings: wrapped models, other Trainers, adapters, plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import TrainingError
from sparsebert.pruning import prune
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from tiny_models import TinyBert

TEXTS = ["a b c d", "e f g h", "a c e g", "b d f h"]


@pytest.fixture(scope="module")
def classifier(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "sparse"
    prune(tiny_bert("sequence-classification"), folder)
    return folder


def masks_of(folder: Path) -> LockedMasks:
    return LockedMasks(read_masks(open_checkpoint(folder)))


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def assert_held(folder: Path, source: Path) -> None:
    """The folder has the weights, changed, and the masks of the sparse one it was made from."""
    found, before = open_checkpoint(folder), open_checkpoint(source)
    assert (folder / "masks.safetensors").is_file()
    theirs, mine = read_masks(found), read_masks(before)
    assert theirs.keys() == mine.keys()
    changed = 0
    for name, mask in mine.items():
        assert np.array_equal(theirs[name], mask)
        weight = found.weight(name)
        assert not weight[~mask].any()
        changed += int((weight != before.weight(name)).sum())
    assert changed > 0


def train_steps(model: Any, masks: LockedMasks, steps: int = 3) -> None:
    """A loop of one's own, with weight decay and momentum to bring zeros back."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        model(input_ids=ids, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
        masks.apply()
        optimizer.zero_grad()


class Around(torch.nn.Module):
    """A network of one's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.extra = torch.nn.ModuleList([model]), torch.nn.Linear(3, 3)

    def forward(self, **inputs: Any) -> Any:
        return self.encoder[0](**inputs)


@pytest.mark.parametrize("wrap", [Around, torch.nn.DataParallel, torch.compile, lambda each: each])
def test_a_loop_of_ones_own_around_whatever(classifier: Path, tmp_path: Path, wrap: Any) -> None:
    model, masks = loaded(classifier), masks_of(classifier)
    wrapped = wrap(model)
    masks.attach(wrapped)
    train_steps(model if wrap is torch.compile else wrapped, masks)  # compiling takes minutes
    masks.verify(wrapped)
    masks.detach()
    model.save_pretrained(tmp_path / "out")
    assert_held(tmp_path / "out", classifier)


def test_two_models_side_by_side_and_none_are_refused(classifier: Path) -> None:
    two = torch.nn.ModuleDict({"query": loaded(classifier), "passage": loaded(classifier)})
    with pytest.raises(TrainingError, match=r"ModuleDict contains 2 \(query, passage\): pass"):
        masks_of(classifier).attach(two)
    with pytest.raises(TrainingError, match="Linear contains none"):
        masks_of(classifier).attach(torch.nn.Linear(2, 2))


def test_a_copied_model_saves_itself(classifier: Path, tmp_path: Path) -> None:
    import copy

    model, masks = loaded(classifier), masks_of(classifier)
    masks.attach(model)
    masks.detach()
    other = copy.deepcopy(model)
    train_steps(other, masks_of(classifier), steps=0)
    with torch.no_grad():
        other.classifier.bias.fill_(7.0)
    other.save_pretrained(tmp_path / "other")
    model.save_pretrained(tmp_path / "model")
    biases = [open_checkpoint(tmp_path / n).weight("classifier.bias") for n in ("other", "model")]
    assert biases[0].tolist() == [7.0] * 3
    assert biases[1].tolist() != biases[0].tolist()


def test_transformers_trainer_saves_them_with_the_model(classifier: Path, tmp_path: Path) -> None:
    ids = torch.randint(5, 40, (8, 9))
    rows = [{"input_ids": row, "labels": place % 3} for place, row in enumerate(ids)]
    arguments = transformers.TrainingArguments(
        tmp_path / "run", num_train_epochs=1, report_to="none", use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(
        model=loaded(classifier),
        args=arguments,
        train_dataset=rows,
        callbacks=[LockedMasksCallback(masks_of(classifier))],
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    assert_held(tmp_path / "out", classifier)


def test_sentence_transformers_trainer(
    sparse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("sentence_transformers")
    losses = pytest.importorskip("sentence_transformers.losses")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    model = library.SentenceTransformer(str(sparse), device="cpu")
    rows = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "score": [0.1, 0.9, 0.9, 0.1]}
    arguments = library.SentenceTransformerTrainingArguments(
        tmp_path / "run",
        num_train_epochs=2,
        learning_rate=1e-2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="epoch",
    )
    trainer = library.SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(rows),
        loss=losses.CosineSimilarityLoss(model),
        callbacks=[LockedMasksCallback(masks_of(sparse))],
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "trainer"))
    model.save_pretrained(str(tmp_path / "model"))
    for folder in (tmp_path / "trainer", tmp_path / "model", *(tmp_path / "run").glob("check*")):
        assert_held(folder, sparse)


def test_adapters_are_merged_under_the_masks(classifier: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value", "dense"], lora_dropout=0.0
    )
    masks = masks_of(classifier)
    model = peft.get_peft_model(loaded(classifier), settings)
    masks.attach(model)
    train_steps(model, masks)
    masks.verify(model)
    merged = model.merge_and_unload()
    with pytest.raises(TrainingError, match="pruned weights are no longer zero"):
        masks.verify(merged)  # an adapter is dense
    masks.attach(merged)
    masks.verify(merged)
    merged.save_pretrained(tmp_path / "out")
    assert_held(tmp_path / "out", classifier)
