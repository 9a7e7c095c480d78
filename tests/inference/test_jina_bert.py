"""JinaBERT v2's published folders, held against their authors' formulas in torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from family_configs import parse
from jina_bert import CODE, PLAIN, JinaBert, slopes, write_jina_bert
from sentences import SENTENCES
from sparsebert import load, pack, prune, unpack
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.convert import convert
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LENGTHS = (1, 2, 17, 64, 139)
LABELS = {"0": "no", "1": "maybe", "2": "yes"}
FOLDERS: dict[str, dict[str, Any]] = {
    "embeddings": {},
    "code": {"code": CODE},
    "code, relu, 4 heads": {
        "code": CODE,
        "feed_forward_type": "reglu",
        "num_attention_heads": 4,
    },
    "reranker": {"head": "SequenceClassification", "inside": "bert.", "id2label": LABELS},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``made(name)``: a folder as published, made once."""
    known: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in known:
            settings = dict(FOLDERS[name])
            folder = tmp_path_factory.mktemp("published") / "model"
            known[name] = write_jina_bert(folder, settings.pop("code", PLAIN), **settings)
        return known[name]

    return of


def batch(model: JinaBert) -> tuple[list[list[int]], list[list[int]]]:
    random = np.random.default_rng(0)
    count = model.config["vocab_size"]
    ids = [random.integers(0, count, length).tolist() for length in LENGTHS]
    return ids, [random.integers(0, 2, length).tolist() for length in LENGTHS]


def largest_difference(ours: Any, theirs: Any) -> float:
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(ours, theirs, strict=True))


@cache
def expected(folder: Path, head: bool) -> list[Any]:
    model = JinaBert(folder)
    compute = model.logits if head else model.hidden
    return [compute(*row) for row in zip(*batch(model), strict=True)]


def check(folder: Path, head: bool = False) -> None:
    ids, types = batch(JinaBert(folder))
    for threads in (1, 2):
        ours = load(folder, threads=threads).forward(ids, types, batch_size=3)
        assert largest_difference(ours, expected(folder, head)) < 2e-5


@pytest.mark.parametrize("name", ["embeddings", "code, relu, 4 heads"])
def test_hidden_states_are_its_authors(made: Any, isa: str, name: str) -> None:
    check(made(name))


def test_heads_and_other_numbers_of_heads(made: Any) -> None:
    check(made("code"))
    check(made("reranker"), head=True)


@pytest.mark.parametrize(("heads", "last"), [(4, 2**-8), (5, 2**-1), (12, 2**-3.5), (3, 2**-2)])
def test_slopes(heads: int, last: float) -> None:
    ours = parse("jina_bert", num_attention_heads=heads, hidden_size=heads * 4).slopes
    assert ours == pytest.approx(slopes(heads), rel=1e-12)
    assert (len(ours), ours[-1]) == (heads, pytest.approx(last))


@pytest.mark.parametrize("name", ["embeddings", "code"])
def test_int8_points_the_same_way(made: Any, tmp_path: Path, name: str) -> None:
    """Cosines of embeddings; by trained weights, whose layers add less, they are nearer to 1."""
    folder = made(name)
    pack(folder, tmp_path / "int8", dtype="int8")
    exact, found = (load(each).embed(SENTENCES) for each in (folder, tmp_path / "int8"))
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("name", ["embeddings", "code"])
@pytest.mark.parametrize("method", ["magnitude", "second-order"])
def test_every_step_reads_it(made: Any, tmp_path: Path, name: str, method: str) -> None:
    folder = made(name)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:12]), encoding="utf-8")
    calibration = {} if method == "magnitude" else {"calibration": texts}
    result = prune(folder, tmp_path / "sparse", method=method, **calibration)
    assert len(result.pruned) == 3 * 7
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    unpack(tmp_path / "packed", tmp_path / "back")
    before, after = (
        load_file(tmp_path / step / "model.safetensors") for step in ("sparse", "back")
    )
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[key], value) for key, value in before.items())
    sparse, packed = (load(tmp_path / step).embed(SENTENCES) for step in ("sparse", "packed"))
    assert np.abs(sparse - packed).max() < 1e-5
    dense = load(folder).embed(SENTENCES)
    cosine = (sparse * dense).sum() / np.linalg.norm(sparse) / np.linalg.norm(dense)
    assert cosine > (0.5 if method == "magnitude" else 0.8)
    config = (tmp_path / "back/config.json").read_text()
    assert "auto_map" not in config


def test_conversion_tells_it_in_our_own_words(made: Any, tmp_path: Path) -> None:
    folder = made("code")
    convert(folder, tmp_path / "converted")
    raw = json.loads((tmp_path / "converted/config.json").read_text())
    assert raw["model_type"] == "jina_bert_code"
    assert np.array_equal(
        load(folder).embed(SENTENCES), load(tmp_path / "converted").embed(SENTENCES)
    )
    ours, theirs = (open_checkpoint(each).tensors for each in (tmp_path / "converted", folder))
    assert ours.keys() == theirs.keys()


def test_what_needs_transformers_says_so(made: Any, tmp_path: Path) -> None:
    from sparsebert import finetune
    from sparsebert.exporting import export

    folder, out = made("embeddings"), tmp_path / "out"
    rows = tmp_path / "train.csv"
    rows.write_text("sentence,label\n" + "\n".join(f"text {i},{i % 2}" for i in range(8)))
    with pytest.raises(CheckpointError, match="a JinaBERT, for which transformers has no classes"):
        finetune(folder, out, task="custom", data=rows)
    for to in ("onnx", "openvino"):
        with pytest.raises(CheckpointError, match="but not trained, exported or run on torch"):
            export(folder, out, to=to)
    assert not out.exists()


@pytest.mark.parametrize(
    "changes",
    [{"feed_forward_type": "original"}, {"feed_forward_type": None}, {"hidden_act": "relu"}],
)
def test_other_computations_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_jina_bert(tmp_path / "model")
    raw = {**json.loads((folder / "config.json").read_text()), **changes}
    known = {key: value for key, value in raw.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(known))
    with pytest.raises(UnsupportedArchitectureError, match=next(iter(changes))):
        open_checkpoint(folder)
