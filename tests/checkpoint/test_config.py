"""config.json: what is read from it, and that every wrong value is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bert_folders import bert_config
from sparsebert.checkpoint import Head, write_config
from sparsebert.checkpoint.config import EncoderConfig, parse_config
from sparsebert.checkpoint.json_files import read_json, read_object
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError
from sparsebert.patterns import Pattern

WHERE = Path("folder/config.json")


def parse(head: str = "encoder", names: tuple[str, ...] = (), **changes: Any) -> EncoderConfig:
    return parse_config(bert_config(head, **changes), names, WHERE)


def test_sizes_and_choices_are_read() -> None:
    config = parse("sequence-classification", hidden_act="relu", layer_norm_eps=1e-5)
    assert config.head is Head.SEQUENCE
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (11, 8, 24)
    assert (config.num_hidden_layers, config.num_attention_heads) == (2, 2)
    assert (config.max_position_embeddings, config.type_vocab_size) == (16, 2)
    assert (config.hidden_act, config.layer_norm_eps, config.pad_token_id) == ("relu", 1e-5, 0)
    assert config.labels == ("no", "maybe", "yes")
    assert config.problem_type is None
    assert config.sparsity is None
    assert config.raw["model_type"] == "bert"


def test_old_files_without_later_keys_are_read() -> None:
    """The files of 2019 had neither model_type nor these."""
    config = parse(
        model_type=None,
        layer_norm_eps=None,
        pad_token_id=None,
        hidden_act=None,
        type_vocab_size=None,
    )
    assert (config.layer_norm_eps, config.pad_token_id, config.hidden_act) == (1e-12, 0, "gelu")
    assert config.type_vocab_size == 2


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("BertModel", Head.ENCODER),
        ("BertForSequenceClassification", Head.SEQUENCE),
        ("BertForQuestionAnswering", Head.QUESTION),
        ("BertForTokenClassification", Head.TOKEN),
        ("BertForMaskedLM", Head.MASKED_LM),
        ("BertForPreTraining", Head.MASKED_LM),
    ],
)
def test_the_architecture_decides_the_head(architecture: str, head: Head) -> None:
    assert parse(architectures=[architecture]).head is head


@pytest.mark.parametrize(
    ("names", "head"),
    [
        (("embeddings.word_embeddings.weight", "pooler.dense.weight"), Head.ENCODER),
        (("classifier.weight", "pooler.dense.weight"), Head.SEQUENCE),
        (("classifier.weight",), Head.TOKEN),
        (("qa_outputs.weight",), Head.QUESTION),
        (("cls.predictions.bias", "pooler.dense.weight"), Head.MASKED_LM),
    ],
)
@pytest.mark.parametrize("architectures", [None, []])
def test_without_one_the_tensors_do(
    names: tuple[str, ...], head: Head, architectures: list[str] | None
) -> None:
    assert parse(names=names, architectures=architectures).head is head


def test_a_masked_lm_saved_without_its_head_is_an_encoder() -> None:
    names = ("embeddings.LayerNorm.weight", "pooler.dense.weight")
    assert parse("masked-lm", names).head is Head.ENCODER
    assert parse("masked-lm", (*names, "cls.predictions.bias")).head is Head.MASKED_LM
    assert parse("question-answering", names).head is Head.QUESTION


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["BertForMultipleChoice"]},
        {"architectures": ["BertLMHeadModel"]},
        {"architectures": ["RobertaModel"]},
    ],
)
def test_other_heads_are_refused_and_the_supported_listed(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="BertForSequenceClassification"):
        parse(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "xlnet", "architectures": ["XLNetModel"]},
        {"model_type": None, "architectures": ["T5Model"]},
        {"model_type": None, "architectures": None},
        {"model_type": 7},
    ],
)
def test_other_families_are_refused_and_the_supported_listed(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="bert, roberta, .*, modernbert"):
        parse(**changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("auto_map", {"AutoModel": "modeling_mine.MyBert"}),
        ("hidden_act", "quick_gelu"),
        ("hidden_act", ["gelu"]),
    ],
)
def test_variants_of_bert_are_refused(key: str, value: object) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="support|quantised"):
        parse(**{key: value})


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, [8], 2**40, float("nan")])
def test_every_size_is_checked(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"{key} must be an integer"):
        parse(**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_encoder_decoder": True}, "only encoders are supported"),
        ({"per_layer_config": {"0": {"hidden_size": 4}}}, "layers of different sizes"),
        ({"model_type": "modernbert", "architectures": None, "head_dim": 8}, "head_dim is 8"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=message):
        parse(**changes)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_a_missing_size_is_named(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
        parse(**{key: None})


@pytest.mark.parametrize("value", [0, -1e-12, 1, "1e-12", float("nan"), float("inf"), True])
def test_epsilon_is_checked(value: object) -> None:
    with pytest.raises(CheckpointError, match="layer_norm_eps"):
        parse(layer_norm_eps=value)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(CheckpointError, match="hidden_size 8 cannot be divided among 3"):
        parse(num_attention_heads=3)


@pytest.mark.parametrize("value", [-1, 11, "0", 1.0])
def test_the_padding_token_is_in_the_vocabulary(value: object) -> None:
    with pytest.raises(CheckpointError, match="pad_token_id"):
        parse(pad_token_id=value)


class TestLabels:
    def test_they_come_in_the_order_of_their_numbers(self) -> None:
        labels = {str(i): f"label {i}" for i in reversed(range(12))}
        config = parse("token-classification", id2label=labels)
        assert config.labels == tuple(f"label {i}" for i in range(12))

    def test_two_unnamed_ones_are_transformers_default(self) -> None:
        config = parse("sequence-classification", id2label=None)
        assert config.labels == ("LABEL_0", "LABEL_1")

    @pytest.mark.parametrize("head", ["encoder", "question-answering", "masked-lm"])
    def test_other_heads_have_none(self, head: str) -> None:
        assert parse(head, id2label={"0": "a"}).labels == ()

    def test_one_label_is_regression(self) -> None:
        config = parse("sequence-classification", id2label={"0": "score"})
        assert config.problem_type == "regression"
        given = parse("sequence-classification", problem_type="multi_label_classification")
        assert given.problem_type == "multi_label_classification"

    @pytest.mark.parametrize("labels", [{}, [], {"1": "a"}, {"0": "a", "2": "b"}, {"a": "0"}, "ab"])
    def test_malformed_ones_are_refused(self, labels: object) -> None:
        with pytest.raises(CheckpointError, match="id2label"):
            parse("sequence-classification", id2label=labels)

    def test_an_unknown_problem_type_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="problem_type 'ranking'"):
            parse("sequence-classification", problem_type="ranking")


class TestSparsityRecord:
    record: dict[str, Any] = {  # noqa: RUF012 - never changed, only copied
        "format_version": 1,
        "pattern": "2:4",
        "method": "magnitude",
        "layers": ["pooler.dense.weight"],
        "lineage": [{"step": "prune"}],
    }

    def test_it_is_read(self) -> None:
        config = parse(sparsity=self.record)
        assert config.recorded_pattern == Pattern(2, 4)
        assert config.recorded_layers == ("pooler.dense.weight",)
        assert parse().recorded_pattern is None
        assert parse().recorded_layers == ()

    def test_a_lineage_without_a_pattern_is_read(self) -> None:
        record = {**self.record, "pattern": None, "method": None, "layers": []}
        assert parse(sparsity=record).recorded_pattern is None

    @pytest.mark.parametrize(
        "change",
        [
            {"format_version": 0},
            {"format_version": "1"},
            {"format_version": None},
            {"pattern": 7},
            {"pattern": "2:1"},
            {"pattern": None},
            {"method": []},
            {"layers": "pooler"},
            {"layers": [1]},
            {"lineage": {}},
            {"lineage": ["prune"]},
        ],
    )
    def test_other_records_are_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(CheckpointError, match="'sparsity'"):
            parse(sparsity={**copy.deepcopy(self.record), **change})

    def test_one_of_a_later_version_says_so(self) -> None:
        with pytest.raises(CheckpointError, match="Install a newer one"):
            parse(sparsity={**self.record, "format_version": 2})

    def test_it_must_be_an_object(self) -> None:
        with pytest.raises(CheckpointError, match="'sparsity'"):
            parse(sparsity=["1:2"])


class TestDocuments:
    @pytest.mark.parametrize(
        "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"a": }']
    )
    def test_what_is_not_json_is_refused_by_name(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_json(tmp_path / "config.json")

    def test_an_object_is_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("[]")
        with pytest.raises(CheckpointError, match="must hold a JSON object, not list"):
            read_object(tmp_path / "config.json")

    def test_a_huge_file_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "config.json").open("wb") as file:
            file.truncate(1 << 30)
        with pytest.raises(CheckpointError, match="too large"):
            read_json(tmp_path / "config.json")

    def test_config_is_written_to_a_file_or_into_a_folder(self, tmp_path: Path) -> None:
        write_config(tmp_path, {"b": 1, "a": "ä"})
        write_config(tmp_path / "other.json", {"b": 1, "a": "ä"})
        text = (tmp_path / "config.json").read_text(encoding="utf-8")
        assert text == '{\n  "a": "ä",\n  "b": 1\n}\n'
        assert json.loads((tmp_path / "other.json").read_text(encoding="utf-8"))["b"] == 1
