"""Writes the hostile files beside it again: one file an attack, named after it.

    python tests/hostile/make.py

Each folder says what its files stand in for: config and tokenizer for those of a small classifier,
weights for its model.safetensors, pickle for its pytorch_model.bin; data are task files, table
results.json, records the training.json of a model, recipe recipes. They are kept in the tree for
tomorrow's libraries may no longer write them. `tests/fuzz/test_hostile_files.py` has them read.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from bert_folders import bert_config, bert_tensors
from model_folders import WORDS, word_pieces

HEAD = "sequence-classification"


def main() -> None:
    """Write all of them."""
    for folder, files in {
        "config": configs(),
        "tokenizer": tokenizers(),
        "weights": weights(),
        "pickle": pickles(),
        "data": data(),
        "table": tables(),
        "records": records(),
        "recipe": recipes(),
    }.items():
        (HERE / folder).mkdir(exist_ok=True)
        for name, content in files.items():
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            (HERE / folder / name).write_bytes(raw)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def configs() -> dict[str, Any]:
    """Stand in for config.json."""

    def config(**changes: Any) -> dict[str, Any]:
        return bert_config(HEAD, vocab_size=len(WORDS), **changes)

    lineage = {"pattern": "1:2", "layers": [], "lineage": [{"step": ["prune"], "from": {}}]}
    escape = "\x1b]0;owned\x07\x1b[2J"
    return {
        "2-to-the-24-unnamed-classes.json": config(
            id2label=None, label2id=None, num_labels=1 << 24
        ),
        "a-billion-layers.json": config(num_hidden_layers=10**9),
        "a-key-of-64-kibibytes.json": {**config(), "x" * (1 << 16): 1, "model_type": "bert"}
        | {"hidden_act": "y" * (1 << 16)},
        "an-epsilon-without-end.json": config(layer_norm_eps=float("inf")),
        "a-number-of-400-digits.json": config(hidden_size=10**400),
        "a-vocabulary-of-2-to-the-63.json": config() | {"vocab_size": 1 << 63},
        "a-label-that-is-half-a-surrogate-pair.json": config(id2label={"0": "\ud800", "1": "b"}),
        "a-lineage-of-another-shape.json": config(sparsity=lineage),
        "an-activation-that-clears-the-screen.json": config(hidden_act=escape),
        "lists-900-deep.json": json.dumps(config())[:-1] + f', "extra": {nested(900)}}}',
        "lists-20000-deep.json": json.dumps(config())[:-1] + f', "extra": {nested(20_000)}}}',
        "not-utf-8.json": json.dumps(config()).encode()[:-1] + b', "caf\xe9": 1}',
        "heads-that-are-negative.json": config(num_attention_heads=-2),
        "positions-by-the-petabyte.json": config(max_position_embeddings=1 << 50),
    }


def tokenizers() -> dict[str, Any]:
    """Stand in for tokenizer.json, of a class that takes all of its stages."""
    plain = json.loads(word_pieces().to_str())

    def tokenizer(**changes: Any) -> dict[str, Any]:
        return {**plain, **changes}

    def with_id(index: int) -> dict[str, Any]:
        model = plain["model"]
        return tokenizer(model={**model, "vocab": {**model["vocab"], "zz": index}})

    def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": pattern, "content": content}

    def sequence(*stages: dict[str, Any]) -> dict[str, Any]:
        return {"type": "Sequence", "normalizers": list(stages)}

    # A trie of one node, which never matches, and one text of 64 KiB to put in place.
    trie = (0).to_bytes(4, "little")
    characters = len(trie).to_bytes(4, "little") + trie + b"x" * (1 << 16)
    deep: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(400):
        deep = sequence(deep)
    keys = json.dumps(tokenizer(normalizer=sequence(*[replace({"String": "e"}, "ee")] * 40)))
    return {
        "replacements-in-a-chain.json": tokenizer(
            normalizer=sequence(*[replace({"String": "e"}, "ee")] * 40)
        ),
        "replacements-under-an-escaped-key.json": keys.replace("normalizer", "norm\\u0061lizer"),
        "a-replacement-of-nothing.json": tokenizer(
            normalizer=sequence(*[replace({"Regex": ""}, "e" * 5000)] * 2)
        ),
        "a-replacement-of-64-kibibytes.json": tokenizer(
            normalizer=replace({"Regex": "."}, "e" * (1 << 16))
        ),
        "a-character-map-of-64-kibibytes.json": tokenizer(
            normalizer={
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(characters).decode(),
            }
        ),
        "a-character-map-that-panics.json": tokenizer(
            normalizer={
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(b"\xff" * 7).decode(),
            }
        ),
        "an-expression-that-backtracks.json": tokenizer(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": r"(?:.|..|...|....)+(?:.|..)+(?:.|..)+(?:.|..)+(?=a)\z"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "an-expression-that-is-none.json": tokenizer(normalizer=replace({"Regex": "(" * 300}, "")),
        "stages-400-deep.json": tokenizer(normalizer=deep),
        "lists-20000-deep.json": nested(20_000),
        "an-id-of-2-to-the-31.json": with_id(1 << 31),
        "an-id-of-2-to-the-40.json": with_id(1 << 40),
        "a-token-that-is-half-a-surrogate-pair.json": json.dumps(plain).replace(
            '"ferry"', '"\\ud800"'
        ),
        "a-template-without-its-tokens.json": tokenizer(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        ),
        "a-message-that-clears-the-screen.json": tokenizer(
            normalizer={"type": "\x1b[2J\x1b]0;owned\x07" * 100}
        ),
    }


def safetensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def weights() -> dict[str, bytes]:
    """Stand in for model.safetensors."""
    plain = save(bert_tensors(bert_config(HEAD, vocab_size=len(WORDS)), HEAD))
    length = int.from_bytes(plain[:8], "little")
    header, body = json.loads(plain[8 : 8 + length]), plain[8 + length :]
    last = max(header, key=lambda name: header[name]["data_offsets"][1])

    def with_tensor(name: str, **entry: Any) -> bytes:
        return safetensors({**header, name: {"dtype": "F32", **entry}}, body)

    end = [len(body), len(body)]
    first = next(iter(header))
    other = {**header[first], "data_offsets": header[last]["data_offsets"]}
    return {
        "70-dimensions.safetensors": with_tensor("x", shape=[0] + [1] * 69, data_offsets=end),
        "2-to-the-63-rows.safetensors": with_tensor("x", shape=[0, 1 << 63], data_offsets=end),
        "rows-that-overflow.safetensors": with_tensor("x", shape=[1 << 33] * 2, data_offsets=end),
        "a-header-of-2-to-the-63.safetensors": (1 << 63).to_bytes(8, "little") + plain[8:],
        "a-header-beyond-the-end.safetensors": len(plain).to_bytes(8, "little") + plain[8:],
        "a-tensor-beyond-the-end.safetensors": safetensors(
            {**header, last: {**header[last], "data_offsets": [len(body) - 4, len(body) + 4]}}, body
        ),
        "tensors-that-overlap.safetensors": safetensors({**header, first: header[last]}, body),
        "a-name-twice.safetensors": safetensors(
            json.dumps(header).encode()[:-1] + f', "{first}": {json.dumps(other)}}}'.encode(),
            body,
        ),
        "offsets-that-are-negative.safetensors": with_tensor("x", shape=[1], data_offsets=[-4, 0]),
        "lists-20000-deep.safetensors": safetensors(nested(20_000).encode()),
        "one-number-that-is-none.safetensors": safetensors(
            header, body[:-4] + np.float32("nan").tobytes()
        ),
        "no-bytes-at-all.safetensors": b"",
    }


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/sparsebert-was-owned",)


def pickles() -> dict[str, bytes]:
    """Stand in for pytorch_model.bin."""
    import torch

    tensors = bert_tensors(bert_config(HEAD, vocab_size=len(WORDS)), HEAD)
    state: dict[Any, Any] = {name: torch.from_numpy(each) for name, each in tensors.items()}
    name = "bert.embeddings.word_embeddings.weight"

    def saved(changes: dict[Any, Any]) -> bytes:
        out = io.BytesIO()
        torch.save({**state, **changes}, out)
        return out.getvalue()

    plain = saved({})
    deflated = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({name: torch.zeros(1 << 23, 8)}))) as source,
        zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for each in source.namelist():
            target.writestr(each, source.read(each))
    return {
        "8-tebibytes-by-a-stride-of-0.bin": saved({name: torch.zeros(1).expand(1 << 38, 8)}),
        "zeros-deflated.bin": deflated.getvalue(),
        "a-command-to-run.bin": saved({"run": _Runs()}),
        "a-name-that-is-half-a-surrogate-pair.bin": saved({"\ud800": torch.zeros(1)}),
        "a-tensor-of-strings.bin": saved({name: ["a"]}),
        "cut-in-half.bin": plain[: len(plain) // 2],
    }


def page_that_lies() -> bytes:
    """A Parquet file of one page, whose header promises 127 MiB of it."""
    table = pa.table({"text": ["a" * (10 << 20)], "label": ["b"]})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", use_dictionary=False, write_statistics=False)
    content = out.getvalue()
    told, lie = (_varint(2 * each) for each in ((10 << 20) + 4, (127 << 20)))
    assert len(told) == len(lie)
    at = next(
        at
        for at in range(len(content))
        if content[at : at + 1] == b"\x15" and content[at + 1 : at + 1 + len(told)][1:] == told[1:]
    )
    return content[: at + 1] + lie + content[at + 1 + len(lie) :]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def data() -> dict[str, Any]:
    """Task files."""
    row = '{"text": "a ferry", "label": "no"}\n'
    rows = row + '{"text": "an island", "label": "yes"}\n'

    def parquet(table: pa.Table, **options: Any) -> bytes:
        out = io.BytesIO()
        pq.write_table(table, out, compression="zstd", **options)
        return out.getvalue()

    long = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(20_000, np.int32)), pa.array(["x" * (1 << 20)])
    )
    texts = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(400_000, np.int32)), pa.array(["x" * 20_000])
    )
    lists = pa.ListArray.from_arrays(np.arange(0, 401_000, 1000, np.int32), texts)
    extended = pa.ExtensionArray.from_storage(pa.opaque(texts.type, "a", "b"), texts)[:400]
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array(["no"]))
    empty = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, np.int8)), pa.array([""]))
    return {
        "a-first-line-of-null.jsonl": "null\n" + rows,
        "a-null-in-a-list-of-texts.jsonl": '{"text": [null, "film"], "label": "no"}\n' + rows,
        "half-a-surrogate-pair.jsonl": row.replace("ferry", "\\ud800") + rows,
        "lists-900-deep.jsonl": row.replace('"a ferry"', nested(900)),
        "lists-20000-deep.jsonl": row.replace('"a ferry"', nested(20_000)),
        "a-number-of-5000-digits.jsonl": row.replace('"no"', "9" * 5000),
        "a-number-without-end.jsonl": row.replace('"no"', "1e999") + rows,
        "2000-names-of-columns.jsonl.gz": gzip.compress(
            "".join(
                json.dumps({"text": "a", "label": "b", f"column {n}": n}) + "\n"
                for n in range(2000)
            ).encode(),
            9,
            mtime=0,
        ),
        "40-mebibytes-of-rows.jsonl.gz": gzip.compress(
            row.encode().replace(b"ferry", b"x" * (1 << 16)) * 640, 9, mtime=0
        ),
        "a-line-of-66-mebibytes.jsonl.gz": gzip.compress(
            row.encode().replace(b"ferry", b"x" * (66 << 20)), 9, mtime=0
        ),
        "gzip-that-ends-too-soon.jsonl.gz": gzip.compress(rows.encode(), mtime=0)[:-9],
        "latin-1.csv": 'text,label\n"un café",no\n"une île",yes\n'.encode("latin-1"),
        "utf-16.csv": "text,label\na ferry,no\nan island,yes\n".encode("utf-16"),
        "a-quote-that-never-ends.csv": 'text,label\na ferry,no\n"an island,yes\n' + "b,no\n" * 9,
        "zeros-in-a-text.tsv": "text\tlabel\na\0ferry\n",
        "a-name-that-clears-the-screen.csv": "\x1b[2J\x1b]0;owned\x07,label\na,no\n",
        "20-gibibytes-by-a-dictionary.parquet": parquet(
            pa.table({"text": long, "label": label}), write_statistics=False
        ),
        "7-gibibytes-by-a-dictionary-in-lists.parquet": parquet(
            pa.table({"text": ["a"] * 400, "label": lists}), write_statistics=False
        ),
        "a-dictionary-that-aborts.parquet": parquet(
            pa.table({"text": extended, "label": ["b"] * 400})
        ),
        "3000000-empty-rows.parquet": parquet(pa.table({"text": empty, "label": empty})),
        "a-page-that-promises-127-mebibytes.parquet": page_that_lies(),
        "a-column-twice.parquet": parquet(
            pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "label", "label"])
        ),
        "labels-of-the-year-38503.parquet": parquet(
            pa.table({"text": ["a"], "label": pa.array([1 << 60], pa.timestamp("us"))})
        ),
        "texts-that-are-not-utf-8.parquet": parquet(
            pa.table({"text": pa.array([b"\xff"]).view(pa.string()), "label": ["no"]})
        ),
    }


def tables() -> dict[str, Any]:
    """Results of runs."""
    return {
        "lists-900-deep.json": nested(900),
        "a-number-of-5000-digits.json": '{"rows": [' + "9" * 5000 + "]}",
        "a-name-that-is-half-a-surrogate-pair.json": {"tables": [{"task": "\ud800"}]},
        "rows-that-are-numbers.json": {"tables": 7, "rows": [None]},
    }


def records() -> dict[str, Any]:
    """A training's record."""
    step = {"step": 10, "loss": 1.0, "learning_rate": 1e-5, "grad_norm": 1.0}
    return {
        "a-loss-without-end.json": {"history": [{**step, "loss": float("inf")}] * 12},
        "a-loss-of-400-digits.json": {"history": [{**step, "loss": 10**400}] * 12},
        "steps-that-are-texts.json": {"history": [{"step": "ten"}], "steps": [], "rows": 7},
        "a-history-900-deep.json": '{"history": ' + nested(900) + "}",
        "notes-that-clear-the-screen.json": {"notes": ["\x1b[2J\x1b]0;owned\x07"], "rows": {}},
    }


def recipes() -> dict[str, Any]:
    """Recipes."""
    laughs = 'a0: &a0 "ha"\n' + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    return {
        "a-billion-laughs.yaml": f"version: 1\n{laughs}epochs: *a11\n",
        "an-alias-of-itself.yaml": "version: 1\nepochs: &a [*a]\n",
        "an-object-to-make.yaml": "version: 1\nepochs: !!python/object/apply:os.system [true]\n",
        "lists-900-deep.yaml": f"version: 1\nepochs: {nested(900)}\n",
        "epochs-without-end.yaml": "version: 1\nepochs: .inf\n",
        "a-key-that-clears-the-screen.yaml": 'version: 1\n"\\e[2J": 1\n',
    }


if __name__ == "__main__":
    main()
