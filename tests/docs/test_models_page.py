"""docs/models.md has the models of the script that makes it, and figures within their limits."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from checkout import CHECKOUT

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    found = importlib.util.spec_from_file_location(
        "models_table", CHECKOUT / "scripts" / "models_table.py"
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def test_the_page_has_the_scripts_models(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if "/" in line[:60]]
    rows = [row for row in rows if len(row) > 2]
    assert len(script.MODELS) == len({model.name for model in script.MODELS}) == 50
    assert [row[0] for row in rows] == [model.name for model in script.MODELS]
    for row, model in zip(rows, script.MODELS, strict=True):
        assert row[1] == script.family_name(model)
        assert (row[2], row[3]) == ("yes", "no" if model.family.startswith("jina_bert") else "yes")
        assert float(row[5]) <= 2e-5
        assert float(row[6]) >= (0.98 if row[4] == "real weights" else 0.999)


@pytest.mark.parametrize("name", ["albert/albert-base-v2", "jinaai/jina-embeddings-v2-base-en"])
def test_it_can_be_measured_again(script: ModuleType, name: str) -> None:
    (model,) = (each for each in script.MODELS if each.name == name)
    row = script.measure(model)
    assert row.difference < 2e-5
    assert row.cosine > 0.999
