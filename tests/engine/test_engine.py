"""The native engine on its own: against BERT written in plain numpy, on every instruction set.

`test_agreement.py` holds it against transformers on real models; here are odd sizes, every weight
layout, ragged batches, threads, and what it must refuse.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest

from reference_bert import ReferenceBert
from sparsebert.checkpoint.attention_layers import LayerAttention
from sparsebert.checkpoint.families import BERT, BIASES, Head, HeadShape
from sparsebert.compressed import Compressed, compress
from sparsebert.engine import (
    Encoder,
    available_instruction_sets,
    default_threads,
    instruction_set,
)
from sparsebert.errors import EngineError, InputError
from sparsebert.patterns import Pattern, mask_from_scores
from sparsebert.quantized import QuantizedDense, quantize

SETS = available_instruction_sets()
PATTERNS = [None, "1:2", "1:2 shared by 16 rows", "2:4", "4:8", "1:3", "3:5"]


@dataclass(frozen=True)
class Config:
    """A BERT's sizes, and what is so in every BERT."""

    head: Head = Head.ENCODER
    labels: tuple[str, ...] = ()
    hidden_size: int = 60
    intermediate_size: int = 150
    num_hidden_layers: int = 2
    num_attention_heads: int = 3
    vocab_size: int = 97
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    family = BERT
    first_position = relative_buckets = task_types = 0
    biases = BIASES
    projects = False
    position_table = True
    disentangled = None
    slopes: tuple[float, ...] = ()

    @property
    def layer_order(self) -> range:
        return range(self.num_hidden_layers)

    @property
    def embedding_size(self) -> int:
        return self.hidden_size

    @property
    def token_types(self) -> int:
        return self.type_vocab_size

    @property
    def attention(self) -> tuple[LayerAttention, ...]:
        return (LayerAttention(),) * self.num_hidden_layers

    @property
    def head_shape(self) -> HeadShape | None:
        shape = BERT.heads.get(self.head)
        if shape and shape.activation == "hidden_act":
            return replace(shape, activation=self.hidden_act)
        return shape


def random_weights(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a trained model's scale: outputs of order one, attention that is not flat."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        scale = 1.5 / np.sqrt(columns)
        weights[name] = (scale * random.standard_normal((rows, columns))).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(f"{name}.weight", rows, columns)
        weights[f"{name}.bias"] = random.standard_normal(rows).astype(np.float32)

    def norm(name: str) -> None:
        size = config.hidden_size
        weights[f"{name}.weight"] = random.uniform(0.5, 1.5, size).astype(np.float32)
        weights[f"{name}.bias"] = random.standard_normal(size).astype(np.float32)

    hidden, wide = config.hidden_size, config.intermediate_size
    matrix("embeddings.word_embeddings.weight", config.vocab_size, hidden)
    matrix("embeddings.position_embeddings.weight", config.max_position_embeddings, hidden)
    matrix("embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden)
    norm("embeddings.LayerNorm")
    for layer in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{part}", hidden, hidden)
        linear(f"{prefix}.attention.output.dense", hidden, hidden)
        norm(f"{prefix}.attention.output.LayerNorm")
        linear(f"{prefix}.intermediate.dense", wide, hidden)
        linear(f"{prefix}.output.dense", hidden, wide)
        norm(f"{prefix}.output.LayerNorm")
    if config.head is Head.SEQUENCE:
        linear("pooler.dense", hidden, hidden)
    if config.head in (Head.SEQUENCE, Head.TOKEN):
        linear("classifier", len(config.labels), hidden)
    if config.head is Head.QUESTION:
        linear("qa_outputs", 2, hidden)
    return weights


def prune(weights: dict[str, np.ndarray], pattern: str | None) -> dict[str, np.ndarray]:
    if pattern is None:
        return weights
    return {
        name: value * mask_from_scores(np.abs(value), Pattern.parse(pattern))
        if name.startswith("encoder") and value.ndim == 2
        else value
        for name, value in weights.items()
    }


def stored(weights: dict[str, np.ndarray], pattern: str | None, half: bool = False):
    """The weights as the engine takes them: pruned matrices compressed, maybe in fp16."""
    result: dict[str, np.ndarray | Compressed] = {}
    for name, value in weights.items():
        if half and value.ndim == 2:
            value = value.astype(np.float16)
        if pattern and name.startswith("encoder") and value.ndim == 2:
            result[name] = compress(value, Pattern.parse(pattern))
        else:
            result[name] = value
    return result


def batch(config: Config, lengths: list[int], seed: int = 1):
    random = np.random.default_rng(seed)
    ids = [random.integers(0, config.vocab_size, n).astype(np.int32) for n in lengths]
    types = [random.integers(0, config.type_vocab_size, n).astype(np.int32) for n in lengths]
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    return ids, types, (np.concatenate(ids), np.concatenate(types), offsets)


LENGTHS = [1, 15, 16, 17, 33, 2, 130, 64, 5]


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_hidden_states_of_every_layout_and_instruction_set(isa, pattern, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(intermediate_size=120 if pattern not in (None, "1:2") else 150)
    if pattern == "4:8":
        config = replace(config, hidden_size=72)
    weights = prune(random_weights(config), pattern)
    reference = ReferenceBert(weights, config.num_attention_heads)
    ids, types, arrays = batch(config, LENGTHS)
    expected = np.concatenate([reference.hidden(i, t) for i, t in zip(ids, types, strict=True)])
    for threads in (1, 2, 3):
        encoder = Encoder(config, stored(weights, pattern), threads=threads)
        assert encoder.instruction_set == isa
        np.testing.assert_allclose(encoder.hidden(*arrays), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    ("hidden", "wide", "heads"),
    [(8, 8, 1), (12, 34, 4), (66, 130, 1), (128, 512, 2), (130, 258, 13), (192, 64, 6)],
)
def test_awkward_sizes(isa, hidden, wide, heads, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(hidden_size=hidden, intermediate_size=wide, num_attention_heads=heads)
    weights = prune(random_weights(config), "1:2")
    reference = ReferenceBert(weights, heads)
    ids, types, arrays = batch(config, [3, 47, 81])
    expected = np.concatenate([reference.hidden(i, t) for i, t in zip(ids, types, strict=True)])
    encoder = Encoder(config, stored(weights, "1:2"), threads=2)
    np.testing.assert_allclose(encoder.hidden(*arrays), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_activations(isa, activation, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(hidden_act=activation)
    weights = random_weights(config)
    reference = ReferenceBert(weights, config.num_attention_heads, activation=activation)
    ids, types, arrays = batch(config, [20])
    encoder = Encoder(config, weights, threads=1)
    np.testing.assert_allclose(
        encoder.hidden(*arrays), reference.hidden(ids[0], types[0]), atol=2e-5, rtol=0
    )


def to_bf16(x):
    """The nearest numbers of eight significant bits, of two as near the even one."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)


class ReferenceInBf16(ReferenceBert):
    """BERT whose linear layers round what they multiply."""

    def _product(self, x, name):
        return to_bf16(x) @ to_bf16(self._get(name)).T


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("pattern", [None, "1:2", "1:2 shared by 16 rows", "2:4"])
def test_linear_layers_in_bf16(isa, half, pattern, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(intermediate_size=152, hidden_size=72)
    weights = prune(random_weights(config), pattern)
    reference = ReferenceInBf16(weights, config.num_attention_heads)
    ids, types, arrays = batch(config, LENGTHS)
    expected = np.concatenate([reference.hidden(i, t) for i, t in zip(ids, types, strict=True)])
    exact = Encoder(config, stored(weights, pattern, half), threads=1).hidden(*arrays)
    for threads in (1, 2, 3):
        encoder = Encoder(config, stored(weights, pattern, half), threads=threads, compute="bf16")
        assert encoder.kernel.startswith("bf16 ")
        found = encoder.hidden(*arrays)
        # A number that lies between two of bf16 may go to either, by the last bit of a sum.
        np.testing.assert_allclose(found, expected, atol=0.05, rtol=0)
        assert np.abs(found - expected).mean() < 0.005
        assert np.abs(found - exact).max() > 1e-4  # it is not computed in fp32
        cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1)
        assert (cosines / np.linalg.norm(exact, axis=1)).min() > 0.999


@pytest.mark.parametrize("isa", SETS)
def test_a_text_in_bf16_does_not_depend_on_its_batch(isa, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config()
    weights = random_weights(config)
    ids, types, arrays = batch(config, LENGTHS)
    encoder = Encoder(config, weights, threads=2, compute="bf16")
    together = encoder.hidden(*arrays)
    alone = [
        encoder.hidden(i, t, np.array([0, len(i)], np.int32))
        for i, t in zip(ids, types, strict=True)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=0.05, rtol=0)


def test_bf16_is_refused_where_it_has_no_meaning():
    config = Config()
    weights = random_weights(config)
    with pytest.raises(EngineError, match="compute must be bf16, or omitted, not 'fp8'"):
        Encoder(config, weights, compute="fp8")
    name = "encoder.layer.0.output.dense.weight"
    quantized = {**weights, name: quantize(weights[name], QuantizedDense)}
    with pytest.raises(EngineError, match="int8 models are computed in int8, not in bf16"):
        Encoder(config, quantized, compute="bf16")


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("pattern", [None, "1:2", "1:2 shared by 16 rows", "2:4"])
def test_half_precision_weights_equal_their_rounded_values_in_fp32(isa, pattern, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(hidden_size=72, intermediate_size=148)
    weights = prune(random_weights(config), pattern)
    rounded = {
        name: value.astype(np.float16).astype(np.float32) if value.ndim == 2 else value
        for name, value in weights.items()
    }
    *_, arrays = batch(config, LENGTHS)
    half = Encoder(config, stored(weights, pattern, half=True), threads=2).hidden(*arrays)
    full = Encoder(config, stored(rounded, pattern), threads=2).hidden(*arrays)
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "mean_sqrt_len"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling(isa, mode, normalize, monkeypatch):
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    config = Config(num_hidden_layers=1)
    weights = random_weights(config)
    reference = ReferenceBert(weights, config.num_attention_heads)
    ids, types, arrays = batch(config, LENGTHS)
    expected = [
        reference.pooled(i, t, mode=mode, normalize=normalize)
        for i, t in zip(ids, types, strict=True)
    ]
    for threads in (1, 2):
        pooled = Encoder(config, weights, threads=threads).pooled(*arrays, mode, normalize)
        np.testing.assert_allclose(pooled, np.stack(expected), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_sequences_do_not_see_the_rest_of_their_batch(threads):
    """More sequences than a micro-batch holds, in two orders: each gives what it gives alone."""
    config = Config()
    weights = prune(random_weights(config), "1:2")
    encoder = Encoder(config, stored(weights, "1:2"), threads=threads)
    random = np.random.default_rng(3)
    lengths = [int(n) for n in random.integers(1, 90, 60)] + [512, 1]
    ids, types, arrays = batch(config, lengths)
    together = encoder.hidden(*arrays)
    order = random.permutation(len(lengths))
    shuffled = encoder.hidden(
        np.concatenate([ids[i] for i in order]),
        np.concatenate([types[i] for i in order]),
        np.cumsum([0, *(lengths[i] for i in order)]).astype(np.int32),
    )
    starts = np.cumsum([0, *(lengths[i] for i in order)])
    for place, i in enumerate(order):
        mine = together[arrays[2][i] : arrays[2][i + 1]]
        np.testing.assert_allclose(shuffled[starts[place] : starts[place + 1]], mine, atol=1e-5)
        alone = encoder.hidden(ids[i], types[i], np.array([0, lengths[i]], np.int32))
        np.testing.assert_allclose(alone, mine, atol=1e-5)


def test_many_short_sequences_through_a_classifier():
    """Six hundred sequences in one micro-batch are more columns than one token block."""
    config = Config(head=Head.SEQUENCE, labels=tuple("abcde"), num_hidden_layers=1)
    weights = random_weights(config)
    encoder = Encoder(config, weights, threads=2)
    ids, types, arrays = batch(config, [1] * 600)
    logits = encoder.head(*arrays)
    alone = Encoder(config, weights, threads=1)
    for i in (0, 127, 128, 599):
        expected = alone.head(ids[i], types[i], np.array([0, 1], np.int32))
        np.testing.assert_allclose(logits[i : i + 1], expected, atol=1e-5)


def test_many_python_threads_share_one_encoder():
    config = Config()
    encoder = Encoder(config, random_weights(config), threads=2)
    work = [batch(config, [7, 40, n], seed=n)[2] for n in range(1, 25)]
    expected = [encoder.hidden(*arrays) for arrays in work]
    with ThreadPoolExecutor(8) as pool:
        for found, right in zip(
            pool.map(lambda a: encoder.hidden(*a), work), expected, strict=True
        ):
            np.testing.assert_array_equal(found, right)


def test_a_vector_in_parts_is_refused():
    config = Config()
    weights = random_weights(config)
    name = "encoder.layer.0.output.dense.bias"
    matrix = prune(weights, "1:2")["encoder.layer.0.output.dense.weight"]
    weights[name] = compress(matrix, Pattern.parse("1:2"))
    with pytest.raises(EngineError, match=f"'{name}' is a tuple of parts, but must be one array"):
        Encoder(config, weights, threads=1)


_FEW_THREADS = """
import resource, sys
import numpy
from sparsebert import load
from sparsebert.errors import EngineError
folder = sys.argv[1]
load(folder, threads=1).embed("once, so that all is in memory")
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (1 << 30)  # room for a hundred stacks or so
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    load(folder, threads=1024)
except EngineError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_threads_that_cannot_be_started(tiny_bert):
    command = [sys.executable, "-c", _FEW_THREADS, str(tiny_bert())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert re.fullmatch(
        r"only \d+ of 1024 threads could be started: .*SPARSEBERT_NUM_THREADS\.\n", done.stdout
    ), done.stderr


def test_an_empty_batch_gives_empty_results():
    config = Config(head=Head.SEQUENCE, labels=("no", "yes"))
    encoder = Encoder(config, random_weights(config), threads=2)
    nothing = np.zeros(0, np.int32)
    offsets = np.zeros(1, np.int32)
    assert encoder.hidden(nothing, nothing, offsets).shape == (0, config.hidden_size)
    assert encoder.head(nothing, nothing, offsets).shape == (0, 2)


@pytest.mark.parametrize(
    ("ids", "types", "offsets", "message"),
    [
        ([97], [0], [0, 1], "token id 97"),
        ([-1], [0], [0, 1], "token id -1"),
        ([3], [2], [0, 1], "token type 2"),
        ([3], [0], [0, 0, 1], "sequence 0 has no tokens"),
        ([3, 4], [0, 0], [0, 3, 2], "sequence 1 has no tokens"),
        ([3] * 513, [0] * 513, [0, 513], "513 tokens"),
        ([3], [0, 0], [0, 1], "do not describe"),
        ([3], [0], [1, 1], "offsets must begin"),
        ([3], [0], [0, 9], "do not describe"),
        ([3], [0], [], "do not describe"),
    ],
)
def test_bad_batches_are_refused(ids, types, offsets, message):
    config = Config()
    encoder = Encoder(config, random_weights(config), threads=1)
    with pytest.raises(InputError, match=message):
        encoder.hidden(np.array(ids), np.array(types), np.array(offsets, np.int32))


def test_an_encoder_without_a_head_says_so():
    config = Config()
    encoder = Encoder(config, random_weights(config), threads=1)
    *_, arrays = batch(config, [3])
    with pytest.raises(InputError, match="no head"):
        encoder.head(*arrays)


def spoiled(change):
    config = Config(intermediate_size=120)
    weights = stored(prune(random_weights(config), "2:4"), "2:4")
    change(weights)
    return config, weights


QUERY = "encoder.layer.1.attention.self.query.weight"


def stray_bits(weights):
    packed = weights[QUERY]
    bits = packed.bits.copy()
    bits[-1, 0] |= np.uint64(1 << 63)
    weights[QUERY] = replace(packed, bits=bits)


def too_few_bits(weights):
    packed = weights[QUERY]
    bits = packed.bits.copy()
    bits[0, 3] &= bits[0, 3] - np.uint64(1)
    weights[QUERY] = replace(packed, bits=bits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(QUERY), "missing"),
        (lambda w: w.update({QUERY: np.zeros((60, 61), np.float32)}), "60 x 61, not 60 x 60"),
        (lambda w: w.update({QUERY: np.zeros((60, 60), np.float64)}), "neither float32"),
        (lambda w: w.update({QUERY: np.zeros(60, np.float32)}), "not a matrix"),
        (lambda w: w.update({QUERY: replace(w[QUERY], columns=120)}), "wrong shape"),
        (lambda w: w.update({QUERY: replace(w[QUERY], pattern=Pattern(1, 4))}), "wrong shape"),
        (lambda w: w.update({"embeddings.LayerNorm.bias": np.zeros(59, np.float32)}), "60 numbers"),
        (stray_bits, "do not match its pattern"),
        (too_few_bits, "do not match its pattern"),
    ],
)
def test_bad_weights_are_refused(change, message):
    config, weights = spoiled(change)
    with pytest.raises(EngineError, match=message):
        Encoder(config, weights, threads=1)


def test_instruction_sets_by_name(monkeypatch):
    monkeypatch.delenv("SPARSEBERT_ISA", raising=False)
    assert SETS[-1] == "portable"
    assert instruction_set() == SETS[0]
    assert instruction_set("portable") == "portable"
    monkeypatch.setenv("SPARSEBERT_ISA", "portable")
    assert instruction_set() == "portable"
    monkeypatch.setenv("SPARSEBERT_ISA", "avx9")
    with pytest.raises(EngineError, match="unknown instruction set 'avx9'"):
        instruction_set()


def test_thread_counts(monkeypatch):
    monkeypatch.setenv("SPARSEBERT_NUM_THREADS", "3")
    assert default_threads() == 3
    config = Config()
    assert Encoder(config, random_weights(config)).threads == 3
    assert Encoder(config, random_weights(config), threads=1).threads == 1
    for wrong in ("0", "-2", "many", "1025"):
        monkeypatch.setenv("SPARSEBERT_NUM_THREADS", wrong)
        with pytest.raises(EngineError, match="SPARSEBERT_NUM_THREADS"):
            default_threads()
    with pytest.raises(EngineError, match="threads"):
        Encoder(config, random_weights(config), threads=0)
