"""The drop-ins on every family of encoders that the engine runs, beside the family in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from family_configs import DISTINCT
from sentences import SENTENCES
from sparsebert.checkpoint.families import FAMILIES, Head

transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("sentence_transformers")

from sparsebert.integrations.sentence_transformers import SentenceTransformer
from sparsebert.integrations.transformers import pipeline

TEXTS = list(SENTENCES)


@pytest.mark.parametrize(
    ("family", "task", "head"),
    [
        (name, head.value.replace("sequence", "text"), head.value)
        for name in sorted(DISTINCT)
        for head in (Head.SEQUENCE, Head.QUESTION, Head.TOKEN)
        if head in FAMILIES[name].heads
    ],
)
def test_pipelines(tiny_bert: Callable[..., Path], family: str, task: str, head: str) -> None:
    folder = str(tiny_bert(head, model_type=family))
    others = transformers.pipeline(task, model=folder, device="cpu")
    ours = pipeline(task, folder)
    if task == "question-answering":
        arguments = {
            "question": ["what is it?", TEXTS[3]],
            "context": [" ".join(TEXTS[:7]), TEXTS[5]],
            "max_seq_len": 50,
            "doc_stride": 9,
            "batch_size": 2,
        }
        found, expected = (answer(**arguments) for answer in (ours, others))
    else:
        found, expected = (model(TEXTS[:4], batch_size=4) for model in (ours, others))
    flat = [
        [each for item in items for each in (item if isinstance(item, list) else [item])]
        for items in (found, expected)
    ]
    for mine, other in zip(*flat, strict=True):
        assert mine.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert mine == other


@pytest.mark.parametrize("family", sorted(DISTINCT))
def test_embeddings(tiny_bert: Callable[..., Path], family: str) -> None:
    folder = str(tiny_bert(model_type=family))
    expected = theirs.SentenceTransformer(folder, device="cpu").encode(TEXTS, batch_size=5)
    np.testing.assert_allclose(
        SentenceTransformer(folder).encode(TEXTS, batch_size=5), expected, atol=1e-4
    )
