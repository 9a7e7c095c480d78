"""Every Python block of docs/integrations.md runs, in their order, on models of those names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import CHECKOUT
from sparsebert import pack
from sparsebert.checkpoint.model_files import published_files
from sparsebert.inference import loaded_model

for module in ("torch", "transformers", "sentence_transformers", "langchain_core", "pandas"):
    pytest.importorskip(module)
pytest.importorskip("llama_index.core")

PAGE = CHECKOUT / "docs" / "integrations.md"
FOLDERS = {
    "packed": ("encoder", {}),
    "classifier": ("sequence-classification", {}),
    "answerer": ("question-answering", {}),
    "reranker": ("sequence-classification", {"num_labels": 1}),
    "splade": ("masked-lm", {}),
    "colbert": ("encoder", {}),
}


def multi_vector(encoder: Path, folder: Path) -> Path:
    """The encoder with a projection of its tokens behind it, in ``folder``."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Transformer

    projection = Dense(32, 12, bias=False, module_input_name="token_embeddings")
    modules = [Transformer(str(encoder)), projection]
    MultiVectorEncoder(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # torch's own
def test_the_page_runs(
    tiny_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == text.count("```python")
    named = set(re.findall(r'"(\w+)/"', text)) - {"elsewhere"}
    assert named == set(FOLDERS)
    for name, (head, sizes) in FOLDERS.items():
        dense = tiny_bert(head, **sizes)
        if name == "colbert":
            dense = multi_vector(dense, tmp_path / "dense")
        pack(dense, tmp_path / name, dtype="int8")
    pushed: list[object] = []
    monkeypatch.setattr(
        loaded_model, "push_to_hub", lambda *names, **_: pushed.append(names) or "url"
    )
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert [name for _, name in pushed] == ["owner/model"]
    assert (
        published_files(tmp_path / "elsewhere").keys()
        == published_files(tmp_path / "packed").keys()
    )
    results = {"nodes", "classify", "embeddings", "store", "found"}
    assert results <= namespace.keys()
