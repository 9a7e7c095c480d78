"""The int8 reference itself: it reads every layout, and stays near the same network in floats."""

from __future__ import annotations

import numpy as np
import pytest

from bert_folders import bert_config, bert_tensors
from reference_bert import ReferenceBert
from reference_int8 import (
    ReferenceInt8,
    quantize_activations,
    quantize_heads,
    weight_integers,
)
from sparsebert.patterns import Pattern, mask_from_scores
from sparsebert.quantized import (
    QuantizedDense,
    QuantizedTable,
    dequantize,
    linear_layout,
    quantize,
    quantize_rows,
)

HEADS = ["encoder", "sequence-classification", "question-answering", "token-classification"]
HEADS += ["masked-lm"]
LOGITS = {
    "sequence-classification": "sequence_logits",
    "question-answering": "question_logits",
    "token-classification": "token_logits",
    "masked-lm": "vocabulary_logits",
}
IDS, TYPES = [3, 1, 4, 1, 5, 9, 2, 6, 5], [0, 0, 0, 0, 1, 1, 1, 1, 1]


def int8_weights(head: str, pattern: str | None, as_dense: bool = False):
    """Weights of a small BERT, the encoder's pruned, in int8; ``as_dense``: zeros stored too."""
    config = bert_config(head, hidden_size=36, intermediate_size=52, num_attention_heads=3)
    weights = {}
    for stored, value in bert_tensors(config, head).items():
        name = stored.removeprefix("bert.")
        if value.ndim != 2 or name in ("classifier.weight", "qa_outputs.weight"):
            weights[name] = value
        elif "embeddings." in name:
            weights[name] = quantize(value, QuantizedTable)
        elif pattern is None or not name.startswith("encoder."):
            weights[name] = quantize(value / 4, QuantizedDense)
        else:
            kind = Pattern.parse(pattern)
            mask = mask_from_scores(np.abs(value), kind)
            pruned = value * mask / 4
            if as_dense:
                weights[name] = quantize(pruned, QuantizedDense)
            else:
                weights[name] = quantize(pruned, linear_layout(kind), kind, mask)
    return weights


def floats(weights):
    return {n: w if isinstance(w, np.ndarray) else dequantize(w) for n, w in weights.items()}


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (15, 6), (16, 8), (17, 10), (50, 132)])
@pytest.mark.parametrize("pattern", [None, "1:2", "2:4", "1:3", "table"])
def test_it_reads_every_layout_as_the_package_writes_it(rows, columns, pattern):
    columns *= 6
    weight = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    if pattern in (None, "table"):
        packed = quantize(weight, QuantizedDense if pattern is None else QuantizedTable)
    else:
        kind = Pattern.parse(pattern)
        mask = mask_from_scores(np.abs(weight), kind)
        weight *= mask
        packed = quantize(weight, linear_layout(kind), kind, mask)
    integers, _ = quantize_rows(weight, small_pairs=pattern != "table")
    assert np.array_equal(weight_integers(packed), integers)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", [None, "1:2", "2:4", "1:4"])
def test_it_is_near_the_float_network_of_the_same_weights(head, pattern):
    weights = int8_weights(head, pattern)
    exact = ReferenceBert(floats(weights), 3)
    rounded = ReferenceInt8(weights, 3)
    method = LOGITS.get(head, "hidden")
    wanted = getattr(exact, method)(IDS, TYPES)
    got = getattr(rounded, method)(IDS, TYPES)
    assert got.shape == wanted.shape
    error = np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))
    assert 1e-6 < error < 0.04  # rounded, and no more than that


@pytest.mark.parametrize("pattern", ["1:2", "2:4"])
def test_the_layout_changes_nothing(pattern):
    sparse = ReferenceInt8(int8_weights("encoder", pattern), 3)
    dense = ReferenceInt8(int8_weights("encoder", pattern, as_dense=True), 3)
    assert np.array_equal(sparse.hidden(IDS), dense.hidden(IDS))


def test_activations_keep_their_zero_and_their_ends():
    x = np.array([[0, -1, 3, 2.001], [5, 6, 7, 8], [-4, -3, -2, -1], [0, 0, 0, 0]], np.float32)
    rows = quantize_activations(x)
    assert rows.values.min() >= 0
    assert rows.values.max() <= 255
    assert rows.zeros.tolist() == [64, 0, 255, 0]
    assert np.abs(rows.floats - x).max() <= 0.51 * rows.scales.max()
    assert rows.floats[0, 0] == 0
    assert not rows.values[3].any()
    assert rows.scales[3] == 0


def test_heads_are_symmetric():
    rows = quantize_heads(np.array([[-2.0, 1, 0], [0, 0, 0]], np.float32))
    assert rows.values.tolist() == [[-127, 64, 0], [0, 0, 0]]
    assert rows.scales[1] == 0


def test_steps_are_what_the_layers_multiplied():
    weights = int8_weights("encoder", "1:2")
    reference = ReferenceInt8(weights, 3)
    reference.hidden(IDS)
    query = "encoder.layer.0.attention.self.query"
    rows = reference.steps[query]
    projected = rows.floats @ dequantize(weights[f"{query}.weight"]).T + weights[f"{query}.bias"]
    heads = reference.steps[f"{query}.rows"].floats
    by_head = projected.reshape(len(IDS), 3, 12).transpose(1, 0, 2)
    assert np.abs(heads - by_head).max() <= 0.51 * reference.steps[f"{query}.rows"].scales.max()
    probabilities = reference.steps["encoder.layer.0.attention.probabilities"]
    assert probabilities.values.shape == (3, len(IDS), len(IDS))
    assert probabilities.values.max() == 255
    value = reference.steps["encoder.layer.0.attention.self.value.rows"]
    shares = probabilities.floats / value.scales[:, None, :]
    assert np.abs(shares.sum(-1) - 1).max() < 0.03
