"""Logit, sigmoid or softmax: as transformers' pipeline and CrossEncoder read the same folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

from sentence_folders import IDENTITY, SIGMOID, folder_that_says
from sentences import SENTENCES
from sparsebert import evaluate, finetune, halve, load
from sparsebert.checkpoint import read_score_function
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.integrations import relevance
from tiny_tasks import write_rows

PAIRS = [(SENTENCES[0], text) for text in SENTENCES[1:6]]

# What a folder says: keys of config.json, and of config_sentence_transformers.json.
SAYINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "Identity, as since 4.0": ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}),
    "Identity, as before": ({"sbert_ce_default_activation_function": IDENTITY}, {}),
    "Identity, as since 6.0": ({}, {"activation_fn": IDENTITY}),
    "Sigmoid": ({"sentence_transformers": {"activation_fn": SIGMOID}}, {}),
    "two, the newer file first": (
        {"sentence_transformers": {"activation_fn": SIGMOID}},
        {"activation_fn": IDENTITY},
    ),
    "Sigmoid, and a problem type": (
        {"problem_type": "regression", "sentence_transformers": {"activation_fn": SIGMOID}},
        {},
    ),
    "Identity, and a problem type": (
        {"problem_type": "multi_label_classification"},
        {"activation_fn": IDENTITY},
    ),
    "null": ({"sbert_ce_default_activation_function": None}, {"activation_fn": None}),
}


@pytest.mark.parametrize("says", SAYINGS)
def test_one_label_is_scored_as_by_cross_encoder(tiny_bert, tmp_path, says):
    source = tiny_bert("sequence-classification", num_labels=1)
    folder = folder_that_says(source, tmp_path / "model", *SAYINGS[says])
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    model = load(folder)
    assert relevance(model, PAIRS) == pytest.approx(theirs, abs=1e-5)
    ranked = model.rerank(PAIRS[0][0], [text for _, text in PAIRS])
    assert [each["score"] for each in ranked] == pytest.approx(sorted(theirs)[::-1], abs=1e-5)
    if "problem_type" not in SAYINGS[says][0]:  # which only pipelines read
        found = [found[0]["score"] for found in model.classify(PAIRS)]
        assert found == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (1, None),
        (1, "regression"),
        (1, "multi_label_classification"),
        (3, None),
        (3, "regression"),
        (3, "single_label_classification"),
        (3, "multi_label_classification"),
    ],
)
def test_problem_types_are_scored_as_by_the_pipeline(tiny_bert, tmp_path, labels, problem):
    from transformers import pipeline

    source = tiny_bert("sequence-classification", num_labels=labels)
    config = {"problem_type": problem}
    if labels > 1:  # which CrossEncoder writes into every model of several labels
        config["sentence_transformers"] = {"activation_fn": IDENTITY}
    folder = folder_that_says(source, tmp_path / "model", config, {})
    theirs = pipeline("text-classification", str(folder), top_k=None)(list(SENTENCES[:4]))
    for mine, other in zip(load(folder).classify(SENTENCES[:4]), theirs):
        assert [each["label"] for each in mine] == [each["label"] for each in other]
        assert [each["score"] for each in mine] == pytest.approx(
            [each["score"] for each in other], abs=1e-5
        )


def test_a_named_sigmoid_holds_for_several_labels_too(tiny_bert, tmp_path):
    source = tiny_bert("sequence-classification", num_labels=3)
    config = {"sentence_transformers": {"activation_fn": SIGMOID}}
    folder = folder_that_says(source, tmp_path / "model", config, {})
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    for mine, other in zip(load(folder).classify(PAIRS), theirs):
        assert [each["score"] for each in mine] == pytest.approx(sorted(other)[::-1], abs=1e-5)


@pytest.mark.parametrize("named", ["torch.nn.modules.activation.Tanh", "mine.Identity", 5])
def test_other_activations_are_refused(tiny_bert, tmp_path, named):
    source = tiny_bert("sequence-classification", num_labels=1)
    folder = folder_that_says(source, tmp_path / "model", {}, {"activation_fn": named})
    with pytest.raises(CheckpointError, match="config_sentence_transformers.json: the activation"):
        load(folder)


def test_what_another_kind_of_model_says_of_itself_does_not_count(tiny_bert, tmp_path):
    source = tiny_bert("sequence-classification", num_labels=1)
    settings = {"activation_fn": IDENTITY, "model_type": "SentenceTransformer"}
    folder = folder_that_says(source, tmp_path / "model", {}, settings)
    assert load(folder).score_function == "sigmoid"


def test_a_default_prompt_stands_before_each_text(tiny_bert, tmp_path):
    source = tiny_bert("sequence-classification", num_labels=1)
    settings = {"prompts": {"ask": "ask: "}, "default_prompt_name": "ask"}
    folder = folder_that_says(source, tmp_path / "model", {}, settings)
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    model = load(folder)
    found = [each[0]["score"] for each in model.classify(PAIRS)]
    assert found == pytest.approx(theirs.predict(PAIRS), abs=1e-5)
    ranked = model.rerank(PAIRS[0][0], [text for _, text in PAIRS])
    expected = theirs.rank(PAIRS[0][0], [text for _, text in PAIRS])
    assert [each["index"] for each in ranked] == [each["corpus_id"] for each in expected]
    assert relevance(model, PAIRS) == pytest.approx(theirs.predict(PAIRS), abs=1e-5)
    rows = [{"sentence1": a, "sentence2": b, "score": len(b) / 90} for a, b in PAIRS]
    write_rows(tmp_path / "rows" / "validation.jsonl", rows)
    scored = evaluate(folder, task="custom", data=tmp_path / "rows")
    wanted = np.corrcoef(theirs.predict(PAIRS), [len(b) for _, b in PAIRS])
    assert scored.scores["validation"]["pearson"] == pytest.approx(100 * wanted[0, 1], abs=0.01)
    write_rows(tmp_path / "rows" / "train.jsonl", rows)
    with pytest.raises(TrainingError, match="is a CrossEncoder that puts 'ask: ' before each"):
        finetune(folder, tmp_path / "out", task="custom", data=tmp_path / "rows")
    with pytest.raises(CheckpointError, match="is a CrossEncoder that puts 'ask: ' before each"):
        halve(folder, tmp_path / "out", data=tmp_path / "rows")
    not_one = folder_that_says(source, tmp_path / "other", {}, {**settings, "model_type": "x"})
    assert load(not_one).score_prompt == ""


@pytest.mark.parametrize("named", [SIGMOID, IDENTITY])
def test_a_cross_encoder_is_evaluated_as_by_its_own_evaluator(tiny_bert, tmp_path, named):
    from safetensors.numpy import load_file, save_file
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderCorrelationEvaluator

    source = tiny_bert("sequence-classification", num_labels=1)
    folder = folder_that_says(source, tmp_path / "model", {}, {"activation_fn": named})
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] *= 10  # logits where the sigmoid is far from a straight line
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    numbers = [len(text) / 90 for _, text in PAIRS]
    evaluator = CrossEncoderCorrelationEvaluator(PAIRS, numbers, write_csv=False)
    theirs = evaluator(sentence_transformers.CrossEncoder(str(folder), device="cpu"))
    rows = [
        {"sentence1": a, "sentence2": b, "score": n}
        for (a, b), n in zip(PAIRS, numbers, strict=True)
    ]
    write_rows(tmp_path / "validation.jsonl", rows)
    found = evaluate(folder, task="custom", data=tmp_path / "validation.jsonl")
    wanted = {name: pytest.approx(100 * theirs[name], abs=0.01) for name in theirs}
    assert found.scores["validation"] == wanted


def test_an_encoder_has_no_scores(tiny_bert):
    model = load(tiny_bert())
    assert read_score_function(model.path, model.config) == model.score_function == "softmax"
