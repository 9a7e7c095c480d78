"""Zero-shot similarity against embeddings that plain transformers computes text by text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from scipy.stats import pearsonr, spearmanr

from sparsebert.errors import CheckpointError, DataError, EngineError
from sparsebert.evaluation import evaluate
from sparsebert.packing import pack
from sparsebert.pruning import prune
from tiny_models import TinyBert
from tiny_tasks import write_regression, write_rows

ENGINES = ("torch", "sparsebert")


def embedding(hidden: Any, mode: str) -> Any:
    """One text's token vectors ``[tokens, hidden]`` to its embedding, as the library pools."""
    return {
        "mean": hidden.mean(0),
        "cls": hidden[0],
        "max": hidden.max(0).values,
        "mean_sqrt_len_tokens": hidden.sum(0) / len(hidden) ** 0.5,
    }[mode]


def expected_scores(folder: Path, file: Path, mode: str = "mean") -> dict[str, float]:
    """As sentence-transformers' evaluator has them, without batches or padding.

    The cosines are rounded, for those of equal texts tie: the others are some 1e-5 apart.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    cosines = []
    with torch.inference_mode():
        for row in rows:
            left, right = (
                embedding(model(**tokenizer(row[name], return_tensors="pt")).last_hidden_state[0],
                          mode)
                for name in ("sentence1", "sentence2")
            )  # fmt: skip
            cosines.append(torch.nn.functional.cosine_similarity(left, right, dim=0).item())
    labels = [row["label"] for row in rows]
    return {
        "pearson": 100 * pearsonr(cosines, labels).statistic,
        "spearman": 100 * spearmanr(np.round(cosines, 6), labels).statistic,
    }


def with_pooling(folder: Path, target: Path, mode: str) -> Path:
    """A copy of a folder with sentence-transformers' modules in it."""
    (target / "1_Pooling").mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    modules = [
        {"idx": number, "name": f"{number}", "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode": mode})
    )
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_regression(tmp_path_factory.mktemp("stsb"), train=30, validation=41)


@pytest.mark.parametrize("engine", ENGINES)
def test_dense_sparse_and_packed(
    tiny_bert: TinyBert, data: Path, tmp_path: Path, engine: str
) -> None:
    dense = tiny_bert("encoder")
    prune(dense, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed")
    file = data / "validation.jsonl"
    for folder in (dense, tmp_path / "sparse"):
        found = evaluate(folder, task="stsb", data=data, zero_shot=True, engine=engine, threads=1)
        expected = expected_scores(folder, file)
        assert found.scores == {"validation": pytest.approx(expected, abs=0.05)}
        assert found.rows == {"validation": 41}
        assert (found.engine, found.threads) == (engine, 1)
    scores = found.scores["validation"]
    assert found.row() == (
        f"STS-B zero-shot (Pearson/Spearman): {scores['pearson']:.1f}/{scores['spearman']:.1f}"
    )
    packed = evaluate(tmp_path / "packed", task="stsb", data=data, zero_shot=True)
    assert packed.scores == {"validation": pytest.approx(scores, abs=0.05)}


@pytest.mark.parametrize("mode", ["cls", "max", "mean_sqrt_len_tokens"])
def test_pooling_is_the_folders_own(
    tiny_bert: TinyBert, data: Path, tmp_path: Path, mode: str
) -> None:
    folder = with_pooling(tiny_bert("encoder"), tmp_path / "model", mode)
    expected = expected_scores(folder, data / "validation.jsonl", mode)
    for engine in ENGINES:
        found = evaluate(
            folder, task="stsb", data=data, zero_shot=True, engine=engine, batch_size=7
        )
        assert found.scores == {"validation": pytest.approx(expected, abs=0.05)}


def test_the_folders_prompt_stands_before_texts(
    tiny_bert: TinyBert, data: Path, tmp_path: Path
) -> None:
    folder = with_pooling(tiny_bert("encoder"), tmp_path / "model", "mean")
    settings = {"prompts": {"query": "the wall: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {name: "the wall: " + row[name] for name in ("sentence1", "sentence2")}
    write_rows(tmp_path / "prompted.jsonl", rows)
    expected = expected_scores(folder, tmp_path / "prompted.jsonl")
    for engine in ENGINES:
        found = evaluate(folder, task="stsb", data=data, zero_shot=True, engine=engine)
        assert found.scores == {"validation": pytest.approx(expected, abs=0.05)}


def test_a_head_is_passed_by_and_another_split_scored(tiny_bert: TinyBert, data: Path) -> None:
    folder = tiny_bert("sequence-classification")  # three classes: no use for stsb's own scores
    expected = expected_scores(folder, data / "train.jsonl")
    found = evaluate(folder, task="stsb", data=data, zero_shot=True, split="train")
    assert found.scores == {"train": pytest.approx(expected, abs=0.05)}


def test_the_train_split_of_a_fine_tuned_model(tiny_bert: TinyBert, tmp_path: Path) -> None:
    rows = [{"sentence": "a b c d"[: 1 + row % 7], "label": row % 2} for row in range(20)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "validation.jsonl", rows[:5])
    model = tiny_bert("sequence-classification", num_labels=2)
    found = evaluate(model, task="sst2", data=tmp_path, split="train")
    assert found.rows == {"train": 20}


def test_a_users_own_pairs(tiny_bert: TinyBert, data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    for row in rows:
        row["text1"], row["text2"] = row.pop("sentence1"), row.pop("sentence2")
    write_rows(tmp_path / "validation.jsonl", rows)
    found = evaluate(tiny_bert("encoder"), task="custom", data=tmp_path, zero_shot=True)
    expected = expected_scores(tiny_bert("encoder"), data / "validation.jsonl")
    assert found.scores == {"validation": pytest.approx(expected, abs=0.05)}


class TestErrors:
    @pytest.mark.parametrize("task", ["sst2", "mrpc", "squad"])
    def test_tasks_without_numbered_pairs(self, tiny_bert: TinyBert, data: Path, task: str) -> None:
        with pytest.raises(DataError, match=f"pairs of texts with a number.*; {task} has none"):
            evaluate(tiny_bert("encoder"), task=task, data=data, zero_shot=True)

    def test_packed_on_torch(self, tiny_bert: TinyBert, data: Path, tmp_path: Path) -> None:
        pack(tiny_bert("encoder"), tmp_path / "packed")
        with pytest.raises(EngineError, match="is packed, which torch cannot read"):
            evaluate(tmp_path / "packed", task="stsb", data=data, zero_shot=True, engine="torch")

    def test_a_split_that_is_not_there(self, tiny_bert: TinyBert, data: Path) -> None:
        with pytest.raises(DataError, match="no file for the split test"):
            evaluate(tiny_bert("encoder"), task="stsb", data=data, zero_shot=True, split="test")

    @pytest.mark.parametrize("engine", ENGINES)
    def test_no_tokenizer(
        self, tiny_bert: TinyBert, data: Path, tmp_path: Path, engine: str
    ) -> None:
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((tiny_bert("encoder") / name).read_bytes())
        with pytest.raises(CheckpointError, match=r"has no tokenizer\.json and no vocabulary"):
            evaluate(tmp_path, task="stsb", data=data, zero_shot=True, engine=engine)
