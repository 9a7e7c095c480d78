"""jina-embeddings-v3 as its authors publish it: a model of transformers' with random LoRA tasks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

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
    "rotary_emb_base": 20000.0,
    "task_instructions": {name: QUERY if name == TASKS[0] else "" for name in TASKS},
    "truncate_dim": None,
    "use_flash_attn": True,
    "use_reentrant": False,
}
OURS = ("model_type", "architectures", "rope_parameters", "transformers_version", "sparsity")


def write_tasks(folder: Path, native: Path, **changes: Any) -> Path:
    """Write the model of ``native``, as transformers saved it, with tasks as published."""
    shutil.copytree(native, folder)
    own = json.loads((native / "config.json").read_text())
    kept = {key: value for key, value in own.items() if key not in OURS}
    (folder / "config.json").write_text(json.dumps({**kept, **CONFIG, **changes}))
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
    pooling = {"word_embedding_dimension": own["hidden_size"], "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": CONFIG["task_instructions"], "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def of_task(native: Path, published: Path, index: int) -> Any:
    """transformers' model with the task's weights: W + B A / 4, or of a table W + A B / 4."""
    import torch
    import transformers

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


def respell(folder: Path) -> None:
    """Give an XLM-R's tensors the names of the same authors' code, with counted positions."""
    stored, tensors = load_file(folder / "model.safetensors"), {}
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
