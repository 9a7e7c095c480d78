"""Every Python block of docs/integrations.md runs, in their order, on models of those names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import CHECKOUT
from sparsebert import pack
from sparsebert.checkpoint import publishing
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
}


def test_the_page_runs(
    tiny_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == text.count("```python")
    named = set(re.findall(r'"(\w+)/"', text)) - {"elsewhere"}
    assert named == set(FOLDERS)
    for name, (head, sizes) in FOLDERS.items():
        pack(tiny_bert(head, **sizes), tmp_path / name, dtype="int8")
    pushed: list[object] = []
    monkeypatch.setattr(
        loaded_model, "push_to_hub", lambda *names, **_: pushed.append(names) or "url"
    )
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert [name for _, name in pushed] == ["owner/model"]
    assert publishing.model_files(tmp_path / "elsewhere") == publishing.model_files(
        tmp_path / "packed"
    )
    results = {"nodes", "classify", "embeddings", "store", "found"}
    assert results <= namespace.keys()
