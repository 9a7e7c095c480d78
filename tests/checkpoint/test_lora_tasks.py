"""jina-embeddings-v3 as its authors publish it, its LoRA tasks merged one at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import Run
from jina_v3 import CONFIG, QUERY, TASKS, of_task, respell, write_tasks
from sentences import SENTENCES as ALL
from sparsebert import load, pack, prune
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.convert import convert
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SENTENCES = list(ALL[:5])


@pytest.fixture(scope="module")
def folders(tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model as transformers saves it, and the same with LoRA tasks as the authors publish it."""
    native: Path = tiny_bert(
        model_type="jina_embeddings_v3",
        hidden_size=36,
        num_attention_heads=3,
        intermediate_size=50,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    folder = tmp_path_factory.mktemp("published") / "model"
    return native, write_tasks(folder, native, rotary_emb_base=500.0)


@pytest.mark.parametrize("index", [0, 3])
def test_a_task_is_merged(folders: tuple[Path, Path], tmp_path: Path, index: int) -> None:
    native, published = folders
    convert(published, tmp_path / "one", task=TASKS[index])
    theirs = of_task(native, published, index)
    tokenizer = transformers.AutoTokenizer.from_pretrained(native)
    ours = load(tmp_path / "one", threads=1)
    read = transformers.AutoModel.from_pretrained(tmp_path / "one").eval()  # as do other tools
    for text, states in zip(SENTENCES, ours.hidden_states(SENTENCES), strict=True):
        given = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            wanted = theirs(**given).last_hidden_state[0].numpy()
            assert np.abs(read(**given).last_hidden_state[0].numpy() - wanted).max() < 2e-5
        assert np.abs(states - wanted).max() < 2e-5
    prune(tmp_path / "one", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "int8", dtype="int8")
    steps = (load(tmp_path / name) for name in ("sparse", "int8"))
    exact, found = (model.embed(SENTENCES, prompt="") for model in steps)
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999


def test_its_instruction_becomes_the_default_prompt(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, published = folders
    for task in (TASKS[0], TASKS[3]):
        convert(published, tmp_path / task, task=task)
        asked = load(tmp_path / task).embed(SENTENCES[:2])
        prompt = QUERY if task == TASKS[0] else ""
        told = load(tmp_path / task).embed([prompt + text for text in SENTENCES[:2]], prompt="")
        assert np.array_equal(asked, told)
    assert "custom_st" not in (tmp_path / TASKS[0] / "modules.json").read_text()


def test_the_weights_without_a_task(folders: tuple[Path, Path], tmp_path: Path) -> None:
    native, published = folders
    convert(published, tmp_path / "none", task="none")
    texts = SENTENCES[:3]
    ours, theirs = (load(each).embed(texts, pooling="mean") for each in (tmp_path / "none", native))
    assert np.abs(ours - theirs).max() < 1e-6


def test_a_task_must_be_named(folders: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    native, published = folders
    with pytest.raises(UnsupportedArchitectureError, match=r"convert MODEL OUT --task TASK"):
        open_checkpoint(published)
    for task, said in (
        (None, "choose one with --task (retrieval.query, "),
        ("other", "no task 'other'"),
    ):
        named = ("--task", task) if task else ()
        code, _, error = run("convert", published, tmp_path / "out", *named)
        assert (code, said in " ".join(error.split())) == (1, True)
    with pytest.raises(CheckpointError, match="has no LoRA tasks: leave out the task 'separation'"):
        convert(native, tmp_path / "out", task="separation")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": 0}, "lora_rank must be a positive number, not 0"),
        ({"lora_alpha": "1"}, "lora_alpha must be a positive number, not '1'"),
        ({"lora_adaptations": [1]}, "lora_adaptations must be a list of names"),
        ({"lora_adaptations": [*TASKS, "separation"]}, None),
        (
            {"lora_adaptations": ["a", "b", "c", "d", "e", "separation"]},
            "which do not fit its shape",
        ),
        ({"position_embedding_type": "alibi"}, "position_embedding_type is 'alibi'"),
    ],
)
def test_damage_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[1], folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **change}))
    if message is None:
        convert(folder, tmp_path / "out", task="separation")
        return
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "out", task="separation")


def test_a_reranker_of_the_same_authors_with_counted_positions(
    tiny_bert: Any, tmp_path: Path
) -> None:
    """jinaai/jina-reranker-v2-base-multilingual: XLM-R in the same tensors, without tasks."""
    native: Path = tiny_bert("sequence-classification", model_type="xlm-roberta", type_vocab_size=1)
    folder = tmp_path / "model"
    shutil.copytree(native, folder)
    own = json.loads((native / "config.json").read_text())
    more = {"auto_map": CONFIG["auto_map"], "use_flash_attn": True, "emb_pooler": None}
    more |= {"lora_adaptations": None, "truncate_dim": None, "position_embedding_type": "absolute"}
    (folder / "config.json").write_text(json.dumps({**own, **more}))
    respell(folder)
    pairs = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])]
    assert np.array_equal(load(folder).logits(pairs), load(native).logits(pairs))
    with pytest.raises(CheckpointError, match="run `sparsebert convert"):
        from sparsebert.exporting import export

        export(folder, tmp_path / "onnx", to="onnx")
