"""docs/models.md has the models of the script that makes it, and figures within their limits."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import models_table
from hub_models import MODELS


def test_the_page_has_the_scripts_models() -> None:
    text = models_table.PAGE.read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if "/" in line[:60]]
    rows = [row for row in rows if len(row) > 2]
    assert len(MODELS) == len({model.name for model in MODELS}) == 50
    assert [row[0] for row in rows] == [model.name for model in MODELS]
    for row, model in zip(rows, MODELS, strict=True):
        assert row[1] == models_table.family_name(model)
        assert (row[2], row[3]) == ("yes", "no" if model.family.startswith("jina_bert") else "yes")
        assert float(row[5]) <= 2e-5
        lowest, mean = float(row[6]), float(row[7])
        assert mean >= lowest >= (0.98 if row[4] == "real weights" else 0.999)


@pytest.mark.parametrize("name", ["albert/albert-base-v2", "jinaai/jina-embeddings-v2-base-en"])
def test_it_can_be_measured_again(name: str) -> None:
    (model,) = (each for each in MODELS if each.name == name)
    row = models_table.measure(model)
    assert row.difference < 2e-5
    assert min(row.cosines) > 0.999
