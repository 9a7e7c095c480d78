"""Folders as sentence-transformers writes them: their modules, pooling and score function."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"


def write_modules(folder: Path, *kinds: str, transformer: str = "", new: bool = False) -> Path:
    """modules.json with modules of these kinds, in folders named as the library names them."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = []
    for number, kind in enumerate(kinds):
        path = transformer if kind == "Transformer" else f"{number}_{kind}"
        name = NEW[kind] if new else OLD + kind
        modules.append({"idx": number, "name": str(number), "path": path, "type": name})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def write_pooling(folder: Path, **settings: Any) -> Path:
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def with_modules(source: Path, target: Path, *, mode: str, normalize: bool) -> Path:
    """A copy of a folder with the modules of sentence-transformers around it."""
    shutil.copytree(source, target)
    modules = ["", "1_Pooling", *(["2_Normalize"] if normalize else [])]
    kinds = ["Transformer", "Pooling", "Normalize"]
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, (path, kind) in enumerate(zip(modules, kinds, strict=False))
    ]
    (target / "modules.json").write_text(json.dumps(listed))
    (target / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "max_tokens", "mean_tokens")}
    flags["pooling_mode_mean_sqrt_len_tokens"] = False
    flags[
        {
            "mean": "pooling_mode_mean_tokens",
            "cls": "pooling_mode_cls_token",
            "max": "pooling_mode_max_tokens",
            "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
        }[mode]
    ] = True
    (target / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, **flags})
    )
    return target


def with_settings(source: Path, target: Path, **settings: Any) -> Path:
    """A copy of a folder with mean pooling and config_sentence_transformers.json."""
    with_modules(source, target, mode="mean", normalize=False)
    (target / MODEL_SETTINGS_NAME).write_text(json.dumps(settings))
    return target


def folder_that_says(source: Path, target: Path, config: Any, settings: Any) -> Path:
    if settings:  # a folder with modules, as CrossEncoder itself saves it since 6.0
        import sentence_transformers

        sentence_transformers.CrossEncoder(str(source), device="cpu").save(str(target))
        written = json.loads((target / MODEL_SETTINGS_NAME).read_text())
        assert written["activation_fn"] == SIGMOID
        (target / MODEL_SETTINGS_NAME).write_text(json.dumps({**written, **settings}))
    else:
        shutil.copytree(source, target)
    raw = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**raw, **config}))
    return target
