"""jina-embeddings-v3 as its authors publish it, its LoRA tasks merged one at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from commands import Run
from sentences import SENTENCES as ALL
from sparsebert import load, pack, prune
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.convert import convert
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
QUERY = "Represent the query for retrieving evidence documents: "
# The keys of jinaai/jina-embeddings-v3's config.json that are not XLM-R's.
CONFIG = {
    "_name_or_path": "jinaai/jina-embeddings-v3",
    "architectures": ["XLMRobertaModel"],
    "auto_map": {
        "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.X",
        "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
    },
    "emb_pooler": "mean",
    "load_trained_adapters": True,
    "lora_adaptations": TASKS,
    "lora_alpha": 1,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": 4,
    "matryoshka_dimensions": [32, 64, 128, 256, 512, 768, 1024],
    "model_type": "xlm-roberta",
    "output_past": True,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 500.0,
    "task_instructions": {name: QUERY if name == TASKS[0] else "" for name in TASKS},
    "truncate_dim": None,
    "use_flash_attn": True,
    "use_reentrant": False,
}
SENTENCES = list(ALL[:5])
OURS = ("model_type", "architectures", "rope_parameters", "transformers_version", "sparsity")


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
    shutil.copytree(native, folder)
    own = json.loads((native / "config.json").read_text())
    kept = {key: value for key, value in own.items() if key not in OURS}
    (folder / "config.json").write_text(json.dumps({**kept, **CONFIG}))
    random, tensors = np.random.default_rng(3), {}
    for name, value in load_file(native / "model.safetensors").items():
        if value.ndim == 1:
            tensors[f"roberta.{name}"] = value
            continue
        stem = f"roberta.{name.removesuffix('.weight')}.parametrizations.weight"
        rows, columns = value.shape
        shapes = {"A": (5, 4, columns), "B": (5, rows, 4)}
        if name.startswith("embeddings."):
            shapes = {"A": (5, rows, 4), "B": (5, 4, columns)}
        tensors[f"{stem}.original"] = value
        for matrix, shape in shapes.items():
            drawn = random.standard_normal(shape).astype(np.float32) / 3
            tensors[f"{stem}.0.lora_{matrix}"] = drawn
    assert any("mixer.Wqkv" in name for name in tensors)
    save_file(tensors, folder / "model.safetensors")
    modules = [
        {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"},
        {
            "idx": 1,
            "name": "pooler",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 36, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": CONFIG["task_instructions"], "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return native, folder


def of_task(native: Path, published: Path, index: int) -> Any:
    """transformers' model with the task's weights: W + B A / 4, or of a table W + A B / 4."""
    model = transformers.AutoModel.from_pretrained(native, dtype=torch.float32).eval()
    stored = {k: torch.tensor(v) for k, v in load_file(published / "model.safetensors").items()}
    stored = {
        name.removeprefix("roberta."): value[index]
        for name, value in stored.items()
        if "lora" in name
    }
    add = {}
    for name, value in stored.items():
        if name.endswith("lora_A"):
            other = stored[name.replace("lora_A", "lora_B")]
            stem = name.partition(".parametrizations")[0]
            table = stem.startswith("embeddings.")
            add[stem] = (
                torch.einsum("ir,rj->ij", *((value, other) if table else (other, value))) / 4
            )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stem = name.removesuffix(".weight").replace("layers.", "encoder.layers.", 1)
            stem = stem.replace("self_attn.o_proj", "mixer.out_proj")
            part = stem.rpartition(".")[2]
            if part in ("q_proj", "k_proj", "v_proj"):
                fused = add[stem.replace(f"self_attn.{part}", "mixer.Wqkv")]
                parameter += fused.chunk(3)["qkv".index(part[0])] if parameter.dim() == 2 else 0
            elif parameter.dim() == 2:
                parameter += add[stem]
    return model


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
        (None, "name one by --task (retrieval.query, "),
        ("other", "no task 'other'"),
    ):
        named = ("--task", task) if task else ()
        code, _, error = run("convert", published, tmp_path / "out", *named)
        assert (code, said in " ".join(error.split())) == (1, True)
    with pytest.raises(CheckpointError, match="has no LoRA tasks: leave the task 'separation' out"):
        convert(native, tmp_path / "out", task="separation")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": 0}, "lora_rank must be a positive number, not 0"),
        ({"lora_alpha": "1"}, "lora_alpha must be a positive number, not '1'"),
        ({"lora_adaptations": [1]}, "lora_adaptations must be a list of names"),
        ({"lora_adaptations": [*TASKS, "separation"]}, None),
        ({"lora_adaptations": ["a", "b", "c", "d", "e", "separation"]}, "which do not fit its own"),
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
    stored, tensors = load_file(native / "model.safetensors"), {}
    names = {
        "encoder.layer.": "encoder.layers.",
        "embeddings.LayerNorm": "emb_ln",
        "attention.output.dense": "mixer.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "mlp.fc1",
        "output.LayerNorm": "norm2",
        "output.dense": "mlp.fc2",
    }
    for name, value in stored.items():
        if ".attention.self." in name:
            start, _, rest = name.partition(".attention.self.")
            end = rest.rpartition(".")[2]
            rows = [
                stored[f"{start}.attention.self.{part}.{end}"] for part in ("query", "key", "value")
            ]
            name, value = f"{start}.mixer.Wqkv.{end}", np.concatenate(rows)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = value
    save_file(tensors, folder / "model.safetensors")
    pairs = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])]
    assert np.array_equal(load(folder).logits(pairs), load(native).logits(pairs))
    with pytest.raises(CheckpointError, match="run `sparsebert convert"):
        from sparsebert.exporting import export

        export(folder, tmp_path / "onnx", to="onnx")
