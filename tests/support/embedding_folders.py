"""Folders whose modules make sparse weights, a vector for each token, or both: stand-ins."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sentence_folders import with_modules


def splade(folder: Path, base: Path) -> Path:
    """``base`` is a masked-LM model."""
    import sentence_transformers
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    modules = [Transformer(str(base), transformer_task="fill-mask"), SpladePooling("max")]
    sentence_transformers.SparseEncoder(modules=modules, device="cpu").save(str(folder))
    return folder


def inference_free(folder: Path, base: Path, default: str = "document", **settings: Any) -> Path:
    """A SPLADE model whose queries are looked up in a table (opensearch-neural-sparse)."""
    import sentence_transformers
    import torch
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    torch.manual_seed(3)
    encoder = Transformer(str(base), transformer_task="fill-mask")
    weights = torch.rand(len(encoder.tokenizer)) - 0.2
    weights[::5] = 0
    static = SparseStaticEmbedding(encoder.tokenizer, weight=weights)
    routes = {"query": [static], "document": [encoder, SpladePooling("max")]}
    router = Router(routes, default_route=default)
    sentence_transformers.SparseEncoder(modules=[router], device="cpu", **settings).save(
        str(folder)
    )
    return folder


def colbert(folder: Path, base: Path, **transformer: Any) -> Path:
    """As sentence-transformers saves it."""
    import sentence_transformers
    import torch
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(3)
    modules = [
        Transformer(str(base), query_expansion={"strategy": "fixed", "length": 24}, **transformer),
        Dense(32, 12, bias=False, module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=list(string.punctuation)),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "[Q] ", "document": "[D] "}
    model = sentence_transformers.MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
    model.save(str(folder))
    return folder


def original_colbert(folder: Path, base: Path, **settings: Any) -> Path:
    """As ColBERT's authors save it, with these ``settings`` in artifact.metadata."""
    shutil.copytree(base, folder)
    file = folder / "model.safetensors"
    weight = np.random.default_rng(6).standard_normal((14, 32)).astype(np.float32)
    tensors = {f"bert.{name}": value for name, value in load_file(file).items()}
    save_file({**tensors, "linear.weight": weight}, file, {"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "architectures": ["HF_ColBERT"]}))
    (folder / "artifact.metadata").write_text(json.dumps({"query_maxlen": 20, **settings}))
    return folder


def bge_m3(folder: Path, base: Path) -> Path:
    """With the two heads that BGE-M3 has beside its pooling, converted."""
    with_modules(base, folder, mode="cls", normalize=True)
    random = np.random.default_rng(4)
    for name, width in (("sparse_linear", 1), ("colbert_linear", 32)):
        weight = random.standard_normal((width, 32)).astype(np.float32) / 5
        tensors = {"weight": weight, "bias": np.zeros(width, np.float32)}
        save_file(tensors, folder / f"{name}.safetensors")
    return folder
