"""The choice between two kernels for 1:2 weights in int8; tests/native compares their results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bert_folders import bert_config, bert_tensors
from sparsebert.checkpoint.config import parse_config
from sparsebert.engine import Encoder, available_instruction_sets
from sparsebert.errors import EngineError
from sparsebert.patterns import Pattern, mask_from_scores
from sparsebert.quantized import QuantizedTable, QuantizedTiles, linear_layout, quantize

SETS = available_instruction_sets()
TWO = "avx512-vnni"  # the set that has both
needs_two = pytest.mark.skipif(
    TWO not in SETS, reason="one int8 kernel only: another needs a CPU with AVX-512 VNNI"
)


def encoder(pattern: str | None = "1:2", *, floats: bool = False) -> Encoder:
    """A BERT of random weights, of its linear layers the encoder's pruned."""
    raw = bert_config(
        "encoder",
        hidden_size=36,
        intermediate_size=132,
        num_attention_heads=3,
        max_position_embeddings=64,
    )
    tensors = bert_tensors(raw, "encoder", seed=3)
    weights = {}
    for stored, value in tensors.items():
        name = stored.removeprefix("bert.")
        if floats or value.ndim == 1:
            weights[name] = value
        elif "embeddings." in name:
            weights[name] = quantize(value, QuantizedTable)
        elif pattern and name.startswith("encoder."):
            kind = Pattern.parse(pattern)
            mask = mask_from_scores(np.abs(value), kind)
            weights[name] = quantize(value * mask, linear_layout(kind), kind, mask)
        else:
            weights[name] = quantize(value, QuantizedTiles)
    return Encoder(parse_config(raw, list(tensors), Path("config.json")), weights, threads=1)


@needs_two
@pytest.mark.parametrize("value", ["", "auto"])
def test_the_faster_kernel_is_chosen_by_a_measurement(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", TWO)
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", value)
    kernel = encoder().kernel
    found = re.fullmatch(
        r"(blend|picks) kernel \(measured (\d+\.\d\d) ms against (\d+\.\d\d) ms\)", kernel or ""
    )
    assert found
    chosen, other = float(found[2]), float(found[3])
    assert chosen > 0
    assert other > 0
    # Blends stay where picks are hardly faster; times are printed to 0.01 ms.
    assert chosen <= (other if found[1] == "picks" else other / 0.95) + 0.01
    assert encoder().kernel == kernel  # measured once


@needs_two
def test_either_kernel_can_be_asked_for_and_both_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", TWO)
    random = np.random.default_rng(1)
    ids = random.integers(0, 11, 61).astype(np.int32)
    arrays = (ids, np.zeros_like(ids), np.array([0, 61], np.int32))
    hidden = {}
    for name in ("blend", "picks"):
        monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", name)
        native = encoder()
        assert native.kernel == f"{name} kernel (SPARSEBERT_INT8_KERNEL)"
        hidden[name] = native.hidden(*arrays)
    np.testing.assert_array_equal(hidden["blend"], hidden["picks"])


@pytest.mark.parametrize("isa", [name for name in SETS if name != TWO])
def test_a_set_with_one_kernel_uses_it(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    monkeypatch.delenv("SPARSEBERT_INT8_KERNEL", raising=False)
    assert encoder().kernel == "blend kernel"
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", "picks")
    with pytest.raises(EngineError, match=f"{isa} has no picks kernel: unset"):
        encoder()


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", "blends")
    with pytest.raises(EngineError, match="unknown int8 kernel 'blends': .* blend, picks or auto"):
        encoder()


def test_a_model_without_such_weights_names_no_kernel() -> None:
    assert encoder(None).kernel is None
    assert encoder("2:4").kernel is None
    assert encoder(floats=True).kernel is None
