"""The compiled module beneath `sparsebert.engine`: what it is handed wrong it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkout import CHECKOUT
from handed_over import HandedOver

WORDS, NORM = "embeddings.word_embeddings.weight", "embeddings.LayerNorm.weight"
LAYER = "encoder.layer.0.intermediate.dense.weight"


@pytest.fixture(params=[False, True], ids=["fp32", "int8"])
def model(request: pytest.FixtureRequest) -> HandedOver:
    return HandedOver(int8=request.param)


def misaligned(array: Any) -> Any:
    """The same numbers, one byte off."""
    place = np.zeros(array.nbytes + 1, np.uint8)[1:]
    place[:] = array.reshape(-1).view(np.uint8)
    return place.view(array.dtype).reshape(array.shape)


def scattered(array: Any) -> Any:
    """The same numbers, with others between them."""
    return np.repeat(array, 2, axis=-1)[..., ::2]


WRONG: dict[str, Callable[[Any], Any]] = {
    "is not contiguous": scattered,
    "is not aligned": misaligned,
    "is not an array in memory": lambda array: array.tolist(),
}


@pytest.mark.parametrize("why", WRONG)
def test_no_array_is_copied_in_secret(model: HandedOver, why: str) -> None:
    model.arrays[NORM] = WRONG[why](model.arrays[NORM])
    with pytest.raises(ValueError, match=f"weight '{NORM}' {why}"):
        model.load()


@pytest.mark.parametrize(
    ("part", "why"),
    [(2, "is not contiguous"), (2, "is not an array in memory"), *((3, why) for why in WRONG)],
)  # part 2 holds bytes, which lie anywhere
def test_nor_is_a_part(part: int, why: str) -> None:
    model = HandedOver(int8=True)
    parts = list(model.arrays[LAYER])
    model.arrays[LAYER] = (*parts[:part], WRONG[why](parts[part]), *parts[part + 1 :])
    with pytest.raises(ValueError, match=f"weight '{LAYER}' {why}"):
        model.load()


def test_parts_that_are_too_few() -> None:
    for int8 in (False, True):
        model = HandedOver(int8=int8)
        whole = (
            model.arrays[LAYER] if int8 else ("compressed", 32, 1, 2, 1, np.zeros(0), np.zeros(0))
        )
        for count in range(len(whole)):
            model.arrays[LAYER] = whole[:count]
            with pytest.raises(ValueError, match=f"weight '{LAYER}' "):
                model.load()


@pytest.mark.parametrize("name", [NORM, NORM.replace("weight", "bias")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_needs_finite_numbers(name: str, value: float) -> None:
    model = HandedOver(int8=True)
    model.arrays[name] = model.arrays[name].copy()
    model.arrays[name][3] = value
    with pytest.raises(ValueError, match=f"weight '{name}' contains a number that is not finite"):
        model.load()


def test_distances_need_queries_and_keys_apart() -> None:
    model = HandedOver(int8=False)
    model.settings["disentangled"] = (4, 0, 2, True, True, False)
    model.arrays["encoder.rel_embeddings.weight"] = np.ones((4, model.hidden_size), np.float32)
    model.load()
    model.settings["fused_attention"] = True
    with pytest.raises(ValueError, match="needs separate query and key layers"):
        model.load()


@pytest.mark.parametrize("name", ["intermediate_size", "max_position_embeddings", "head_outputs"])
@pytest.mark.parametrize("value", [-1, 2**31 - 1])
@pytest.mark.parametrize("int8", [False, True])
def test_sizes_that_make_no_sense(name: str, value: int, int8: bool) -> None:
    model = HandedOver(int8=int8, head="sequence-classification")
    model.settings[name] = value
    with pytest.raises(ValueError, match=f"'{name}' must be from 0 to 268435456, not {value}"):
        model.load()


@pytest.mark.parametrize("int8", [False, True])
def test_a_decoder_scores_tokens(int8: bool) -> None:
    model = HandedOver(int8=int8, head="masked-lm")
    model.settings["head_input"] = "cls"
    with pytest.raises(ValueError, match="a decoder scores each token"):
        model.load()


def test_a_window_does_not_go_with_scores_by_distance(model: HandedOver) -> None:
    model.settings["slopes"] = [0.5] * model.settings["num_attention_heads"]
    model.load()
    model.settings["attention"] = [(3, None, None)] * len(model.settings["attention"])
    with pytest.raises(ValueError, match="attention windows cannot be combined with scores"):
        model.load()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"fused_attention": True, "query_key_norm": True},
            "LayerNorms of queries and keys need separate query and key layers",
        ),
        (
            {"norm_first": True, "residual_norm": True},
            "residual_norm cannot be combined with norm_first",
        ),
        ({"relative_buckets": 3}, "relative_buckets must be from 4 to 511, not 3"),
        ({"relative_buckets": 512}, "relative_buckets must be from 4 to 511, not 512"),
        (
            {"attention": [(None, 10_000.0, 1.0)] * 2, "first_position": 2},
            "attention window or rotary embedding is invalid",
        ),
    ],
)
def test_settings_that_no_kernel_computes(
    model: HandedOver, settings: dict[str, Any], complaint: str
) -> None:
    model.settings.update(settings)
    with pytest.raises(ValueError, match=complaint):
        model.load()


@pytest.mark.parametrize("int8", [False, True])
def test_a_decoder_needs_a_dense_layer(int8: bool) -> None:
    model = HandedOver(int8=int8, head="masked-lm")
    model.settings["head_dense"] = ""
    with pytest.raises(ValueError, match="a decoder needs a dense layer before it"):
        model.load()


@pytest.mark.parametrize("wrong", [scattered, misaligned, lambda array: array.astype(np.int64)])
def test_ids_and_results_are_used_where_they_lie(
    model: HandedOver, wrong: Callable[[Any], Any]
) -> None:
    encoder = model.load()
    ids, types = np.array([3, 4, 5], np.int32), np.zeros(3, np.int32)
    offsets, out = np.array([0, 1, 3], np.int32), np.empty((3, model.hidden_size), np.float32)
    keys = np.array([1, 2], np.int32)
    encoder.hidden(ids, types, offsets, keys, out)
    for place in range(5):
        arguments = [ids, types, offsets, keys, out]
        arguments[place] = wrong(arguments[place])
        with pytest.raises((TypeError, ValueError)):
            encoder.hidden(*arguments)


def test_the_weights_outlive_the_callers_dict(model: HandedOver) -> None:
    encoder, arrays = model.load(), model.arrays
    ids, types = np.array([3, 4, 5], np.int32), np.zeros(3, np.int32)
    offsets = np.array([0, 3], np.int32)
    first, then = (np.empty((3, model.hidden_size), np.float32) for _ in range(2))
    encoder.hidden(ids, types, offsets, None, first)
    arrays.clear()
    junk = [np.full((64, 64), np.nan, np.float32) for _ in range(200)]  # where they lay
    encoder.hidden(ids, types, offsets, None, then)
    assert np.array_equal(first, then)
    assert junk


def test_what_is_called_wrong_at_random_ends_no_process() -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests" / "fuzz" / "call_engine.py"), "--calls", "2000"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 2000


_FORKS = """
import os, signal, sys, threading, time
import sparsebert

model = sparsebert.load(sys.argv[1], threads=2)
ids = [[2, 5, 6, 3] * 8] * 16
expected = model.forward(ids)
busy = [threading.Thread(target=lambda: [model.forward(ids) for _ in iter(int, 1)], daemon=True)
        for _ in range(2)]
for thread in busy:
    thread.start()
hung = 0
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends a child that hangs
        answers = []
        more = threading.Thread(target=lambda: answers.append(model.forward(ids)))
        more.start()
        answers.append(model.forward(ids))
        more.join()
        os._exit(0 if all((each == expected).all() for each in answers) else 3)
    hung += os.waitpid(child, 0)[1] != 0
    if hung:
        break
print(hung, flush=True)
os._exit(0)  # the threads are still at it
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork: it is one of Unix")
@pytest.mark.parametrize("forks", [12, pytest.param(100, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_process_forked_while_others_compute(
    tiny_bert: Callable[..., Path], tmp_path: Path, dtype: str, forks: int
) -> None:
    from sparsebert.packing import pack

    pack(tiny_bert("sequence-classification"), tmp_path / "packed", dtype=dtype)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS, str(tmp_path / "packed"), str(forks)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout == "0\n", done.stderr
