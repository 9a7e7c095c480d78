"""The speed of the inner loops on Arm cores, as estimated by llvm-mca: no Arm CPU is needed.

    make test-arm                       (builds build/arm/release, which is read here)
    python benchmarks/arm_estimates.py [--mca llvm-mca-22] [CPU ...]

Prints dense-equivalent multiplies per cycle (zeros counted) of each kernel's loop, and 1:2 relative
to dense. llvm-mca assumes that every load hits L1, and ignores the code around the loop.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BUILD = Path(__file__).resolve().parents[1] / "build" / "arm" / "release"
CPUS = ["neoverse-n1", "neoverse-v1", "neoverse-v2", "apple-m1"]
LANES = {"sdot": 16, "usdot": 16, "sudot": 16, "usmmla": 32, "smull": 8, "smull2": 8, "fmla": 4}


class Loop(NamedTuple):
    """A kernel's inner loop: the loop of a function with the most multiplies."""

    name: str
    file: str
    function: str
    skips: int  # 2 for 1:2: each multiply stands for two
    lacks: tuple[str, ...] = ()  # CPUs that cannot run it
    expands: bool = False  # dense, after a tile's weights have been expanded for 64 tokens


NO_I8MM = ("neoverse-n1", "apple-m1")
LOOPS = [
    Loop("neon-i8mm dense", "int8/neon_i8mm", "dense_tiles<1, 6>", 1, NO_I8MM),
    Loop("neon-i8mm 1:2, expanded", "int8/neon_i8mm", "dense_tiles<1, 6>", 1, NO_I8MM, True),
    Loop("neon-i8mm 1:2, tbl", "int8/neon_i8mm", "pair_tiles<1, 4>", 2, NO_I8MM),
    Loop("neon-dotprod dense", "int8/neon_dotprod", "dense_tiles<1, 5>", 1),
    Loop("neon-dotprod 1:2, expanded", "int8/neon_dotprod", "dense_tiles<1, 5>", 1, (), True),
    Loop("neon-dotprod 1:2, tbl", "int8/neon_dotprod", "pair_tiles<1, 4>", 2),
    Loop("neon-dotprod 1:2, tables", "int8/neon_dotprod", "sum_lookup<8>", 2),
    Loop("neon int8 dense", "int8/neon", "dense_tiles<1, 2>", 1),
    Loop("neon int8 1:2, tbl", "int8/neon", "pair_tiles<1, 2>", 2),
    Loop("neon fp32 dense", "kernels/neon", "DenseRows<4>::run", 1),
    Loop("neon fp32 1:2, 16 tokens", "kernels/neon", "NarrowPairRows<4>::run", 2),
    Loop(
        "neon fp32 1:2, more",
        "kernels/neon",
        "sweep<sparsebert::(anonymous namespace)::PairRows",
        2,
    ),
]


def loops(file: str, function: str) -> Iterator[list[str]]:
    """The function's loops without branches inside, as assembly."""
    objects = BUILD / "CMakeFiles" / "engine.dir" / "src" / "native" / f"{file}.cpp.o"
    command = ["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", str(objects)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for block in listing.split("\n\n"):
        if function not in block.split("\n")[0]:
            continue
        found = re.findall(r"^ *([0-9a-f]+):\t(.*)$", block, re.M)
        at = {address: i for i, (address, _) in enumerate(found)}
        for end, (_, text) in enumerate(found):
            target = re.match(r"(?:b\.|cbn?z|tbn?z).*?\b([0-9a-f]+) <", text)
            begin = at.get(target[1], end + 1) if target else end + 1
            body = [text.split("//")[0] for _, text in found[begin : end + 1]]
            if len(body) > 1 and not any(
                re.match(r"b\b|b\.|cbn?z|tbn?z|ret", line) for line in body[:-1]
            ):
                yield [re.sub(r"\b[0-9a-f]+ <.*>", "begin", line) for line in body]


def multiplies(body: list[str]) -> int:
    return sum(LANES.get(line.split()[0], 0) for line in body)


def masks(body: list[str]) -> int:
    return sum(line.startswith("bic") for line in body)


def cycles(body: list[str], cpu: str, mca: str) -> float:
    text = "begin:\n" + "\n".join(body) + "\n"
    command = [mca, "-march=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", "-iterations=200"]
    printed = subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout
    total = re.search(r"^Total Cycles:\s+(\d+)", printed, re.M)
    assert total, printed
    return int(total[1]) / 200


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cpus", nargs="*", metavar="CPU", default=CPUS)
    parser.add_argument(
        "--mca", default="llvm-mca", help="the llvm-mca to run; 19 knows newer cores"
    )
    options = parser.parse_args()
    if not shutil.which(options.mca):
        parser.error(f"{options.mca} was not found. On Debian and Ubuntu: apt-get install llvm")
    print(f"| multiplies per cycle | {' | '.join(options.cpus)} |")
    print(f"|---|{'---:|' * len(options.cpus)}")
    dense: dict[str, float] = {}
    for loop in LOOPS:
        body = max(loops(loop.file, loop.function), key=multiplies)
        sparse = loop.expands or loop.skips > 1
        cells = []
        for cpu in options.cpus:
            if cpu in loop.lacks:
                cells.append("-")
                continue
            rate = multiplies(body) * loop.skips / cycles(body, cpu, options.mca)
            if loop.expands:  # a group of 16 rows x 8 inputs x 64 tokens
                expansion = max(loops(loop.file, "linear_expanded"), key=masks)
                more = cycles(expansion, cpu, options.mca) * 4 / masks(expansion)
                group = 16 * 8 * 64
                rate = group / (group / rate + more)
            if not sparse:
                dense[cpu] = rate
            cells.append(f"{rate:.1f}" + (f" ({rate / dense[cpu]:.2f})" if sparse else ""))
        print(f"| {loop.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
