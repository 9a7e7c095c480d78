"""Calls the compiled module beneath `sparsebert.engine` with random invalid arguments.

    python tests/fuzz/call_engine.py --calls 100000 --seed 1
    python tests/fuzz/call_engine.py --module _engine.so    one with sanitizers (test_native.py)

Settings, weights, scales and batches of a small BERT are changed in one or a few places: odd
numbers and types, arrays of other shapes and numbers that are not finite. The module may answer or
raise an exception. If the process ends, that is a fault: its case is named, and ``--case N`` runs
it again. Making an encoder and running it count as one call each.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from other_module import use_module

ODD: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 16, 64, 2**31 - 1, 2**31, -(2**31), 2**63),
    *(None, True, False, "", "gelu", "mean", "tokens", "dense", "table", "bitmap", "pairs"),
    *(0.0, 0.5, 1e30, float("nan"), float("inf"), [], [0.5, 0.5], [0, 0], [(3, None, 1.0)] * 2),
    *([(None, 1e4, 1.0)] * 2, (32, 8, 16, True, True, False), (4, 0, 2, True, False, True)),
)
NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-41, 0.0, -1.0, 1e10)


def changed(value: Any, chance: random.Random) -> Any:
    """A setting or array, replaced or changed in one part."""
    kind = chance.randrange(8)
    if isinstance(value, tuple) and kind < 6:
        parts = list(value)
        at = chance.randrange(len(parts))
        if kind == 0:
            del parts[at]
        elif kind == 1:
            other = chance.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = changed(parts[at], chance)
        return tuple(parts)
    if not isinstance(value, np.ndarray) or value.size == 0 or kind == 7:
        return chance.choice(ODD)
    if kind <= 3:  # numbers of any size, in the right place
        value = value.copy()
        for _ in range(chance.choice((1, 1, 3, value.size))):
            place = value.reshape(-1)
            if value.dtype.kind == "f":
                place[chance.randrange(value.size)] = chance.choice(NUMBERS)
            else:
                limits = np.iinfo(value.dtype)
                place[chance.randrange(value.size)] = chance.choice((limits.min, limits.max, 0))
        return value
    if kind == 4:
        return value[: chance.randrange(len(value) + 1)].copy()
    if kind == 5:
        return value.reshape(chance.choice(((-1,), (1, -1), (-1, 1), value.shape[::-1])))
    return value.astype(chance.choice(("f4", "f2", "f8", "i1", "u1", "i4", "u8")))


def batch(chance: random.Random) -> list[Any]:
    """Ids, types, offsets and keys, usually valid."""
    lengths = [chance.choice((1, 2, 5, 16)) for _ in range(chance.randint(1, 4))]
    tokens = sum(lengths)
    arguments: list[Any] = [
        np.array([chance.randrange(11) for _ in range(tokens)], np.int32),
        np.array([chance.randrange(2) for _ in range(tokens)], np.int32),
        np.array([sum(lengths[:n]) for n in range(len(lengths) + 1)], np.int32),
        np.array([chance.randint(1, n) for n in lengths], np.int32)
        if chance.random() < 0.5
        else None,
    ]
    if chance.random() < 0.3:
        at = chance.randrange(4)
        if arguments[at] is not None and chance.random() < 0.7:
            odd = chance.choice((-1, 0, 1, 11, 16, 17, 1000, 2**31 - 1, -(2**31)))
            arguments[at][chance.randrange(len(arguments[at]))] = odd
        else:
            arguments[at] = changed(arguments[at], chance)
    return arguments


def run_case(number: int, seed: int, models: list[Any]) -> tuple[int, int]:
    """How many calls it made, and how many of them were answered."""
    from sparsebert import _engine

    chance = random.Random(f"{seed} {number}")
    model, calls, answered = chance.choice(models), 1, 0
    settings, arrays = dict(model.settings), dict(model.arrays)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        of = settings if chance.random() < 0.3 else arrays
        name = chance.choice(list(of))
        if chance.random() < 0.05:
            del of[name]
        else:
            of[name] = changed(of[name], chance)
        if not of:
            return 0, 0
    sets = _engine.available_instruction_sets()
    compute = chance.choice(("", "", "bf16"))
    threads = chance.choice((1, 1, 1, 1, 1, 2, 2, 0))
    try:
        encoder = _engine.Encoder(settings, arrays, threads, chance.choice(sets), compute)
    except Exception:
        return calls, answered
    for _ in range(6):
        ids, types, offsets, keys = batch(chance)
        run = chance.randrange(3)
        rows = np.size(ids) if run == 0 or chance.random() < 0.2 else np.size(offsets) - 1
        columns = chance.choice((8, 8, 8, 3) if run != 1 else (3, 11))
        out = np.empty((max(rows, 0), columns), np.float32)
        calls += 1
        with suppress(Exception):
            if run == 0:
                encoder.hidden(ids, types, offsets, keys, out)
            elif run == 1:
                encoder.head(ids, types, offsets, out)
            else:
                mode = chance.choice(("cls", "mean", "mean_sqrt_len", "max", ""))
                encoder.pooled(ids, types, offsets, mode, chance.random() < 0.5, out)
            answered += 1
    return calls, answered + 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int)
    parser.add_argument("--module", type=Path, help="the compiled module, if not the installed one")
    options = parser.parse_args()
    if options.module:
        use_module(options.module)
    from handed_over import HandedOver

    models = [
        HandedOver(int8=int8, head=head)
        for int8 in (False, True)
        for head in ("encoder", "sequence-classification", "masked-lm")
    ]
    for model in models[::2]:  # DeBERTa's distances; below, MPNet's
        model.settings["disentangled"] = (32, 8, 16, True, True, False)
        model.arrays["encoder.rel_embeddings.weight"] = np.ones((32, 8), np.float32)
    for model in models[1::3]:
        model.settings["relative_buckets"] = 32
        model.arrays["encoder.relative_attention_bias.weight"] = np.ones((32, 2), np.float32)
    if options.case is not None:
        run_case(options.case, options.seed, models)
        return 0
    np.seterr(all="ignore")
    # Shared with the child, which may crash: the number of its case, and the counts so far.
    told = mmap.mmap(-1, 24)
    child = os.fork()
    if not child:
        number = calls = answered = 0
        while calls < options.calls:
            struct.pack_into("qqq", told, 0, number, calls, answered)
            signal.alarm(20)  # ends a case that hangs
            more = run_case(number, options.seed, models)
            number, calls, answered = number + 1, calls + more[0], answered + more[1]
        struct.pack_into("qqq", told, 0, number, calls, answered)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    number, calls, answered = struct.unpack_from("qqq", told)
    if code:
        print(f"--seed {options.seed} --case {number}: ended with {code}", file=sys.stderr)
        return 1
    print(f"{calls} calls in {number} cases, {answered} answered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
