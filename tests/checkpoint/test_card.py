"""The model card: the source's front matter and text are kept, our part is written anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bert_folders import bert_config
from sparsebert.checkpoint import with_step, write_card, write_config
from sparsebert.checkpoint.card import write_scores
from sparsebert.errors import CheckpointError
from sparsebert.evaluation.results import hub_results
from sparsebert.patterns import ONE_OF_TWO
from sparsebert.tasks.table import get_task

SOURCE = """---
license: apache-2.0
language: en
tags:
- bert
---

# The original

Its own words.
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "README.md").write_text(SOURCE, encoding="utf-8")
    return folder


def made(
    folder: Path,
    source: Path,
    steps: int = 1,
    origin: str = "org/model",
    head: str = "sequence-classification",
) -> str:
    raw = bert_config(head)
    layers = ["encoder.layer.0.output.dense.weight"]
    raw = with_step(raw, "prune", origin, {"a": 1}, pattern=ONE_OF_TWO, method="m", layers=layers)
    for _ in range(steps - 1):
        raw = with_step(raw, "finetune", "sparse", {"task": "sst2", "resume": None})
    folder.mkdir(exist_ok=True)
    write_config(folder, raw)
    write_card(folder, source=source, results="| accuracy |" if steps > 1 else "")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_what_it_is_how_it_was_made_and_how_to_load_it(tmp_path: Path, source: Path) -> None:
    text = made(tmp_path / "out", source)
    assert "1:2 structured sparsity" in text
    assert "1. `prune` from `org/model` (a=1), sparsebert " in text
    assert "AutoModelForSequenceClassification.from_pretrained" in text
    assert "sparsebert.load" in text
    assert "model.classify" in text


def test_the_sources_front_matter_and_text_are_kept(tmp_path: Path, source: Path) -> None:
    text = made(tmp_path / "out", source)
    front = text.split("---\n")[1]
    assert front == (
        "license: apache-2.0\nlanguage: en\ntags:\n- bert\n- sparsebert\n"
        "library_name: transformers\nbase_model: org/model\n"
    )
    assert text.endswith("# The original\n\nIts own words.\n")


def test_a_base_model_that_is_named_is_not_named_again(tmp_path: Path, source: Path) -> None:
    (source / "README.md").write_text("---\nbase_model: a/b\n---\nText\n")
    text = made(tmp_path / "out", source)
    assert text.count("base_model:") == 1


def test_a_folder_is_no_base_model(tmp_path: Path, source: Path) -> None:
    assert "base_model" not in made(tmp_path / "out", source, origin="my-folder")


def test_the_base_model_is_named_without_its_revision(tmp_path: Path, source: Path) -> None:
    text = made(tmp_path / "out", source, origin="org/model@v1.0")
    assert "\nbase_model: org/model\n" in text


def test_a_later_step_replaces_our_part(tmp_path: Path, source: Path) -> None:
    made(tmp_path / "one", source)
    text = made(tmp_path / "two", tmp_path / "one", steps=2)
    assert text.count("<!-- sparsebert: begin -->") == 1
    assert text.count("The card of the model it was made from follows.") == 1
    assert text.count("Its own words.") == 1
    assert text.count("license:") == 1
    assert "2. `finetune` from `sparse` (task=sst2), sparsebert" in text
    assert "| accuracy |" in text


def test_a_source_without_a_card_gets_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    text = made(tmp_path / "out", tmp_path / "bare")
    assert text.startswith("---\nlibrary_name: transformers\ntags:\n- sparsebert\nbase_model:")
    assert "follows" not in text


INDEX = """model-index:
- name: other
  results:
    - task:
        type: text-classification

# a comment
"""


@pytest.mark.parametrize("after", ["", "tags:\n- bert\n"])
@pytest.mark.parametrize("before", ["", "license: mit\n"])
def test_scores_of_the_source_are_not_taken_over(
    tmp_path: Path, source: Path, before: str, after: str
) -> None:
    index = INDEX.replace("# a comment\n", "") if after else INDEX
    (source / "README.md").write_text(f"---\n{before}{index}{after}---\nText\n")
    text = made(tmp_path / "out", source)
    assert "model-index" not in text
    assert "type: text-classification" not in text
    for kept in (before, after):
        assert kept in text
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.base_model == "org/model"
    assert data.eval_results is None


def test_the_hub_reads_the_scores(tmp_path: Path, source: Path) -> None:
    (source / "README.md").write_text(f"---\n{INDEX}license: mit\n---\nText\n")
    made(tmp_path / "out", source)
    scores = {"validation": {"accuracy": 81.234, "f1": 70.0}}
    write_card(tmp_path / "out", source=source, evaluations=hub_results(get_task("qqp"), scores))
    card = ModelCard.load(tmp_path / "out/README.md", ignore_metadata_errors=False)
    assert card.data.license == "mit"
    assert card.data.model_name == "org/model, 1:2 sparse"
    found = [
        (each.metric_type, each.metric_value, each.dataset_type, each.dataset_config)
        for each in card.data.eval_results or []
    ]
    assert found == [
        ("accuracy", 81.23, "nyu-mll/glue", "qqp"),
        ("f1", 70.0, "nyu-mll/glue", "qqp"),
    ]


@pytest.mark.parametrize(
    ("front", "tags"),
    [
        ("license: mit", ["sparsebert"]),
        ("tags:\n- a\n- b\nlicense: mit", ["a", "b", "sparsebert"]),
        ("tags:\n  - a\n  - b", ["a", "b", "sparsebert"]),
        ("license: mit\ntags: [a, b]", ["a", "b", "sparsebert"]),
        ("tags: []", ["sparsebert"]),
        ("tags:\n- sparsebert\n- a", ["sparsebert", "a"]),
        ("tags: [sparsebert]", ["sparsebert"]),
    ],
)
def test_our_tag_joins_the_others_once(
    tmp_path: Path, source: Path, front: str, tags: list[str]
) -> None:
    (source / "README.md").write_text(f"---\n{front}\n---\nText\n")
    text = made(tmp_path / "out", source)
    assert ModelCard(text, ignore_metadata_errors=False).data.tags == tags


def test_the_library_is_one_that_reads_the_folder(tmp_path: Path, source: Path) -> None:
    def library(folder: Path, origin: Path, packed: bool, **how: str) -> object:
        made(folder, origin, **how)
        write_card(folder, source=origin, packed=packed)
        return ModelCard.load(folder / "README.md", ignore_metadata_errors=False).data.library_name

    assert library(tmp_path / "sparse", source, packed=False) == "transformers"
    assert library(tmp_path / "packed", tmp_path / "sparse", packed=True) == "sparsebert"
    assert library(tmp_path / "unpacked", tmp_path / "packed", packed=False) == "transformers"
    sentences = tmp_path / "sentences"
    sentences.mkdir()
    (sentences / "modules.json").write_text("[]")
    packed = tmp_path / "packed"
    assert library(packed, source, packed=True, head="encoder") == "sparsebert"
    assert library(sentences, packed, packed=False, head="encoder") == "sentence-transformers"
    # With a head it is none for sentence-transformers, whatever modules stand beside.
    assert library(sentences, packed, packed=False) == "transformers"
    (source / "README.md").write_text("---\nlibrary_name: 'fastai' # theirs\n---\n")
    assert library(tmp_path / "kept", source, packed=False) == "fastai"


def test_scores_measured_later_replace_earlier_ones(tmp_path: Path, source: Path) -> None:
    made(tmp_path / "out", source)
    text = (tmp_path / "out/README.md").read_text()
    for accuracy in (81.0, 82.0):
        scores = {"validation": {"accuracy": accuracy}}
        write_scores(tmp_path / "out", hub_results(get_task("sst2"), scores), packed=False)
    card = ModelCard.load(tmp_path / "out/README.md", ignore_metadata_errors=False)
    assert [each.metric_value for each in card.data.eval_results or []] == [82.0]
    assert card.text.strip() == ModelCard(text).text.strip()
    (tmp_path / "out/README.md").unlink()
    write_scores(tmp_path / "out", hub_results(get_task("sst2"), scores), packed=False)
    card = ModelCard.load(tmp_path / "out/README.md", ignore_metadata_errors=False)
    assert [each.metric_value for each in card.data.eval_results or []] == [82.0]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"---\nunfinished", b"---\n---\n", b""])
def test_odd_cards_do_no_harm(tmp_path: Path, source: Path, content: bytes) -> None:
    (source / "README.md").write_bytes(content)
    assert "## How to load it" in made(tmp_path / "out", source)


EMBEDDER = """---
language: en
license: apache-2.0
library_name: sentence-transformers
tags:
- sentence-transformers
- feature-extraction
- sentence-similarity
- transformers
datasets:
- sentence-similarity
pipeline_tag: sentence-similarity
---

# An embedder
"""


@pytest.mark.parametrize(
    ("head", "pipeline"),
    [
        ("sequence-classification", "text-classification"),
        ("question-answering", "question-answering"),
    ],
)
def test_a_classifier_made_of_an_embedder_is_not_offered_as_one(
    tmp_path: Path, head: str, pipeline: str
) -> None:
    source, out, packed = (tmp_path / name for name in ("source", "out", "packed"))
    for folder, kind in ((source, "encoder"), (out, head), (packed, head)):
        folder.mkdir()
        write_config(folder, with_step(bert_config(kind), "finetune", "org/model", {}))
        (folder / "modules.json").write_text("[]")
    (source / "README.md").write_text(EMBEDDER)
    write_card(out, source=source)
    data = ModelCard.load(out / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", pipeline)
    assert data.tags == ["transformers", "sparsebert"]
    assert data.datasets == ["sentence-similarity"]
    assert (data.language, data.license) == ("en", "apache-2.0")
    # Packed and unpacked it stays what it is.
    write_card(packed, source=out, packed=True)
    write_card(out, source=packed)
    data = ModelCard.load(out / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", pipeline)
    # An embedder stays one.
    write_card(source, source=source)
    data = ModelCard.load(source / "README.md").data
    assert (data.library_name, data.pipeline_tag) == (
        "sentence-transformers",
        "sentence-similarity",
    )
    assert "sentence-similarity" in data.tags


@pytest.mark.parametrize("tags", ["tags: [sentence-similarity, mine]", "tags:\n  - mine"])
def test_tags_of_another_head_go_however_they_are_written(tmp_path: Path, tags: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for folder, kind in ((source, "encoder"), (out, "sequence-classification")):
        folder.mkdir()
        write_config(folder, bert_config(kind))
    (source / "README.md").write_text(f"---\n{tags}\n---\n")
    write_card(out, source=source)
    assert ModelCard.load(out / "README.md").data.tags == ["mine", "sparsebert"]


def test_of_a_card_that_is_too_long_the_front_matter_is_kept(tmp_path: Path, source: Path) -> None:
    (source / "README.md").write_text(SOURCE + "x" * (4 << 20), encoding="utf-8")
    text = made(tmp_path / "out", source)
    assert "license: apache-2.0" in text
    assert text.rstrip().endswith("The original is larger than 4 MiB and is left out.")
    assert len(text) < 4000
    again = made(tmp_path / "again", tmp_path / "out")
    assert again.count("The original is larger than 4 MiB") == 1
    scores = hub_results(get_task("sst2"), {"validation": {"accuracy": 90.0}})
    write_config(source, bert_config("sequence-classification"))
    with pytest.raises(CheckpointError, match="README.md is larger than 4 MiB, too"):
        write_scores(source, scores, packed=False)
