"""The native engine in int8: against the same arithmetic in plain numpy, on every instruction set.

Sums of int8 products are exact, but what goes into them is rounded to whole numbers, and float32
rounds a few of those otherwise than the reference's float64. Each further layer carries such steps
on and adds some of its own, so a single layer is held tightly to `reference_int8`, and a deep model
by its distance from the same network in floats: as near as the reference is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bert_folders import bert_config, bert_tensors
from reference_bert import ReferenceBert
from reference_int8 import ReferenceInt8
from sparsebert.checkpoint.config import EncoderConfig, parse_config
from sparsebert.compressed import compress
from sparsebert.engine import Encoder, available_instruction_sets
from sparsebert.errors import CheckpointError, EngineError, InputError
from sparsebert.patterns import ONE_OF_TWO, Pattern, mask_from_scores
from sparsebert.quantized import (
    Quantized,
    QuantizedDense,
    QuantizedPairs,
    QuantizedSharedPairs,
    QuantizedTable,
    dequantize,
    linear_layout,
    quantize,
)

SETS = available_instruction_sets()
# Hidden, intermediate, heads: sizes that neither 16 nor 8 divides, and some that both do.
SHAPES = [(36, 52, 3), (52, 36, 4), (96, 132, 3), (128, 512, 4)]
# By turns of the layers' names; "mixed" is a model of which each layer is stored otherwise.
PATTERNS: dict[str, list[str | None]] = {
    "1:2": ["1:2"],
    "shared": ["1:2 shared by 16 rows", "1:2 shared by 128 rows"],
    "2:4": ["2:4"],
    "dense": [None],
    "mixed": ["1:2", None, "2:4", "1:4"],
}
LOGITS = {
    "sequence-classification": "sequence_logits",
    "question-answering": "question_logits",
    "token-classification": "token_logits",
    "masked-lm": "vocabulary_logits",
}
LENGTHS = [1, 15, 16, 17, 33, 2, 130, 64, 5]
STEP = 1 / 255  # of what an activation is rounded to
Weights = dict[str, Any]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@cache
def model(
    head: str = "encoder",
    pattern: str = "1:2",
    shape: tuple[int, int, int] = SHAPES[0],
    layers: int = 2,
    untied: bool = False,
    activation: str = "gelu",
) -> tuple[EncoderConfig, Weights]:
    """A BERT of random weights in int8. Not to be written into: it is made once."""
    hidden, wide, heads = shape
    raw = bert_config(
        head,
        hidden_size=hidden,
        intermediate_size=wide,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        vocab_size=37,
        max_position_embeddings=512,
        hidden_act=activation,
    )
    tensors = bert_tensors(raw, head, seed=hidden)
    if untied:
        random = np.random.default_rng(1)
        tensors["cls.predictions.decoder.weight"] = random.normal(size=(37, hidden)).astype("f4")
    weights: Weights = {}
    turn = 0
    for stored, value in tensors.items():
        name = stored.removeprefix("bert.")
        if value.ndim == 1 or name in ("classifier.weight", "qa_outputs.weight"):
            weights[name] = value
        elif "embeddings." in name or "decoder" in name:
            weights[name] = quantize(value, QuantizedTable)
        else:
            value = value * np.float32(1.5 / np.sqrt(value.shape[1]))
            kinds = PATTERNS[pattern] if name.startswith("encoder.") else [None]
            kind = kinds[turn % len(kinds)]
            turn += name.startswith("encoder.")
            weights[name] = packed(value, kind)
    return parse_config(raw, list(tensors), Path("config.json")), weights


def packed(value: np.ndarray, pattern: str | None) -> Quantized:
    if pattern is None:
        return quantize(value, QuantizedDense)
    kind = Pattern.parse(pattern)
    mask = mask_from_scores(np.abs(value), kind)
    return quantize(value * mask, linear_layout(kind), kind, mask)


def floats(weights: Weights) -> dict[str, np.ndarray]:
    return {n: dequantize(w) if isinstance(w, Quantized) else w for n, w in weights.items()}


def batch(lengths: list[int], seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray], Arrays]:
    random = np.random.default_rng(seed)
    ids = [random.integers(0, 37, n).astype(np.int32) for n in lengths]
    types = [random.integers(0, 2, n).astype(np.int32) for n in lengths]
    return ids, types, joined(ids, types)


def joined(ids: list[np.ndarray], types: list[np.ndarray]) -> Arrays:
    offsets = np.cumsum([0, *(len(i) for i in ids)]).astype(np.int32)
    return np.concatenate(ids), np.concatenate(types), offsets


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, of that of what was wanted."""
    assert found.shape == wanted.shape
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))


@cache
def reference(exact: bool, method: str, lengths: tuple[int, ...], key: Any) -> np.ndarray:
    """What plain numpy gives for `batch`, in int8 or (``exact``) in floats."""
    config, weights = model(**dict(key))
    kind = ReferenceBert if exact else ReferenceInt8
    bert = kind(
        floats(weights) if exact else weights,
        config.num_attention_heads,
        activation=config.hidden_act,
    )
    ids, types, _ = batch(list(lengths))
    rows = [np.atleast_2d(getattr(bert, method)(i, t)) for i, t in zip(ids, types)]
    return np.concatenate(rows)


def expected(method: str, lengths: list[int], exact: bool = False, **key: Any) -> np.ndarray:
    return reference(exact, method, tuple(lengths), tuple(sorted(key.items())))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_layer_is_that_of_plain_numpy(isa: str, pattern: str, shape: Any) -> None:
    config, weights = model(pattern=pattern, shape=shape, layers=1)
    wanted = expected("hidden", LENGTHS, pattern=pattern, shape=shape, layers=1)
    *_, arrays = batch(LENGTHS)
    encoder = Encoder(config, weights, threads=2)
    assert encoder.instruction_set == isa
    found = encoder.hidden(*arrays)
    assert relative(found, wanted) < STEP / 2


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_activations(isa: str, activation: str) -> None:
    config, weights = model(layers=1, activation=activation)
    wanted = expected("hidden", LENGTHS, layers=1, activation=activation)
    found = Encoder(config, weights, threads=1).hidden(*batch(LENGTHS)[2])
    assert relative(found, wanted) < STEP / 2


@dataclass(frozen=True)
class AfterEncoder(ReferenceInt8):
    """The heads of plain numpy, on hidden states that the engine gave."""

    given: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def hidden(self, ids: Any, type_ids: Any = None) -> npt.NDArray[np.float64]:
        return self.given.astype(np.float64)


@pytest.mark.parametrize(
    ("head", "untied"), [*((head, False) for head in LOGITS), ("masked-lm", True)]
)
def test_heads(isa: str, head: str, untied: bool) -> None:
    config, weights = model(head, layers=1, untied=untied)
    *_, arrays = batch(LENGTHS)
    for threads in (1, 3):
        encoder = Encoder(config, weights, threads=threads)
        hidden = np.split(encoder.hidden(*arrays), arrays[2][1:-1])
        wanted = np.concatenate(
            [
                np.atleast_2d(getattr(AfterEncoder(weights, 3, given=rows), LOGITS[head])(None))
                for rows in hidden
            ]
        )
        found = encoder.head(*arrays)
        # The last layers of these are in floats; the others quantise once or twice more.
        whole = head in ("question-answering", "token-classification")
        assert relative(found, wanted) < (1e-6 if whole else STEP / 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_deep_models_are_as_near_to_floats_as_plain_numpy(isa: str, pattern: str) -> None:
    key = {"pattern": pattern, "shape": SHAPES[2], "layers": 6}
    config, weights = model(**key)
    exact = expected("hidden", LENGTHS, exact=True, **key)
    by_reference = relative(expected("hidden", LENGTHS, **key), exact)
    found = Encoder(config, weights, threads=2).hidden(*batch(LENGTHS)[2])
    assert 0 < relative(found, exact) < 1.3 * by_reference
    assert by_reference < 0.1


def test_the_longest_sequences(isa: str) -> None:
    config, weights = model(layers=1)
    wanted = expected("hidden", [512, 511, 1], layers=1)
    found = Encoder(config, weights, threads=2).hidden(*batch([512, 511, 1])[2])
    assert relative(found, wanted) < STEP / 2


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "mean_sqrt_len"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling(mode: str, normalize: bool) -> None:
    config, weights = model()
    *_, arrays = batch(LENGTHS)
    encoder = Encoder(config, weights, threads=2)
    hidden = np.split(encoder.hidden(*arrays).astype(np.float64), arrays[2][1:-1])
    pool = {
        "mean": lambda x: x.mean(0),
        "cls": lambda x: x[0],
        "max": lambda x: x.max(0),
        "mean_sqrt_len": lambda x: x.sum(0) / np.sqrt(len(x)),
    }[mode]
    wanted = np.stack([pool(x) for x in hidden])
    if normalize:
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    pooled = encoder.pooled(*arrays, mode, normalize)
    np.testing.assert_allclose(pooled, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["sequence-classification", "masked-lm"])
@pytest.mark.parametrize("lengths", [[1], [7, 3], [20] * 9, LENGTHS, [40] * 60], ids=len)
def test_threads_change_no_bit(isa: str, head: str, lengths: list[int]) -> None:
    config, weights = model(head, "mixed", SHAPES[1])
    *_, arrays = batch(lengths)
    alone = Encoder(config, weights, threads=1)
    for threads in (2, 3):
        encoder = Encoder(config, weights, threads=threads)
        np.testing.assert_array_equal(encoder.hidden(*arrays), alone.hidden(*arrays))
        np.testing.assert_array_equal(encoder.head(*arrays), alone.head(*arrays))
        np.testing.assert_array_equal(encoder.pooled(*arrays), alone.pooled(*arrays))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_batch_composition_and_order_change_no_bit(isa: str, pattern: str, threads: int) -> None:
    """More tokens than a micro-batch holds, in two orders: each gives what it gives alone."""
    config, weights = model(pattern=pattern)
    encoder = Encoder(config, weights, threads=threads)
    random = np.random.default_rng(3)
    lengths = [int(n) for n in random.integers(1, 90, 40)] + [512, 1]
    ids, types, arrays = batch(lengths)
    together = np.split(encoder.hidden(*arrays), arrays[2][1:-1])
    order = random.permutation(len(lengths))
    shuffled = joined([ids[i] for i in order], [types[i] for i in order])
    mixed = np.split(encoder.hidden(*shuffled), shuffled[2][1:-1])
    for place, i in enumerate(order):
        alone = encoder.hidden(*joined([ids[i]], [types[i]]))
        np.testing.assert_array_equal(together[i], alone)
        np.testing.assert_array_equal(mixed[place], alone)


def test_a_thousand_texts_at_once(isa: str) -> None:
    config, weights = model("sequence-classification", shape=SHAPES[1])
    encoder = Encoder(config, weights, threads=2)
    lengths = [int(n) for n in np.random.default_rng(5).integers(1, 30, 1024)]
    ids, types, arrays = batch(lengths)
    logits, vectors = encoder.head(*arrays), encoder.pooled(*arrays)
    for i in (0, 1, 511, 512, 1000, 1023):
        one = joined([ids[i]], [types[i]])
        np.testing.assert_array_equal(logits[i : i + 1], encoder.head(*one))
        np.testing.assert_array_equal(vectors[i : i + 1], encoder.pooled(*one))


def test_many_python_threads_share_one_encoder(isa: str) -> None:
    config, weights = model("question-answering")
    encoder = Encoder(config, weights, threads=2)
    work = [batch([7, 40, n], seed=n)[2] for n in range(1, 25)]
    alone = [encoder.head(*arrays) for arrays in work]
    with ThreadPoolExecutor(8) as pool:
        for found, right in zip(pool.map(lambda a: encoder.head(*a), work), alone):
            np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("head", "pattern"),
    [("masked-lm", pattern) for pattern in PATTERNS] + [("sequence-classification", "mixed")],
)
def test_instruction_sets_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, head: str, pattern: str, shape: Any
) -> None:
    config, weights = model(head, pattern, shape)
    *_, arrays = batch(LENGTHS)
    found = []
    for isa in SETS:
        monkeypatch.setenv("SPARSEBERT_ISA", isa)
        encoder = Encoder(config, weights, threads=1)
        found.append((encoder.hidden(*arrays), encoder.head(*arrays), encoder.pooled(*arrays)))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_empty_batch_gives_empty_results() -> None:
    config, weights = model("sequence-classification")
    encoder = Encoder(config, weights, threads=2)
    nothing, offsets = np.zeros(0, np.int32), np.zeros(1, np.int32)
    assert encoder.hidden(nothing, nothing, offsets).shape == (0, 36)
    assert encoder.head(nothing, nothing, offsets).shape == (0, 3)


def test_bad_ids_are_refused() -> None:
    config, weights = model()
    encoder = Encoder(config, weights, threads=2)
    for ids, message in (([37], "token id 37"), ([-1], "token id -1"), ([3] * 513, "513 tokens")):
        with pytest.raises(InputError, match=message):
            encoder.hidden(np.array(ids), np.zeros(len(ids)), np.array([0, len(ids)]))


QUERY = "encoder.layer.1.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


def with_scale(weight: Quantized, scale: float) -> Quantized:
    scales = weight.scales.copy()
    scales[-1] = scale
    return replace(weight, scales=scales)


def with_bits(weight: Quantized, change: Any) -> Quantized:
    assert weight.bits is not None
    bits = weight.bits.copy()
    bits[0, 3] = change(bits[0, 3])
    return replace(weight, bits=bits)


ANY_LAYOUT = [
    (lambda w: None, "is missing"),
    (lambda w: dequantize(w), "is not int8, although other weights are"),
    (lambda w: replace(w, columns=w.columns + 60), "is 36 x 96, not 36 x 36"),
    (lambda w: replace(w, values=w.values.astype(np.uint8)), "values of the wrong type or shape"),
    (lambda w: replace(w, values=w.values.astype("f4")), "values of the wrong type or shape"),
    (lambda w: replace(w, values=w.values[:-1]), "values of the wrong type or shape"),
    (lambda w: replace(w, values=w.values[..., :-1]), "values of the wrong type or shape"),
    (lambda w: replace(w, values=w.values[0]), "values of the wrong type or shape"),
    (lambda w: replace(w, scales=w.scales[:-1]), "scales of the wrong type or shape"),
    (lambda w: replace(w, scales=w.scales[None]), "scales of the wrong type or shape"),
    (lambda w: replace(w, scales=w.scales.astype("f8")), "scales of the wrong type or shape"),
    (lambda w: with_scale(w, float("nan")), "a scale that is negative or not finite"),
    (lambda w: with_scale(w, float("inf")), "a scale that is negative or not finite"),
    (lambda w: with_scale(w, -1e-3), "a scale that is negative or not finite"),
    (lambda w: quantize(dequantize(w), QuantizedTable), "is stored as a table, not as a layer"),
]
WITH_BITS = [
    (lambda w: replace(w, bits=w.bits.astype(np.int64)), "bits of the wrong type or shape"),
    (lambda w: replace(w, bits=w.bits[:-1]), "bits of the wrong type or shape"),
    (lambda w: replace(w, bits=w.bits[0]), "bits of the wrong type or shape"),
]
PANELS = [
    (lambda w: with_bits(w, lambda b: b | np.uint64(1 << 63)), "bits that do not match its"),
    (lambda w: with_bits(w, lambda b: b & (b - np.uint64(1))), "bits that do not match its"),
    (lambda w: replace(w, pattern=Pattern(1, 4)), "values of the wrong type or shape|do not match"),
    (lambda w: replace(w, pattern=Pattern(1, 5)), "an invalid pattern"),
]


def refused(pattern: str, name: str, change: Any, message: str, head: str = "encoder") -> None:
    config, weights = model(head, pattern)
    spoiled = {**weights, name: change(weights[name])}
    if spoiled[name] is None:
        del spoiled[name]
    with pytest.raises(EngineError, match=f"weight '{name}' .*({message})"):
        Encoder(config, spoiled, threads=1)


@pytest.mark.parametrize(("change", "message"), ANY_LAYOUT)
@pytest.mark.parametrize("pattern", ["1:2", "shared", "2:4", "dense"])
def test_bad_layers_are_refused(pattern: str, change: Any, message: str) -> None:
    refused(pattern, QUERY, change, message)


@pytest.mark.parametrize(("change", "message"), WITH_BITS)
@pytest.mark.parametrize("pattern", ["1:2", "shared", "2:4"])
def test_bad_bits_are_refused(pattern: str, change: Any, message: str) -> None:
    refused(pattern, QUERY, change, message)


def test_rows_that_cannot_share_are_refused() -> None:
    def change(weight: Quantized) -> Any:
        pattern = Pattern(1, 2, 32)
        object.__setattr__(pattern, "shared_rows", 24)
        return replace(weight, pattern=pattern)

    refused("shared", QUERY, change, "a pattern shared by 24 rows")


@pytest.mark.parametrize("lengths", [[3], [1, 15, 16, 17], [64, 130, 5, 2]])
@pytest.mark.parametrize("threads", [1, 2])
def test_shared_rows_change_no_bit(isa: str, threads: int, lengths: list[int]) -> None:
    """Against the same integers as plain 1:2, whose bits are each row's own."""
    config, weights = model(pattern="shared", shape=SHAPES[3])
    plain = dict(weights)
    for name, weight in weights.items():
        if isinstance(weight, QuantizedSharedPairs):
            parts = QuantizedPairs.arrange(weight.row_major(), ONE_OF_TWO, weight.mask())
            plain[name] = QuantizedPairs(
                weight.columns, scales=weight.scales, pattern=ONE_OF_TWO, **parts
            )
    *_, arrays = batch(lengths)
    found, wanted = (
        Encoder(config, each, threads=threads).hidden(*arrays) for each in (weights, plain)
    )
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("change", "message"), PANELS)
def test_bits_of_a_foreign_pattern_are_refused(change: Any, message: str) -> None:
    refused("2:4", QUERY, change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: None, "is missing"),
        (lambda w: quantize(dequantize(w), QuantizedDense), "is not stored as a table"),
        (lambda w: replace(w, values=w.values[:, :-1]), "values of the wrong type or shape"),
        (lambda w: replace(w, values=w.values[:-1], scales=w.scales[:-1]), "wrong type or shape"),
        (lambda w: with_scale(w, float("nan")), "a scale that is negative or not finite"),
    ],
)
def test_bad_tables_are_refused(change: Any, message: str) -> None:
    refused("1:2", WORDS, change, message)


@pytest.mark.parametrize(
    ("head", "name", "change", "message"),
    [
        (
            "encoder",
            QUERY.replace("weight", "bias"),
            lambda w: w[:-1],
            "is not a vector of 36 numbers",
        ),
        ("encoder", QUERY.replace("weight", "bias"), lambda w: w.astype("f8"), "is not float32"),
        ("encoder", "embeddings.LayerNorm.bias", lambda w: w[:-1], "is not a vector of 36 numbers"),
        ("token-classification", "classifier.weight", lambda w: w[:, :-1], "is 3 x 35, not 3 x 36"),
        ("token-classification", "classifier.weight", lambda w: w.astype("f2"), "is not float32"),
        (
            "token-classification",
            "classifier.bias",
            lambda w: w[:-1],
            "is not a vector of 3 numbers",
        ),
        ("masked-lm", "cls.predictions.bias", lambda w: w[:-1], "is not a vector of 37 numbers"),
    ],
)
def test_bad_vectors_and_last_layers_are_refused(
    head: str, name: str, change: Any, message: str
) -> None:
    refused("1:2", name, change, message, head)


def test_float_matrices_among_int8_ones_are_refused() -> None:
    dense = lambda w: compress(dequantize(w), Pattern(1, 2))  # noqa: E731
    config, weights = model()
    with pytest.raises(EngineError, match=QUERY):
        Encoder(config, {**weights, QUERY: dense(weights[QUERY])}, threads=1)


def test_more_inputs_than_a_sum_can_hold_are_refused() -> None:
    config, weights = model(pattern="dense", shape=(4, 65_796, 1), layers=1)
    with pytest.raises(EngineError, match="'encoder.layer.0.output.dense.weight' has 65796 inputs"):
        Encoder(config, weights, threads=1)


def test_tokens_that_attention_cannot_sum_are_refused() -> None:
    tokens = 65_537
    raw = bert_config("encoder", max_position_embeddings=tokens, num_hidden_layers=1)
    tensors = bert_tensors(raw, "encoder")
    weights: Weights = {
        name: quantize(value, QuantizedTable if "embeddings." in name else QuantizedDense)
        if value.ndim == 2
        else value
        for name, value in tensors.items()
    }
    encoder = Encoder(parse_config(raw, list(tensors), Path("config.json")), weights, threads=1)
    zeros = np.zeros(tokens, np.int32)
    with pytest.raises(InputError, match="has 65537 tokens; this model takes at most 65536"):
        encoder.hidden(zeros, zeros, np.array([0, tokens], np.int32))


@pytest.mark.parametrize("head", range(SHAPES[0][2]))
def test_a_head_whose_scores_overflow_is_refused(isa: str, head: int) -> None:
    """Its probabilities are no numbers, and the other heads' columns are."""
    config, weights = model(layers=1)
    size = config.hidden_size // config.num_attention_heads
    name = "encoder.layer.0.attention.self.key.bias"
    bias = np.array(weights[name])
    bias[head * size : (head + 1) * size] = 3e38
    *_, arrays = batch(LENGTHS)
    with pytest.raises(CheckpointError, match="not finite"):
        Encoder(config, {**weights, name: bias}, threads=1).hidden(*arrays)
