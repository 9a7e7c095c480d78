"""The choice among kernels for int8 layers; tests/native compares their results."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_folders import bert_config, bert_tensors
from sparsebert.checkpoint.config import parse_config
from sparsebert.engine import Encoder, available_instruction_sets
from sparsebert.errors import EngineError
from sparsebert.patterns import Pattern, mask_from_scores
from sparsebert.quantized import QuantizedDense, QuantizedTable, linear_layout, quantize

SETS = available_instruction_sets()
# The sets that have blends and lookup tables.
WITH_PICKS = ("avx512-vnni", "avx512", "avx2-vnni", "avx2", "neon-dotprod")
TWO = next((name for name in WITH_PICKS if name in SETS), WITH_PICKS[0])
TILES = "avx512-amx"  # the one that has tiles beside them
needs_two = pytest.mark.skipif(
    TWO not in SETS,
    reason="one int8 kernel only: another needs AVX2, or dot products of Arm without i8mm",
)
needs_tiles = pytest.mark.skipif(
    TILES not in SETS, reason="no tiles: they need a CPU with AMX, and a system that permits it"
)
MEASURED = r"\(measured (\d+\.\d\d) ms against (\d+\.\d\d) ms\)"


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
            weights[name] = quantize(value, QuantizedDense)
    return Encoder(parse_config(raw, list(tensors), Path("config.json")), weights, threads=1)


@needs_two
@pytest.mark.parametrize("value", ["", "auto"])
def test_the_faster_kernel_is_chosen_by_a_measurement(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", TWO)
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", value)
    kernel = encoder().kernel
    found = re.fullmatch(rf"(blend|lookup) kernel {MEASURED}", kernel or "")
    assert found
    chosen, other = float(found[2]), float(found[3])
    assert chosen > 0
    assert other > 0
    # Blends stay where lookup tables are hardly faster; times are printed to 0.01 ms.
    assert chosen <= (other if found[1] == "lookup" else other / 0.95) + 0.01
    assert encoder().kernel == kernel  # measured once


@needs_tiles
@pytest.mark.parametrize("pattern", ["1:2", None])
def test_tiles_are_chosen_from_the_number_of_tokens_on_where_they_are_faster(
    monkeypatch: pytest.MonkeyPatch, pattern: str | None
) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", TILES)
    monkeypatch.delenv("SPARSEBERT_INT8_KERNEL", raising=False)
    kernel = encoder(pattern).kernel
    vectors = rf"(blend|lookup) kernel {MEASURED}" if pattern else "vector kernel"
    chosen = rf"tiles kernel from (16|64) tokens on {MEASURED}"
    assert re.fullmatch(f"{chosen}, below that {vectors}|{vectors}, not tiles {MEASURED}", kernel)
    assert encoder(pattern).kernel == kernel  # measured once


def random_text(tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.random.default_rng(1).integers(0, 11, tokens).astype(np.int32)
    return ids, np.zeros_like(ids), np.array([0, tokens], np.int32)


@pytest.mark.parametrize("isa", [name for name in SETS if name in (*WITH_PICKS, TILES)])
def test_each_kernel_can_be_asked_for_and_all_give_the_same(
    monkeypatch: pytest.MonkeyPatch, isa: str
) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    for tokens in (61, 3):
        hidden = {}
        for name in ("blend", "lookup", "tiles") if isa == TILES else ("blend", "lookup"):
            monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", name)
            native = encoder()
            assert native.kernel == f"{name} kernel (SPARSEBERT_INT8_KERNEL)"
            hidden[name] = native.hidden(*random_text(tokens))
            np.testing.assert_array_equal(hidden[name], hidden["blend"])


@needs_tiles
def test_a_set_with_tiles_answers_to_the_bit_as_the_one_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", "auto")
    for pattern in ("1:2", "2:4", None):
        hidden = []
        for isa in (TWO, TILES):
            monkeypatch.setenv("SPARSEBERT_ISA", isa)
            hidden.append(encoder(pattern).hidden(*random_text(61)))
        np.testing.assert_array_equal(*hidden)


# A filter of system calls (seccomp) under which arch_prctl(ARCH_REQ_XCOMP_PERM) is refused, as
# some sandboxes do: an instruction is code, jump if true, jump if false and operand.
REFUSED = """
import ctypes, struct
steps = [
    (0x20, 0, 0, 0),  # load the number of the call
    (0x15, 0, 3, 158),  # arch_prctl?
    (0x20, 0, 0, 16),  # load its first argument
    (0x15, 0, 1, 0x1023),  # ARCH_REQ_XCOMP_PERM?
    (0x06, 0, 0, 0x00050001),  # EPERM
    (0x06, 0, 0, 0x7FFF0000),  # allowed
]
program = b"".join(struct.pack("HBBI", *step) for step in steps)
memory = ctypes.create_string_buffer(program, len(program))
filter = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(memory))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.c_char_p(filter), 0, 0):
    raise SystemExit("no seccomp")
from sparsebert.engine import available_instruction_sets, instruction_set
print(*available_instruction_sets())
instruction_set("avx512-amx")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="of Linux on x86-64"
)
def test_a_machine_that_forbids_tiles_falls_back() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPARSEBERT_")}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, env=environment
    )
    if "no seccomp" in done.stderr:
        pytest.skip("this system has no seccomp filters")
    assert done.stdout.split() == [name for name in SETS if name != TILES]
    assert re.search(
        "EngineError: (this CPU cannot run avx512-amx instructions, or its operating system does "
        "not permit them: unset|this build of sparsebert has no avx512-amx kernels)",
        done.stderr,
    )


@pytest.mark.parametrize("isa", [name for name in SETS if name not in (*WITH_PICKS, TILES)])
def test_a_set_with_one_kernel_uses_it(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    monkeypatch.setenv("SPARSEBERT_ISA", isa)
    monkeypatch.delenv("SPARSEBERT_INT8_KERNEL", raising=False)
    assert encoder().kernel == "blend kernel"
    for other in ("lookup", "tiles"):
        monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", other)
        with pytest.raises(EngineError, match=f"{isa} has no {other} kernel: unset"):
            encoder()


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBERT_INT8_KERNEL", "blends")
    with pytest.raises(
        EngineError, match="unknown int8 kernel 'blends': .* blend, lookup, tiles or auto"
    ):
        encoder()


def test_a_model_without_a_choice_names_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoder(floats=True).kernel is None
    monkeypatch.setenv("SPARSEBERT_ISA", TWO if TWO in SETS else "portable")
    assert encoder(None).kernel is None
    assert encoder("2:4").kernel is None
