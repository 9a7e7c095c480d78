"""A fine-tuned model is scored, served and calibrated at the length that it was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from sentence_folders import with_modules
from sparsebert.checkpoint import open_checkpoint
from sparsebert.errors import DataError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.seeds import evaluate_seeds, save_evaluation
from sparsebert.inference import load
from sparsebert.packing import pack
from sparsebert.pruning.calibration_set import read_calibration_set
from sparsebert.tasks.table import get_task
from sparsebert.training import finetune
from sparsebert.training.seeds import finetune_seeds
from tiny_tasks import write_rows, write_squad

pytestmark = pytest.mark.usefixtures("short_garbage_collections")

LENGTH = 14
QUICK: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long texts with a number for a label, so that a score tells of every token that is read."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 24)):
        rows = [
            {
                "sentence1": " ".join(random.choice(list("abcdefgh"), 24)),
                "sentence2": " ".join(random.choice(list("abcdefgh"), 24)),
                "label": float(random.random() * 5),
            }
            for _ in range(count)
        ]
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def trained(sparse: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "task"
    finetune(sparse, folder, task="stsb", data=pairs, max_length=LENGTH, **QUICK)
    return folder


def scores(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / "training.json").read_text())[
        "scores"
    ]
    return found


def test_the_score_of_training_is_that_of_evaluate_however_it_is_stored(
    trained: Path, pairs: Path, tmp_path: Path
) -> None:
    expected = scores(trained)["validation"]
    pack(trained, tmp_path / "packed", dtype="fp32")
    for model, engine in ((trained, "torch"), (trained, "auto"), (tmp_path / "packed", "auto")):
        found = evaluate(model, task="stsb", data=pairs, engine=engine).scores["validation"]
        assert found == pytest.approx(expected, abs=1e-3)
    longer = evaluate(trained, task="stsb", data=pairs, max_length=60).scores["validation"]
    assert longer["pearson"] != pytest.approx(expected["pearson"], abs=1e-2)


def test_saved_scores_and_those_of_seeds_too(sparse: Path, pairs: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_length": LENGTH}
    told = finetune_seeds(
        sparse, tmp_path / "seeds", task="stsb", data=pairs, seeds=(1, 2), **options
    )
    found = evaluate_seeds(tmp_path / "seeds", task="stsb", data=pairs)
    for seed in (1, 2):
        values = told.seeds[seed]["validation"]
        assert found.seeds[seed]["validation"] == pytest.approx(values, abs=1e-3)
    one = tmp_path / "seeds" / "seed-1"
    save_evaluation(evaluate(one, task="stsb", data=pairs))
    kept = json.loads((one / "evaluation.json").read_text())["scores"]
    assert kept["validation"] == pytest.approx(scores(one)["validation"], abs=1e-3)


def test_what_serves_reads_as_much(trained: Path, tmp_path: Path) -> None:
    pack(trained, tmp_path / "packed", dtype="int8")
    for folder in (trained, tmp_path / "packed"):
        assert load(folder).max_length == LENGTH
    # transformers' pipelines and CrossEncoder cut at the tokenizer's own limit.
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    assert tokenizer.model_max_length == LENGTH
    pipeline = transformers.pipeline("text-classification", model=str(trained), truncation=True)
    text = "a b c d e f g h " * 4
    theirs = pipeline(text, function_to_apply="none")[0]["score"]
    with pytest.warns(UserWarning, match="14 tokens"):
        ours = load(trained).logits([text])[0, 0]
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_seq_length": 30, "do_lower_case": False},
        {"processor_kwargs": {"model_max_length": 30}},
        {"processing_kwargs": {"text": {"max_length": 30}}},
    ],
    ids=["max_seq_length", "processor_kwargs", "processing_kwargs"],
)
def test_a_sentence_transformers_folder_says_so_in_its_own_settings(
    dense: Path, pairs: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = with_modules(dense, tmp_path / "st", mode="mean", normalize=False)
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    assert load(folder).max_length == 30
    finetune(folder, tmp_path / "task", task="stsb", data=pairs, max_length=LENGTH, **QUICK)
    assert load(tmp_path / "task").max_length == LENGTH
    models = pytest.importorskip("sentence_transformers")
    assert models.SentenceTransformer(str(tmp_path / "task")).max_seq_length == LENGTH


def test_windows_over_long_contexts_are_those_of_training(tiny_bert: Any, tmp_path: Path) -> None:
    data = write_squad(tmp_path / "data")
    encoder = tiny_bert("encoder", max_position_embeddings=600)
    for length in (20, 500):  # the usual is 384
        out = tmp_path / str(length)
        finetune(encoder, out, task="squad", data=data, max_length=length, **QUICK)
        model = load(out)
        cut = Mock(side_effect=model.tokenizer.windows)
        with patch.object(model.tokenizer, "windows", cut):
            model.answer("which ?", "a b c 7")
        assert cut.call_args.kwargs["max_length"] == length
        found = evaluate(out, task="squad", data=data).scores
        assert found["validation"] == pytest.approx(scores(out)["validation"])


def test_calibration_reads_what_was_trained_or_else_what_the_task_trains(
    dense: Path, trained: Path, pairs: Path
) -> None:
    task = get_task("stsb")
    rows = read_calibration_set(open_checkpoint(trained), pairs, count=8, task=task)
    assert max(rows.lengths) == LENGTH
    rows = read_calibration_set(open_checkpoint(dense), pairs, count=8, task=task)
    assert max(rows.lengths) == 26


def test_a_length_beyond_the_models_positions_is_refused(
    dense: Path, trained: Path, pairs: Path, tmp_path: Path
) -> None:
    why = "max_length 65 is more than the 64 tokens for which .* has positions: use at most 64"
    with pytest.raises(DataError, match=why):
        finetune(dense, tmp_path / "out", task="stsb", data=pairs, max_length=65)
    for more in ({}, {"engine": "torch"}):
        for asked in ({}, {"zero_shot": True}):
            with pytest.raises(DataError, match=why):
                evaluate(trained, task="stsb", data=pairs, max_length=65, **more, **asked)
    assert not any(tmp_path.iterdir())
