"""Families of encoders in int8: against the same arithmetic in plain numpy, on every set.

`test_int8_engine.py` does the same for BERT, and says how tightly each is held.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from test_int8_engine import SETS, STEP, AfterEncoder, joined, packed, relative

from family_configs import parse
from reference_bert import ReferenceBert
from reference_int8 import ReferenceInt8
from sparsebert.checkpoint.architecture import expected_shapes, linear_names
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.checkpoint.families import FAMILIES, Head
from sparsebert.engine import Encoder
from sparsebert.packing.dtypes import Role, Roles
from sparsebert.quantized import Quantized, QuantizedTable, dequantize, quantize

LENGTHS = [1, 15, 16, 17, 33, 2, 130, 64, 5]
SIZES = {"vocab_size": 37, "hidden_size": 36, "intermediate_size": 52, "num_attention_heads": 3}
BIASES = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
LOCAL = {"layer_types": ["sliding_attention"], "local_attention": 20}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("roberta", {"type_vocab_size": 1}),
    "distilbert": ("distilbert", {}),
    "electra, narrow embeddings": ("electra", {"embedding_size": 20}),
    "electra, wide embeddings": ("electra", {"embedding_size": 68}),
    "albert": ("albert", {"embedding_size": 20}),
    "albert, in two groups": ("albert", {"embedding_size": 36, "num_hidden_groups": 2}),
    "mpnet": ("mpnet", {}),
    "modernbert": ("modernbert", {"classifier_pooling": "mean"}),
    "modernbert, local": ("modernbert", {**LOCAL, **BIASES, "classifier_activation": "relu"}),
    "ernie, with tasks": ("ernie", {"use_task_id": True}),
    "deberta-v2": ("deberta-v2", {}),
    "deberta-v2, one term, large heads": (
        "deberta-v2",
        {
            "pos_att_type": "p2c",
            "position_buckets": -1,
            "hidden_size": 128,
            "num_attention_heads": 2,
        },
    ),
    "nomic_bert": ("nomic_bert", {}),
    "gte": ("gte", {"type_vocab_size": 1}),
    "gte, scaled positions": (
        "gte",
        {
            "type_vocab_size": 0,
            "hidden_act": "silu",
            "intermediate_size": 48,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 1.5},
        },
    ),
    "jina_embeddings_v3": ("jina_embeddings_v3", {"type_vocab_size": 1}),
    "jina_bert": ("jina_bert", {}),
    "jina_bert, of code": ("jina_bert_code", {"hidden_act": "relu"}),
    "modernbert, large heads": (
        "modernbert",
        {**LOCAL, "hidden_size": 128, "num_attention_heads": 2},
    ),
}


@cache
def model(
    kind: str, head: Head = Head.ENCODER, layers: int = 1
) -> tuple[EncoderConfig, dict[str, Any]]:
    """Random weights in int8, layers 1:2. Not to be written into: they are made once."""
    model_type, changes = MODELS[kind]
    if layers > 1 and "layer_types" in changes:
        changes = {
            **changes,
            "layer_types": ["full_attention", "sliding_attention"] * (layers // 2),
        }
    if layers == 1 and "num_hidden_groups" in changes:
        changes = {**changes, "num_hidden_groups": 1}
    settings = {**SIZES, "num_hidden_layers": layers, "max_position_embeddings": 140}
    settings |= {"id2label": {"0": "no", "1": "maybe", "2": "yes"}, **changes}
    family = parse(model_type).family
    config = parse(
        model_type, head, **{family.fields.get(name, name): v for name, v in settings.items()}
    )
    random = np.random.default_rng(7)
    roles, linears = Roles(config), linear_names(config)
    weights: dict[str, Any] = {}
    for name, shape in expected_shapes(config).items():
        value = random.standard_normal(shape).astype(np.float32)
        role = roles.of(name, len(shape))
        if role is Role.TABLE:
            weights[name] = quantize(value, QuantizedTable)
        elif role is Role.LINEAR:
            value *= np.float32(1.5 / np.sqrt(shape[1]))
            weights[name] = packed(value, "1:2" if linears[name] == "encoder" else None)
        else:
            weights[name] = value
    return config, weights


def batch(config: EncoderConfig) -> tuple[list[np.ndarray], list[np.ndarray], Any]:
    """Ids without padding, which counts no position in some families."""
    random = np.random.default_rng(1)
    ids = [random.integers(2, 37, n).astype(np.int32) for n in LENGTHS]
    types = [random.integers(0, config.type_vocab_size, n).astype(np.int32) for n in LENGTHS]
    return ids, types, joined(ids, types)


def plain(kind: str, layers: int, exact: bool) -> ReferenceBert:
    config, weights = model(kind, layers=layers)
    if exact:
        weights = {n: dequantize(w) if isinstance(w, Quantized) else w for n, w in weights.items()}
    return (ReferenceBert if exact else ReferenceInt8)(
        weights,
        config.num_attention_heads,
        config.hidden_act,
        config.layer_norm_eps,
        config.first_position,
        [layer.window for layer in config.attention],
        [layer.theta for layer in config.attention],
        config.attention[0].factor,
        config.layer_order,
        config.slopes,
        config.disentangled,
    )


@cache
def expected(kind: str, layers: int = 1, exact: bool = False) -> np.ndarray:
    """What plain numpy gives for the hidden states of `batch`."""
    reference = plain(kind, layers, exact)
    ids, types, _ = batch(model(kind)[0])
    return np.concatenate([reference.hidden(i, t) for i, t in zip(ids, types, strict=True)])


@pytest.mark.parametrize("kind", MODELS)
def test_one_layer_is_that_of_plain_numpy(isa: str, kind: str) -> None:
    config, weights = model(kind)
    *_, arrays = batch(config)
    for threads in (1, 2):
        encoder = Encoder(config, weights, threads=threads)
        assert relative(encoder.hidden(*arrays), expected(kind)) < STEP / 2


@pytest.mark.parametrize("kind", MODELS)
def test_deep_models_are_as_near_to_floats_as_plain_numpy(isa: str, kind: str) -> None:
    config, weights = model(kind, layers=4)
    exact = expected(kind, layers=4, exact=True)
    by_reference = relative(expected(kind, layers=4), exact)
    found = Encoder(config, weights, threads=2).hidden(*batch(config)[2])
    assert 0 < relative(found, exact) < 1.3 * by_reference
    assert by_reference < 0.1


@pytest.mark.parametrize(
    ("kind", "head"),
    [(kind, head) for kind, (name, _) in MODELS.items() for head in FAMILIES[name].heads],
)
def test_heads(kind: str, head: Head) -> None:
    config, weights = model(kind, head)
    *_, arrays = batch(config)
    alone = Encoder(config, weights, threads=1)
    wanted = []
    for rows in np.split(alone.hidden(*arrays), arrays[2][1:-1]):
        after = AfterEncoder(
            weights, config.num_attention_heads, epsilon=config.layer_norm_eps, given=rows
        )
        wanted.append(np.atleast_2d(after.head_logits(config.head_shape, ())))
    logits = alone.head(*arrays)
    assert relative(logits, np.concatenate(wanted)) < STEP / 2
    for threads in (2, 3):
        found = Encoder(config, weights, threads=threads).head(*arrays)
        np.testing.assert_array_equal(found, logits)


@pytest.mark.parametrize("kind", MODELS)
def test_batch_composition_changes_no_bit(isa: str, kind: str) -> None:
    config, weights = model(kind, layers=2)
    ids, types, arrays = batch(config)
    encoder = Encoder(config, weights, threads=2)
    together = np.split(encoder.hidden(*arrays), arrays[2][1:-1])
    for place, (row, kinds) in enumerate(zip(ids, types, strict=True)):
        alone = encoder.hidden(*joined([row], [kinds]))
        np.testing.assert_array_equal(together[place], alone)


@pytest.mark.parametrize("kind", MODELS)
def test_first_tokens_alone_change_no_bit(isa: str, kind: str) -> None:
    config, weights = model(kind, layers=2)
    *_, arrays = batch(config)
    encoder = Encoder(config, weights, threads=2)
    found = encoder.pooled(*arrays, mode="cls", normalize=False)
    np.testing.assert_array_equal(found, encoder.hidden(*arrays)[arrays[2][:-1]])


@pytest.mark.parametrize("kind", MODELS)
def test_instruction_sets_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config, weights = model(kind, layers=2)
    *_, arrays = batch(config)
    found = []
    for isa in SETS:
        monkeypatch.setenv("SPARSEBERT_ISA", isa)
        found.append(Encoder(config, weights, threads=1).hidden(*arrays))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
