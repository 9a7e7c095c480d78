"""Decompression: what zlib writes is read back, and the time does not grow with the square."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from sparsebert.tasks.expansion import inflated

GZIP = 16 + zlib.MAX_WBITS
LONG = bytes(range(256)) * 1000


def read(content: bytes, wbits: int = GZIP) -> bytes:
    return b"".join(inflated(content, wbits))


@pytest.mark.parametrize("padding", [0, 1, 5000])
def test_members_and_padding(padding: int) -> None:
    parts = [b"", LONG, b"x", b"", b"\0" * 1_000_000]
    zeros = b"\0" * padding
    assert read(b"".join(gzip.compress(part) + zeros for part in parts)) == b"".join(parts)
    assert read(zlib.compress(LONG), zlib.MAX_WBITS) == LONG
    assert read(b"") == b""


@pytest.mark.parametrize("cut", [1, 8, 100, 500])
def test_what_is_truncated(cut: int) -> None:
    for whole in (gzip.compress(LONG), gzip.compress(LONG, 0), gzip.compress(b"a" * 5_000_000)):
        with pytest.raises(zlib.error, match="it is truncated"):
            read(whole[:-cut])


def test_what_follows_must_be_a_member() -> None:
    with pytest.raises(zlib.error, match="incorrect header"):
        read(gzip.compress(b"a") + b"more")


class Counted:
    """zlib's object, and the bytes that it is given."""

    given = 0

    def __init__(self, **options: Any) -> None:
        self._real = zlib_object(**options)

    def decompress(self, content: bytes, most: int) -> bytes:
        Counted.given += len(content)
        return self._real.decompress(content, most)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


zlib_object = zlib.decompressobj


@pytest.mark.parametrize(
    "made",
    [
        lambda size: gzip.compress(b"") * (20 * size),  # what follows is copied for each member
        lambda size: gzip.compress(b"\0" * 1_000_000 * size),  # and what is left for each block
    ],
    ids=["many members", "much output"],
)
def test_twice_as_much_is_read_twice(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    monkeypatch.setattr(zlib, "decompressobj", Counted)
    counts = []
    for size in (50, 100):
        Counted.given = 0
        read(made(size))
        counts.append(Counted.given)
    assert counts[1] < 2.5 * counts[0]
