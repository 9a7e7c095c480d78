"""Scoring a folder, by either engine, against what transformers itself says row by row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from sparsebert.errors import CheckpointError, DataError, EngineError, MissingExtraError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.scored_rows import trained_options
from sparsebert.packing import pack
from sparsebert.pruning import prune
from sparsebert.tasks.data_options import DataOptions
from tiny_models import TinyBert
from tiny_tasks import letters, write_classification, write_regression, write_rows, write_squad

ENGINES = ("torch", "sparsebert")


def transformers_logits(folder: Path, texts: list[Any], length: int = 128) -> Any:
    """One row at a time, as a user of transformers would: ``[rows, labels]``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            pair = text if isinstance(text, tuple) else (text,)
            batch = tokenizer(*pair, truncation=True, max_length=length, return_tensors="pt")
            rows.append(model(**batch).logits[0].numpy())
    return np.stack(rows)


def named(folder: Path, target: Path, labels: tuple[str, ...], **settings: Any) -> Path:
    """A copy of a folder whose head has these label names."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["id2label"] = {str(place): name for place, name in enumerate(labels)}
    config["label2id"] = {name: place for place, name in enumerate(labels)}
    (target / "config.json").write_text(json.dumps({**config, **settings}))
    return target


@pytest.fixture(scope="module")
def mnli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("mnli")
    for split in ("matched", "mismatched"):
        rows = (
            {
                "premise": letters(random, "x"),
                "hypothesis": letters(random, "y"),
                "label": int(random.integers(3)),
            }
            for _ in range(40)
        )
        write_rows(folder / f"validation_{split}.jsonl", rows)
    return folder


def accuracy(folder: Path, file: Path, order: list[int]) -> float:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    logits = transformers_logits(folder, [(row["premise"], row["hypothesis"]) for row in rows])
    predicted = np.argmax(logits[:, order], axis=1)
    return 100 * float(np.mean(predicted == [row["label"] for row in rows]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2]),
        (("entailment", "neutral", "contradiction"), [0, 1, 2]),
        (("CONTRADICTION", "ENTAILMENT", "NEUTRAL"), [1, 2, 0]),
    ],
)
def test_mnli_both_splits_with_labels_by_name(
    tiny_bert: TinyBert,
    mnli: Path,
    tmp_path: Path,
    engine: str,
    labels: tuple[str, ...],
    order: list[int],
) -> None:
    model = named(tiny_bert("sequence-classification"), tmp_path / "model", labels)
    found = evaluate(model, task="mnli", data=mnli, engine=engine, threads=1)
    expected = {
        split: {"accuracy": pytest.approx(accuracy(model, mnli / f"{split}.jsonl", order))}
        for split in ("validation_matched", "validation_mismatched")
    }
    assert found.scores == expected
    assert found.rows == {"validation_matched": 40, "validation_mismatched": 40}
    assert (found.engine, found.task, found.threads) == (engine, "mnli", 1)
    matched, mismatched = (split["accuracy"] for split in found.scores.values())
    assert found.row() == f"MNLI-m/mm (accuracy): {matched:.1f}/{mismatched:.1f}"
    assert json.loads(json.dumps(found.as_dict()))["row"] == found.row()


def test_other_label_names_are_matched_by_position_and_told(
    tiny_bert: TinyBert, mnli: Path, tmp_path: Path
) -> None:
    model = named(tiny_bert("sequence-classification"), tmp_path / "model", ("yes", "no", "maybe"))
    found = evaluate(model, task="mnli", data=mnli)
    expected = accuracy(model, mnli / "validation_matched.jsonl", [0, 1, 2])
    assert found.scores["validation_matched"]["accuracy"] == pytest.approx(expected)
    assert "differ from those of mnli" in found.notes[0]


def test_sparse_and_packed_folders_score_the_same(tiny_bert: TinyBert, tmp_path: Path) -> None:
    dense = tiny_bert("sequence-classification", num_labels=1, problem_type="regression")
    data = write_regression(tmp_path / "data", validation=70)
    prune(dense, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed")
    scores = [
        evaluate(tmp_path / folder, task="stsb", data=data, engine=engine, batch_size=batch).scores
        for folder, engine, batch in (
            ("sparse", "torch", 32),
            ("sparse", "torch", 7),
            ("sparse", "auto", 32),
            ("packed", "sparsebert", 5),
        )
    ]
    for other in scores[1:]:
        assert other["validation"] == pytest.approx(scores[0]["validation"], abs=0.05)
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    guess = transformers_logits(tmp_path / "sparse", pairs)[:, 0]
    pearson = np.corrcoef(guess, [row["label"] for row in rows])[0, 1]
    assert scores[0]["validation"]["pearson"] == pytest.approx(100 * pearson, abs=0.01)


def test_squad_by_both_engines(tiny_bert: TinyBert, tmp_path: Path) -> None:
    model = tiny_bert("question-answering")
    data = write_squad(tmp_path / "data", validation=30)
    found = [evaluate(model, task="squad", data=data, engine=engine) for engine in ENGINES]
    assert list(found[0].scores["validation"]) == ["exact_match", "f1"]
    assert found[0].scores == found[1].scores
    short = evaluate(model, task="squad", data=data, max_length=16)  # several windows a question
    assert short.rows == {"validation": 30}


def test_a_users_own_task_goes_by_the_models_labels(tiny_bert: TinyBert, tmp_path: Path) -> None:
    data = write_classification(tmp_path / "data")
    bert = tiny_bert("sequence-classification", num_labels=2)
    model = named(bert, tmp_path / "model", ("yes", "no"))
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    predicted = np.argmax(transformers_logits(model, [row["text"] for row in rows]), axis=1)
    expected = 100 * np.mean([row["label"] for row in rows] == np.array(["yes", "no"])[predicted])
    for place in (data, data / "validation.jsonl"):
        found = evaluate(model, task="custom", data=place)
        assert found.scores["validation"]["accuracy"] == pytest.approx(expected)
    write_rows(data / "validation.jsonl", [{"text": "a", "label": "maybe"}])
    with pytest.raises(DataError, match="row 1: 'maybe' is not one of the labels"):
        evaluate(model, task="custom", data=data)


def test_max_rows_and_long_texts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    model = tiny_bert("sequence-classification", num_labels=2)
    rows = [{"sentence": "a b c " * 100, "label": row % 2} for row in range(50)]
    write_rows(tmp_path / "validation.jsonl", rows)
    found = evaluate(model, task="sst2", data=tmp_path, max_rows=10)
    assert found.rows == {"validation": 10}
    assert "every row got the same label" in found.notes[0]


def test_torch_gets_its_threads_back(tiny_bert: TinyBert, mnli: Path) -> None:
    before = torch.get_num_threads()
    evaluate(
        tiny_bert("sequence-classification"), task="mnli", data=mnli, engine="torch", threads=2
    )
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        ({"label_columns": "a,b"}, {"label_column": "c"}, {"label_column": "c"}),
        ({"label_column": "c"}, {"label_columns": "a,b"}, {"label_columns": "a,b"}),
        ({"positive_label": "a", "label_names": "a,b"}, {"regression": True}, {"regression": True}),
        ({"text_column": "t", "pair_column": "p"}, {"text_column": "s"}, {"text_column": "s"}),
        ({"threshold": 1, "label_column": "c"}, {}, {"threshold": 1, "label_column": "c"}),
    ],
)
def test_what_is_given_takes_the_place_of_the_trainings(
    recorded: Any, given: Any, expected: Any, tmp_path: Path
) -> None:
    record = {"arguments": {"task": "custom", **recorded}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    found = trained_options(tmp_path, "custom", DataOptions(**given))
    assert found == DataOptions(**expected)


class TestErrors:
    def test_a_model_without_the_tasks_head(self, tiny_bert: TinyBert, mnli: Path) -> None:
        for engine in ENGINES:
            with pytest.raises(CheckpointError, match=r"has no .*sequence-classification.* head"):
                evaluate(tiny_bert("encoder"), task="mnli", data=mnli, engine=engine)
        with pytest.raises(CheckpointError, match="head is: question-answering"):
            evaluate(tiny_bert("question-answering"), task="mnli", data=mnli)

    def test_another_number_of_labels(self, tiny_bert: TinyBert, mnli: Path) -> None:
        model = tiny_bert("sequence-classification", num_labels=2)
        with pytest.raises(DataError, match="mnli has 3 labels .* has 2"):
            evaluate(model, task="mnli", data=mnli)

    def test_a_regression_is_no_classification(self, tiny_bert: TinyBert, mnli: Path) -> None:
        number = tiny_bert("sequence-classification", num_labels=1)
        with pytest.raises(CheckpointError, match="predicts a number, but mnli needs a class"):
            evaluate(number, task="mnli", data=mnli)
        with pytest.raises(
            CheckpointError, match="predicts one of 3 classes, but stsb needs a number"
        ):
            evaluate(tiny_bert("sequence-classification"), task="stsb", data=mnli)

    def test_torch_cannot_read_packed_folders(
        self, tiny_bert: TinyBert, mnli: Path, tmp_path: Path
    ) -> None:
        pack(tiny_bert("sequence-classification"), tmp_path / "packed")
        with pytest.raises(EngineError, match="is packed, which torch cannot read"):
            evaluate(tmp_path / "packed", task="mnli", data=mnli, engine="torch")

    def test_wrong_options(self, tiny_bert: TinyBert, mnli: Path, tmp_path: Path) -> None:
        model = tiny_bert("sequence-classification")
        with pytest.raises(EngineError, match="'onnx' is not an engine: choose auto, sparsebert"):
            evaluate(model, task="mnli", data=mnli, engine="onnx")
        with pytest.raises(DataError, match="batch_size must be at least 1"):
            evaluate(model, task="mnli", data=mnli, batch_size=0)
        with pytest.raises(DataError, match="no file for the split validation_matched"):
            evaluate(model, task="mnli", data=tmp_path)

    def test_a_folder_without_tokenizer(
        self, tiny_bert: TinyBert, mnli: Path, tmp_path: Path
    ) -> None:
        bert = tiny_bert("sequence-classification")
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((bert / name).read_bytes())
        with pytest.raises(CheckpointError, match="has no tokenizer: it needs tokenizer.json"):
            evaluate(tmp_path, task="mnli", data=mnli)

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("zero_shot", [False, True])
    def test_a_tokenizer_of_another_model(
        self, tiny_bert: TinyBert, tmp_path: Path, engine: str, zero_shot: bool
    ) -> None:
        model = tmp_path / "model"
        kind = {"num_labels": 1, "problem_type": "regression"}
        shutil.copytree(tiny_bert("sequence-classification", **kind), model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        size = len(tokenizer)
        tokenizer.add_tokens("extra")
        tokenizer.save_pretrained(model)
        row = {"sentence1": "an extra word", "sentence2": "a word", "label": 1.0}
        data = write_rows(tmp_path / "data" / "validation.jsonl", [row] * 2).parent
        with pytest.raises(CheckpointError, match=f"gives token id {size}, but .* only has {size}"):
            evaluate(model, task="stsb", data=data, engine=engine, zero_shot=zero_shot)

    def test_a_missing_library_names_the_extra(
        self, tiny_bert: TinyBert, mnli: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
        with pytest.raises(MissingExtraError, match=r"evaluation needs the \[train\] extra"):
            evaluate(tiny_bert("sequence-classification"), task="mnli", data=mnli)
