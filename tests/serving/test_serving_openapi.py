"""What /openapi.json says is what the server does: schemathesis looks for differences."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from served import serving
from sparsebert.serving import load_models

HEADS: dict[str, dict[str, Any]] = {
    "embedder": {"head": "encoder"},
    "classifier": {"head": "sequence-classification", "num_labels": 3},
    "reranker": {"head": "sequence-classification", "num_labels": 1},
    "answerer": {"head": "question-answering"},
    "tagger": {"head": "token-classification"},
    "filler": {"head": "masked-lm"},
}
# JSON Schema cannot say that a shape must be that of its data, or that the tokenizer must find a
# token in a question or a mask in a text: there, what fits the schema may be refused. All else
# holds there too.
CONFIG = """
[[operations]]
include-name-regex = "/(infer|answer|fill)$"
[operations.checks]
positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def url(tiny_bert) -> Iterator[str]:
    named = [f"{name}={tiny_bert(**sizes)}" for name, sizes in HEADS.items()]
    with serving(load_models(named, threads=1), auto_truncate=True) as address:
        yield address


@pytest.mark.thorough
def test_schemathesis_finds_no_difference(url, tmp_path):
    pytest.importorskip("schemathesis")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = Path(sys.executable).with_name("schemathesis")
    found = subprocess.run(
        [
            command,
            f"--config-file={config}",
            "run",
            f"{url}/openapi.json",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=5",
            "--seed=1",
            "--request-timeout=60",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr
    assert "passed" in found.stdout


def test_only_routes_that_a_model_answers_are_documented(tiny_bert):
    with serving(load_models([f"only={tiny_bert()}"], threads=1)) as url:
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert {"/embed", "/v1/embeddings", "/v2/models/{name}/infer"} <= set(paths)
    assert not {"/predict", "/rerank", "/v1/rerank", "/answer", "/embed_hybrid"} & set(paths)


def test_limits_are_those_of_the_models(url):
    schemas = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]
    ranks = schemas["RerankRequest"]["properties"]
    assert ranks["model"]["anyOf"] == [{"type": "string", "enum": ["reranker"]}, {"type": "null"}]
    asked = schemas["EmbeddingsRequest"]["properties"]
    assert asked["dimensions"]["anyOf"][0]["maximum"] == 32
    assert asked["truncate_prompt_tokens"]["anyOf"][:2] == [
        {"const": -1},
        {"type": "integer", "minimum": 4, "maximum": 64},
    ]
    assert "integer" not in str(asked["input"])  # no token ids, unless the server accepts them
    ids = schemas["EmbedRequest"]["properties"]["inputs"]["anyOf"][1]
    assert ids["items"]["maximum"] > 200


def test_errors_are_documented_in_the_form_of_the_routes_clients(url):
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]

    def forms(path: str) -> dict[str, str]:
        return {
            status: answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for status, answer in paths[path]["post"]["responses"].items()
            if status != "200"
        }

    assert set(forms("/embed").values()) == {"ErrorResponse"}
    assert set(forms("/v1/embeddings").values()) == {"OpenAIError"}
    assert "422" not in forms("/v1/embeddings")
    assert set(forms("/v2/rerank").values()) == {"RerankError"}
    assert set(forms("/v2/models/{name}/infer").values()) == {"OpenInferenceError"}
