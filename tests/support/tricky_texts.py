"""Texts that tokenizers trip over, and the tokenizer of a folder as tests ask it."""

from __future__ import annotations

from pathlib import Path

from sentences import SENTENCES
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.inference.tokenizing import TextTokenizer

TRICKY = (
    *SENTENCES,
    "Café naïve Ångström — ¿qué? ÇA VA; ﬁne ﬂow İstanbul straße ǅ",
    "中文与 English 混合、東京タワー 한국어 𠀀𠀁",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 ok👍🏽 emoji:) \U0001f600",
    "tabs\tand\nnew\r\nlines\u00a0no-break\u3000wide\u2028line\u200bzero\u200djoin",
    "con\x00trol\x07 \ufffd \x1b[31m bell\x7f \ufeffbom \u00adsoft",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101 + " " + "ferry" * 60,
    "cafe\u0301 combining a\u0300\u0301\u0302 e\u0327",
    "[CLS] special [SEP] in [MASK] text [UNK] [PAD] [mask]",
    "e-mail@example.org, https://example.org/a?b=c&d=%20 $1,234.56 #tag 50% a_b `c` ~d^e",
    "ferry ferryed bridgely ferries' noon's don't UPPER MiXeD",
    "ﷺ ½ ² ① Ⅳ ㎏ ™ € £ ¥ ₿ ∑ √ ≠ → ☃",
    "שלום עולם مرحبا بالعالم Привет мир สวัสดี नमस्ते",
)


def tokenizer_of(folder: Path, max_length: int = 512, **more: int) -> TextTokenizer:
    stored = read_tokenizer(folder)
    assert stored is not None
    return TextTokenizer(stored.backend, max_length=max_length, **more)
