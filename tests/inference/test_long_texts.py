"""One long text takes memory that grows with its length, not with its square."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparsebert.bench.random_models import RANDOM_MODELS, write_random_model
from sparsebert.packing import pack

TOKENS = 8192
# One byte for each pair of tokens: the least that a matrix of scores would take.
MATRIX_MIB = TOKENS * TOKENS / 2**20
PROGRAM = """
import sys
import sparsebert
from sparsebert.bench.worker import peak_memory

model = sparsebert.load(sys.argv[1], threads=2)
peaks = []
for tokens in map(int, sys.argv[2:]):
    vectors = model.forward([[1 + i % 90 for i in range(tokens)]])
    assert vectors[0].shape[0] == tokens
    peaks.append(peak_memory() / 2**20)
print(*peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_attention_makes_no_matrix_of_tokens_by_tokens(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "modernbert-base"
    others = {**RANDOM_MODELS[name].others, "vocab_size": 100}
    small = replace(
        RANDOM_MODELS[name], layers=1, hidden=32, heads=1, intermediate=64, others=others
    )
    monkeypatch.setitem(RANDOM_MODELS, name, small)
    write_random_model(name, tmp_path / "model")
    pack(tmp_path / "model", tmp_path / "packed", dtype=dtype)
    lengths = [1024, TOKENS // 2, TOKENS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "packed"), *map(str, lengths)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    short, half, whole = map(float, done.stdout.split())
    assert whole - short < MATRIX_MIB / 2
    assert whole - half < 2.5 * (half - short) + 8  # MiB: linear, but for what buffers round up
