"""Families of encoders: their settings, and that each variant we do not compute is refused."""

from __future__ import annotations

from typing import Any

import pytest

from family_configs import parse
from sparsebert.checkpoint.attention_layers import LayerAttention
from sparsebert.checkpoint.families import FAMILIES, Head
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError


@pytest.mark.parametrize(
    ("model_type", "head"),
    [(name, head) for name, family in FAMILIES.items() for head in (Head.ENCODER, *family.heads)],
)
def test_names_go_there_and_back(model_type: str, head: Head) -> None:
    from sparsebert.checkpoint.architecture import expected_shapes, linear_names, optional_shapes

    config = parse(model_type, head)
    names = {**expected_shapes(config), **optional_shapes(config)}
    for name in names:
        assert config.family.canonical(config.family.parameter(name, head)) == name
        assert config.family.canonical(config.family.spelled(name)) == name
    assert len({config.family.spelled(name) for name in names}) == len(names)
    assert set(linear_names(config)) <= set(names)


def test_sizes_are_read_under_the_familys_own_keys() -> None:
    config = parse("distilbert", activation="relu")
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (24, 4, 20)
    assert (config.num_attention_heads, config.hidden_act) == (3, "relu")
    with pytest.raises(CheckpointError, match="lacks 'dim'"):
        parse("distilbert", dim=...)
    config = parse("modernbert", hidden_activation="relu", norm_eps=1e-3)
    assert (config.hidden_act, config.layer_norm_eps) == ("relu", 1e-3)
    assert parse("modernbert").layer_norm_eps == 1e-5


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "mpnet"])
def test_positions_counted_from_the_padding_leave_room_for_it(model_type: str) -> None:
    config = parse(model_type)
    assert (config.first_position, config.max_length) == (2, 16)
    assert parse(model_type, pad_token_id=...).first_position == 2  # transformers' default
    with pytest.raises(CheckpointError, match="leaves no position after that of pad_token_id, 1"):
        parse(model_type, max_position_embeddings=2)
    with pytest.raises(CheckpointError, match="pad_token_id None"):
        parse(model_type, pad_token_id=None)


def test_other_families_begin_with_the_first_position() -> None:
    for model_type in ("bert", "distilbert", "electra", "modernbert"):
        config = parse(model_type)
        assert (config.first_position, config.max_length) == (0, 18)


def test_types_are_told_apart_where_there_is_a_table() -> None:
    assert parse("roberta", type_vocab_size=1).type_vocab_size == 1
    assert parse("electra").type_vocab_size == 2
    for model_type in ("distilbert", "mpnet", "modernbert"):
        assert parse(model_type, type_vocab_size=7).type_vocab_size == 1


def test_embeddings_may_be_narrower_in_electra() -> None:
    assert parse("electra", embedding_size=12).embedding_size == 12
    assert parse("electra").embedding_size == 128  # transformers' default
    assert parse("bert", embedding_size=12).embedding_size == 24
    assert parse("electra", architectures=["ElectraForPreTraining"]).head is Head.ENCODER


def test_layers_of_albert_share_their_weights() -> None:
    from sparsebert.checkpoint.architecture import expected_shapes, linear_names

    assert parse("bert").layer_order == (0, 1, 2, 3)
    one = parse("albert")
    assert (one.layer_order, one.stored_layers) == ((0, 0, 0, 0), 1)
    assert parse("albert", num_hidden_groups=2).layer_order == (0, 0, 1, 1)
    assert parse("albert", num_hidden_groups=3).layer_order == (0, 0, 1, 2)
    assert len([name for name in linear_names(one) if name.startswith("encoder.")]) == 6
    same = parse("albert", embedding_size=24)  # projected all the same
    assert expected_shapes(same)["embeddings.projection.weight"] == (24, 24)
    with pytest.raises(
        CheckpointError, match="num_hidden_groups is 5, but there are only 4 layers"
    ):
        parse("albert", num_hidden_groups=5)


GLOBAL, LOCAL = LayerAttention(None, 160_000.0), LayerAttention(64, 10_000.0)


def test_modernbert_attends_far_in_every_third_layer() -> None:
    assert parse("modernbert").attention == (GLOBAL, LOCAL, LOCAL, GLOBAL)
    assert parse("bert").attention == (LayerAttention(),) * 4


@pytest.mark.parametrize(
    ("changes", "attention"),
    [
        ({"global_attn_every_n_layers": 2}, (GLOBAL, LOCAL, GLOBAL, LOCAL)),
        (
            {"global_attn_every_n_layers": 1, "global_rope_theta": 7.5},
            (LayerAttention(None, 7.5),) * 4,
        ),
        (
            {"layer_types": ["sliding_attention"] * 4, "local_attention": 9, "local_rope_theta": 5},
            (LayerAttention(4, 5.0),) * 4,
        ),
        (
            {
                "layer_types": ["full_attention"] * 4,
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 20.0},
                    "sliding_attention": None,
                },
                "global_rope_theta": 30.0,
            },
            (LayerAttention(None, 20.0),) * 4,
        ),
    ],
)
def test_layers_are_read_in_the_forms_of_then_and_now(changes: Any, attention: Any) -> None:
    assert parse("modernbert", **changes).attention == attention


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("modernbert", {"hidden_activation": "mish"}, "hidden_activation 'mish' is not supported"),
        ("modernbert", {"classifier_activation": "mish"}, "classifier_activation 'mish'"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling 'max'"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "of type 'yarn' are not supported"),
        (
            "modernbert",
            {"rope_parameters": {"rope_type": "linear", "factor": 2}},
            "of type 'linear' are not supported",
        ),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}}},
            "of type 'linear' are not supported",
        ),
        ("mpnet", {"relative_attention_num_buckets": 16}, "must be 32"),
        ("mpnet", {"pad_token_id": 0}, "pad_token_id must be 1"),
        ("roberta", {"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ("xlm-roberta", {"is_decoder": True}, "decoders"),
        ("bert", {"is_causal": True}, "only attention in both directions"),
        ("bert", {"transformers_weights": "other.safetensors"}, "only read from model.safetensors"),
        ("distilbert", {"activation": "mish"}, "activation 'mish' is not supported"),
        ("electra", {"architectures": ["ElectraForMultipleChoice"]}, "ElectraForMaskedLM"),
        ("albert", {"inner_group_num": 2}, "groups of more than one layer are not supported"),
        ("deberta-v2", {"relative_attention": False}, "relative_attention is False"),
        ("deberta-v2", {"share_att_key": ...}, "share_att_key is False"),
        ("deberta-v2", {"embedding_size": 12}, "embedding_size is 12, but only DeBERTa"),
        ("deberta-v2", {"conv_kernel_size": 3}, "DeBERTa v2's convolution"),
        ("deberta-v2", {"pos_att_type": "c2p|p2p"}, "only c2p, p2c or both"),
        ("deberta-v2", {"pos_att_type": ...}, "only c2p, p2c or both"),
        ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd 'batch_norm' is not"),
        ("deberta-v2", {"architectures": ["DebertaV2ForMaskedLM"], "legacy": False}, "legacy is"),
    ],
)
def test_variants_are_refused(model_type: str, changes: Any, message: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=message):
        parse(model_type, Head.SEQUENCE, **{"id2label": {"0": "no"}, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types must be a list of 4"),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types must be a list of 4"),
        ({"layer_types": "full_attention"}, "layer_types must be a list of 4"),
        ({"local_attention": 0}, "local_attention must be an integer"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers must be an integer"),
        ({"global_rope_theta": None}, "global_rope_theta must be a number above 1"),
        ({"local_rope_theta": float("nan")}, "local_rope_theta must be a number above 1"),
        ({"rope_parameters": "far"}, "rotary parameters must be JSON objects"),
        ({"rope_parameters": {"full_attention": 3}}, "rotary parameters must be JSON objects"),
        ({"norm_bias": 1}, "norm_bias must be true or false"),
        ({"num_attention_heads": 8}, "an even number of dimensions, not 3"),
    ],
)
def test_settings_of_modernbert_that_make_no_sense(changes: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse("modernbert", **changes)
