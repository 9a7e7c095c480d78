"""Mutated model folders, task files, tokenizers and records, read in a watched process.

    python tests/fuzz/mutate_files.py --seconds 600 --seed 1

A mutation knows the structure of what it changes: nodes of JSON, headers of safetensors, cells and
lines of tables, the content inside gzip and zip; one in four changes bytes. `watched` defines what
counts as a fault. Seed and number determine a case: ``--case N`` runs one again. The files of a
fault are kept below ``--keep``. The exit code is 1 if there was a fault. Ctrl-C ends the run early.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from model_folders import write_classifier, write_model, write_sentence_model, write_trained
from watched import Watch


@dataclass(frozen=True)
class Target:
    """A folder or file to mutate, the readers that get it, and how often it is chosen."""

    name: str
    source: Path
    readers: tuple[str, ...]
    weight: int = 1


def targets(folder: Path) -> list[Target]:
    """Everything that is mutated, written into ``folder``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sparsebert import pack
    from sparsebert.scale import classify_files

    sentence = write_sentence_model(folder / "sentence")
    plain = write_classifier(folder / "plain", as_it_is=True)
    trained = write_trained(folder / "trained")
    tagger = write_model(folder / "tagger", "token-classification")
    asked = write_model(folder / "asked", "question-answering")
    pack(sentence, folder / "packed-fp32")
    pack(trained, folder / "packed-int8", dtype="int8")
    shutil.copytree(folder / "packed-int8", folder / "checked")
    for packed in ("packed-fp32", "packed-int8"):  # so that not only checksums see the damage
        (folder / packed / "checksums.json").unlink()
    runs = folder / "runs"
    for row in ("dense", "best"):
        shutil.copytree(trained, runs / row / "sst2" / "seed-1")
        for weights in (runs / row).rglob("*.safetensors"):
            weights.unlink()
    found = [
        Target("sentence model", sentence, ("answer", "answer", "steps", "doctor"), 4),
        Target("tokenizer as it is", plain, ("answer",), 4),
        Target("trained model", trained, ("answer", "steps", "doctor", "doctor"), 4),
        Target("tagger", tagger, ("answer",)),
        Target("question answering", asked, ("answer",)),
        Target("packed fp32", folder / "packed-fp32", ("answer", "answer", "steps"), 3),
        Target("packed int8", folder / "packed-int8", ("answer", "answer", "steps"), 3),
        Target("packed with checksums", folder / "checked", ("answer", "steps")),
        Target("runs", runs, ("table",), 2),
    ]
    data = folder / "data"
    data.mkdir()
    records = [
        {"text": f'a ferry {n}, to \u00e9 "it"', "label": ("no", "yes")[n % 2], "score": n / 4}
        for n in range(9)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (data / "train.jsonl").write_text(lines)
    (data / "train.json").write_text(json.dumps(records))
    (data / "train.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    cells = [["text", "label", "score"]]
    cells += [[str(value).replace('"', "") for value in record.values()] for record in records]
    (data / "train.csv").write_text(
        "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in cells)
    )
    (data / "train.tsv").write_text("".join("\t".join(row) + "\n" for row in cells))
    pq.write_table(pa.Table.from_pylist(records), data / "train.parquet")
    for file in sorted(data.iterdir()):
        readers = ["task", "rows"] if file.suffix in (".jsonl", ".gz", ".parquet") else ["task"]
        readers += ["lines"] if file.suffix in (".jsonl", ".tsv") else []
        found.append(Target(file.name, file, tuple(readers), 2))
    from sparsebert.table.formats import write

    write(runs, format="json", out=folder / "results.json")
    found.append(Target("results.json", folder / "results.json", ("table",), 2))
    (folder / "recipe.yaml").write_text("version: 1\nepochs: 2\nlearning_rate: 5e-5\n")
    found.append(Target("recipe.yaml", folder / "recipe.yaml", ("recipe",)))
    begun = folder / "job"
    begun.mkdir()
    shutil.copy(data / "train.jsonl", begun / "rows.jsonl")
    model = write_classifier(folder / "model")
    classify_files(
        model,
        begun / "rows.jsonl",
        begun / "out",
        threads=1,
        rows_per_file=4,
        output_column="answer",
    )
    (begun / "out" / "_SUCCESS").unlink()
    found.append(Target("batch job", begun, ("job",)))
    try:
        import torch
    except ImportError:
        return found
    pickled = write_classifier(folder / "pickled")
    from safetensors.numpy import load_file

    state = {k: torch.from_numpy(v) for k, v in load_file(pickled / "model.safetensors").items()}
    torch.save(state, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    found.append(Target("pickle", pickled, ("convert",), 2))
    return found


ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**64,
    10**400,
    1e308,
    -1e308,
    0.5,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    " ",
    "\ud800",
    "\0",
    "\x1b[31m\n",
    "a" * 5000,
    "\u202e",
    "../..",
    "/etc/passwd",
    "[CLS]",
    "mean",
    [],
    {},
    [None],
    [[]],
    {"": None},
    [0] * 50,
    {"type": "Replace"},
    16777216,
    16777217,
    4096,
    "1:2",
    "2:4",
    "fp32",
)


def mutate_json(document: Any, chance: random.Random) -> Any:
    """Change, remove, duplicate or rename one node, or swap it with another."""
    nodes: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in keys:
            nodes.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(document, dict | list):
        walk(document)
    if not nodes or chance.random() < 0.02:
        return chance.choice(ODD)
    # A vocabulary has more nodes than everything else: give shallow ones a better chance.
    place = chance.randrange(len(nodes)) if chance.random() < 0.5 else None
    if place is None:
        place = min(chance.randrange(len(nodes)), chance.randrange(len(nodes)))
    parent, key = nodes[place]
    kind = chance.randrange(7)
    if kind <= 2:
        parent[key] = chance.choice(ODD)
    elif kind == 3:
        del parent[key]
    elif kind == 4:
        parent[key] = json.loads(json.dumps(nodes[chance.randrange(len(nodes))][0]))
    elif kind == 5 and isinstance(parent, dict):
        parent[str(chance.choice(ODD))] = parent.pop(key)
    elif kind == 6 and isinstance(parent, list):
        parent.extend(parent[key : key + 1] * chance.choice((1, 2, 70)))
    else:
        nested: Any = parent[key]
        for _ in range(chance.choice((1, 70, 900))):
            nested = [nested]
        parent[key] = nested
    return document


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change, remove, duplicate or insert some bytes, or cut off the rest."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        at = chance.randrange(len(content) + 1)
        length = chance.choice((1, 1, 2, 4, 8, 64))
        kind = chance.randrange(6)
        if kind <= 1:
            content[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            content[at:at] = content[at : at + length]
        elif kind == 4:
            odd = chance.choice(
                (b"\0", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xed\xa0\x80")
            )
            content[at : at + len(odd)] = odd
        else:
            del content[at:]
    return bytes(content)


def mutate_safetensors(data: bytes, chance: random.Random) -> bytes:
    """Mutate a node of the header or of the JSON in its metadata, or insert odd numbers."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    kind = chance.randrange(3)
    if kind == 0 and body:
        odd = chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\x80" * 4))
        at = 4 * chance.randrange(len(body) // 4 or 1)
        body[at : at + 4] = odd
    elif kind == 1 and "sparsebert" in header.get("__metadata__", {}):
        inner = mutate_json(json.loads(header["__metadata__"]["sparsebert"]), chance)
        header["__metadata__"]["sparsebert"] = json.dumps(inner)
    else:
        header = mutate_json(header, chance)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + bytes(body)


def mutate_lines(data: bytes, chance: random.Random) -> bytes:
    """Mutate a cell, a line or the object of a line."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    kind = chance.randrange(5)
    if kind <= 1 and lines[at].startswith(b"{"):
        lines[at] = json.dumps(mutate_json(json.loads(lines[at]), chance)).encode()
    elif kind <= 1 and lines[at]:
        mark = b"\t" if b"\t" in lines[at] else b","
        cells = lines[at].split(mark)
        odd = str(chance.choice(ODD))
        quoted = chance.choice((odd, f'"{odd}"', f'"{odd}'))
        cells[chance.randrange(len(cells))] = quoted.encode("utf-8", "surrogatepass")
        lines[at] = mark.join(cells)
    elif kind == 2:
        lines[at : at + 1] = chance.choice(([], [lines[at]] * 2, [b""], [b"null"], [b"[]", b"{}"]))
    elif kind == 3:
        encoding = chance.choice(("latin-1", "utf-16", "utf-8-sig", "utf-32"))
        return data.decode(errors="replace").encode(encoding, "replace")
    else:
        lines[at] = mutate_bytes(lines[at], chance)
    return b"\n".join(lines)


def mutate_parquet(data: bytes, chance: random.Random) -> bytes:
    """Write a table of other types, or mutate bytes of the footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if chance.random() < 0.5:
        footer = int.from_bytes(data[-8:-4], "little") + 8
        return data[:-footer] + mutate_bytes(data[-footer:], chance)
    kinds = [
        pa.array(["a", None, "b"]),
        pa.array([1, 2, None]),
        pa.array([0.5, float("nan"), 1e308]),
        pa.array([[1], [], None]),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array([b"\xff", b"", None]),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.nulls(3),
        pa.array([True, False, None]),
        pa.array([2**40, 0, -(2**60)], pa.timestamp("us")),
        pa.array([1, 2, 3], pa.decimal128(38, 2)),
        pa.array(["", " ", "\0"], pa.large_string()),
        pa.array([2**63, 0, 1], pa.uint64()),
    ]
    names = [
        chance.choice(("text", "label", "score", "a", "", "\n" * 3, "e" * 300)) for _ in range(3)
    ]
    table = pa.Table.from_arrays([chance.choice(kinds) for _ in names], names=names)
    out = io.BytesIO()
    pq.write_table(table, out, compression=chance.choice(("none", "snappy", "zstd", "gzip")))
    return out.getvalue()


def mutate_zip(data: bytes, chance: random.Random) -> bytes:
    """Mutate one file of a zip archive and store it with a correct checksum."""
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    chosen = chance.choice([name for name in source.namelist() if name.endswith(".pkl")])
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, mutate_bytes(content, chance) if name == chosen else content)
    return out.getvalue()


def mutate(file: Path, chance: random.Random) -> None:
    """Mutate a file in place, according to the type that its name says."""
    data = file.read_bytes()
    if chance.random() < 0.25:
        file.write_bytes(mutate_bytes(data, chance))
        return
    suffix = file.suffix
    if suffix == ".gz":
        changed = gzip.compress(mutate_lines(gzip.decompress(data), chance), mtime=0)
    elif suffix == ".json":
        document = mutate_json(json.loads(data), chance)
        text = json.dumps(document, ensure_ascii=chance.random() < 0.7)
        changed = text.encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "surrogatepass")
    else:
        known: dict[str, Callable[[bytes, random.Random], bytes]] = {
            ".safetensors": mutate_safetensors,
            ".parquet": mutate_parquet,
            ".bin": mutate_zip,
        }
        changed = known.get(suffix, mutate_lines)(data, chance)
    file.write_bytes(changed)


def make_case(target: Target, number: int, seed: int, folder: Path) -> tuple[str, Path, int]:
    """Make the mutated copy of case ``number``: its reader, path and size in bytes."""
    chance = random.Random(f"{seed} {number}")
    path = folder / target.source.name
    if target.source.is_dir():
        shutil.copytree(target.source, path)
        files = sorted(each for each in path.rglob("*") if each.is_file())
    else:
        shutil.copyfile(target.source, path)
        files = [path]
    changed: set[Path] = set()
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        file = chance.choice(files)
        try:
            mutate(file, chance)
        except Exception:  # damaged by an earlier mutation
            if file not in changed:
                raise
            file.write_bytes(mutate_bytes(file.read_bytes(), chance))
        changed.add(file)
    size = sum(each.stat().st_size for each in files)
    return chance.choice(target.readers), path, size


def run(
    numbers: Iterable[int],
    *,
    seconds: float,
    seed: int,
    keep: Path | None = None,
    targets_named: str = "",
) -> tuple[Counter[str], int, list[str]]:
    """Run cases: their number per target, how many of all were refused, and the faults."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Watch() as watch:
        known = [t for t in targets(Path(scratch)) if targets_named in t.name]
        if not known:
            raise SystemExit(f"no target has '{targets_named}' in its name.")
        wheel = [target for target in known for _ in range(target.weight)]
        with suppress(KeyboardInterrupt):  # keep what was found so far
            for number in numbers:
                if time.monotonic() - began > seconds:
                    break
                target = random.Random(f"{seed}, {number}").choice(wheel)
                folder = Path(scratch, f"case-{number}")
                folder.mkdir()
                reader, path, size = make_case(target, number, seed, folder)
                fault = watch.fault(reader, path, size)
                counts[target.name] += 1
                if fault is not None:
                    faults.append(f"case {number}, {reader} of {target.name}: {fault}")
                    print(faults[-1], flush=True)
                    if keep is not None:
                        shutil.copytree(folder, keep / f"{seed}-{number}", dirs_exist_ok=True)
                        (keep / f"{seed}-{number}.txt").write_text(faults[-1])
                shutil.rmtree(folder)
        refused = watch.refused
    return counts, refused, faults


def main() -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1 << 30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, default=None, help="run this one alone")
    parser.add_argument("--target", default="", help="only targets with this in their names")
    parser.add_argument("--keep", type=Path, default=None, metavar="FOLDER")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells take from `... &`
    counts, refused, faults = run(
        range(given.cases) if given.case is None else [given.case],
        seconds=given.seconds,
        seed=given.seed,
        keep=given.keep,
        targets_named=given.target,
    )
    for name, count in sorted(counts.items()):
        print(f"{count:9,} {name}")
    print(f"{counts.total():9,} in all: {refused:,} refused, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
