"""sentence_bert_config.json: how a sentence-transformers folder reads its texts, or a refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_folders import write_modules, write_pooling
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune
from sparsebert.checkpoint.sentence_config import SentenceConfig, read_sentence_config
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import folder_tokenizer

NAME = "sentence_bert_config.json"
TEXTS = [*SENTENCES[:4], "The FERRY Leaves; CAFÉ", long_text(60), " ".join(SENTENCES)]


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Any) -> Path:
    """A model of sentence-transformers with mean pooling."""
    shutil.copytree(tiny_bert(), tmp_path / "m")
    write_modules(tmp_path / "m", "Transformer", "Pooling")
    return write_pooling(tmp_path / "m", pooling_mode="mean", embedding_dimension=32)


def write(folder: Path, settings: object, name: str = NAME) -> Path:
    (folder / name).write_text(json.dumps(settings))
    return folder


def same_as_the_library(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.abs(load(folder).embed(TEXTS) - theirs).max() < 2e-4


@pytest.mark.filterwarnings("ignore::sparsebert.inference.TruncationWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_seq_length": 16, "do_lower_case": False},
        {"max_seq_length": None, "do_lower_case": True},
        {"tokenizer_args": {"model_max_length": 16}},
        {"processor_kwargs": {"model_max_length": 16}, "max_seq_length": 32},
        {"tokenizer_args": {"truncation_side": "left", "use_fast": True}, "max_seq_length": 16},
        {"processor_kwargs": {"do_lower_case": False, "strip_accents": False}},
        {"processor_kwargs": {"max_length": 8, "padding_side": "right"}},
        {"processing_kwargs": {"text": {"max_length": 9}}, "max_seq_length": 32},
        {"processing_kwargs": {"text": {"max_length": 9}, "common": {"max_length": 12}}},
        {"config_args": {"num_hidden_layers": 2}, "model_args": {"attn_implementation": "eager"}},
        {"model_kwargs": {"add_pooling_layer": False, "torch_dtype": "float32"}},
        {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": {"method": "forward", "method_output_name": ["last_hidden_state"]},
            },
            "module_output_name": "token_embeddings",
            "unpad_inputs": False,
        },
    ],
    ids=str,
)
def test_embeddings_are_the_librarys(folder: Path, settings: dict[str, Any]) -> None:
    same_as_the_library(write(folder, settings))


@pytest.mark.filterwarnings("ignore::sparsebert.inference.TruncationWarning")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("place", ["tokenizer_config.json", "tokenizer.json"])
def test_the_end_at_which_texts_are_cut(folder: Path, side: str, place: str) -> None:
    file = folder / place
    stored = json.loads(file.read_text())
    if place == "tokenizer.json":
        stored["truncation"] = {
            "direction": side.capitalize(),
            "max_length": 5,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    else:
        stored["truncation_side"] = side
    file.write_text(json.dumps(stored))
    same_as_the_library(write(folder, {"max_seq_length": 16}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config_args": {"num_hidden_layers": 1}}, "config_args: num_hidden_layers is set"),
        ({"config_kwargs": {"hidden_act": "relu"}}, "config_kwargs: hidden_act is set"),
        ({"model_args": {"variant": "fp16"}}, "model_args: variant is set, but sparsebert reads"),
        ({"tokenizer_args": {"cls_token": "a"}}, "cls_token is set, .* tokenizer_config"),
        ({"tokenizer_args": [1]}, "'tokenizer_args' must hold a JSON object"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "add_special_tokens is"),
        ({"processing_kwargs": {"text": {"truncation": False}}}, "truncation is False, but spars"),
        ({"processing_kwargs": {"common": {"truncation": None}}}, "truncation is None, but spars"),
        (
            {"processing_kwargs": {"text": {"truncation": "only_first"}}},
            "truncation is 'only_first'",
        ),
        ({"query_expansion": {"length": 32}}, "query_expansion is set"),
        ({"tokenizer_name_or_path": "other"}, "tokenizer_name_or_path is 'other'"),
        ({"transformer_task": "image-to-text"}, "transformer_task 'image-to-text' is not supp"),
        ({"pooling": "cls"}, "pooling is set, which neither sparsebert nor"),
        (
            {
                "modality_config": {
                    "text": {"method": "forward", "method_output_name": "pooler_output"}
                },
                "module_output_name": "sentence_embedding",
            },
            "an output of the model other than last_hidden_state",
        ),
        (
            {
                "modality_config": {
                    name: {"method": "forward", "method_output_name": "last_hidden_state"}
                    for name in ("text", "message")
                }
            },
            "into chat messages",
        ),
        ({"modality_config": {"image": {}}}, "an output of the model other"),
        (
            {
                "modality_config": {
                    "text": {"method": "forward", "method_output_name": "last_hidden_state"}
                },
                "module_output_name": "sentence_embedding",
            },
            "module_output_name 'sentence_embedding' is not supported",
        ),
    ],
    ids=str,
)
def test_what_would_compute_something_else_is_refused(
    folder: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    write(folder, settings)
    with pytest.raises(CheckpointError, match=message):
        load(folder)
    prune(folder, tmp_path / "sparse")  # the weights are not concerned
    pack(tmp_path / "sparse", tmp_path / "packed")


@pytest.mark.parametrize("length", [0, -1, 1.5, "128", True, []])
def test_lengths_that_are_none(folder: Path, length: object) -> None:
    with pytest.raises(CheckpointError, match="not a number of tokens"):
        read_sentence_config(write(folder, {"max_seq_length": length}))


def test_cross_encoders_with_modules_have_the_file_too(tmp_path: Path, tiny_bert: Any) -> None:
    library = pytest.importorskip("sentence_transformers")
    source = tiny_bert("sequence-classification", num_labels=1)
    library.CrossEncoder(str(source), device="cpu").save_pretrained(str(tmp_path / "m"))
    settings = json.loads((tmp_path / "m" / NAME).read_text())
    assert settings["transformer_task"] == "sequence-classification"
    write(tmp_path / "m", {**settings, "tokenizer_args": {"model_max_length": 12}})
    pairs = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], long_text(30))]
    theirs = library.CrossEncoder(str(tmp_path / "m"), device="cpu").predict(pairs)
    with pytest.warns(UserWarning, match="longer than 12 tokens"):
        ours = load(tmp_path / "m").classify(pairs)
    assert np.abs(np.array([row[0]["score"] for row in ours]) - theirs).max() < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": True, "processor_kwargs": {"do_lower_case": False}},
        {"tokenizer_args": {"truncation_side": "left"}},
        {"tokenizer_args": {"model_input_names": ["input_ids", "attention_mask"]}},
        {"processor_kwargs": {"split_special_tokens": True}},
    ],
    ids=str,
)
def test_training_reads_texts_as_inference_does(folder: Path, settings: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    from sparsebert.tasks.examples import Examples
    from sparsebert.tasks.table import get_task
    from sparsebert.tasks.tokens import load_tokenizer, tokenize

    write(folder, settings)
    texts = [*TEXTS, "an [SEP] in a text"]
    others = texts[::-1]
    labels = np.zeros(len(texts), np.int64)
    examples = Examples(get_task("mrpc"), "train", "", texts, others, labels, texts)
    rows = tokenize(load_tokenizer(folder), examples, 20)
    tokenizer = folder_tokenizer(folder, positions=20, type_vocab_size=2)
    assert tokenizer is not None
    ours, _ = tokenizer.encode_truncated(as_texts(list(zip(texts, others, strict=True))))
    for place, tokens in enumerate(ours):
        ids, types = rows.row(place)
        assert ids.tolist() == tokens.ids.tolist()
        assert types.tolist() == tokens.type_ids.tolist()


def test_a_folder_without_modules_has_none(folder: Path) -> None:
    write(folder, {"max_seq_length": 9})
    (folder / "modules.json").unlink()
    assert read_sentence_config(folder) == SentenceConfig()


def test_the_transformer_may_lie_in_a_sub_folder(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", transformer="0_Transformer")
    (tmp_path / "0_Transformer").mkdir()
    write(tmp_path / "0_Transformer", {"max_seq_length": 9})
    assert read_sentence_config(tmp_path).max_length == 9


SENTENCE_FILES = [
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]


@pytest.mark.parametrize("place", range(7))
def test_the_first_of_seven_files_counts(tmp_path: Path, place: int) -> None:
    modules = pytest.importorskip("sentence_transformers.base.modules")
    write_modules(tmp_path, "Transformer", "Pooling")
    for length, name in enumerate(SENTENCE_FILES[place:], 100 + place):
        write(tmp_path, {"max_seq_length": length, "do_lower_case": True}, name)
    theirs = modules.Transformer.load_config(str(tmp_path))
    assert read_sentence_config(tmp_path) == SentenceConfig(100 + place, lower_case=True)
    assert theirs["max_seq_length"] == 100 + place


def test_an_empty_file_is_passed_over(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling")
    write(tmp_path, {}, SENTENCE_FILES[0])
    write(tmp_path, {"max_seq_length": 7}, SENTENCE_FILES[1])
    assert read_sentence_config(tmp_path) == SentenceConfig(7)
