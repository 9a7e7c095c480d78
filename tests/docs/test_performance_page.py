"""The ranges that README.md, docs/index.md and docs/performance.md begin with were measured."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal

import pytest

from checkout import CHECKOUT

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
INDEX = (CHECKOUT / "docs" / "index.md").read_text(encoding="utf-8")
PAGE = (CHECKOUT / "docs" / "performance.md").read_text(encoding="utf-8")
CPUS = {  # a section, and what links to it
    "AMD EPYC, Zen 4": "amd-epyc-zen-4",
    "AMD EPYC, Zen 5": "amd-epyc-zen-5",
    "Intel Xeon with AMX": "intel-xeon-with-amx",
    "AVX2": "avx2",
}
INT8 = "int8 1:2 vs fastest int8 peer"
BF16 = "bf16 1:2 vs OpenVINO bf16"
FP32 = "fp32 1:2 vs fastest"
TEXTS = "ours int8 / fastest peer"
ALL, SHORT, LONG = slice(None), slice(1), slice(1, None)  # columns: 1x16 is the first


def cells(line: str) -> list[str]:
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def measured() -> dict[str, list[tuple[str, list[Decimal]]]]:
    """Of each section its rows: what they tell, and the numbers that their cells begin with."""
    found = defaultdict(list)
    section = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("|"):
            label, *values = cells(line)
            numbers = [re.match(r"\d+(\.\d+)?", value) for value in values]
            if all(numbers):
                found[section].append((label, [Decimal(each[0]) for each in numbers if each]))
    return found


def summary(page: str, cpu: str, nth: int = 0) -> list[str]:
    """The cells that the page's nth table of CPUs has behind one of them."""
    names = rf"^\| (?:\[[^\]]*\]\([^)]*#{CPUS[cpu]}\)|{cpu})"
    return cells(re.findall(rf"{names}.*", page, re.M)[nth])[1:]


# A row of a summary, counted among those of its CPU; its column; the measured row and its columns.
README_COLUMNS = [(0, 0, INT8, ALL), (0, 1, TEXTS, ALL), (0, 2, BF16, ALL), (0, 3, FP32, ALL)]
PAGE_COLUMNS = [
    (0, 0, INT8, SHORT),
    (0, 1, INT8, LONG),
    (0, 2, TEXTS, ALL),
    (0, 3, BF16, LONG),
    (0, 4, FP32, LONG),
]
DENSE_COLUMNS = [
    (1, 0, "int8 1:2 vs our own dense int8", LONG),
    (1, 1, "int8 shared vs our own dense int8", LONG),
]


@pytest.mark.parametrize(
    ("cpu", "name"),
    [("AMD EPYC, Zen 4", "AVX-512 VNNI"), ("Intel Xeon with AMX", "Intel Xeon, AMX")],
)
def test_the_headline(cpu: str, name: str) -> None:
    """Of MiniLM, whose table is the second of a section; one more shape is told in words."""
    minilm = [found for label, found in measured()[cpu] if label.startswith(INT8)][1]
    section = PAGE[PAGE.index(f"## {cpu}") :]
    more = re.search(r"At 32x128.*?(\d\.\d+) \(MiniLM\)", section[: section.index("\n## ")], re.S)
    minilm += [Decimal(more[1])] if more else []
    told = f"{min(minilm):.1f} to {max(minilm):.1f}"
    assert told in " ".join(README[: README.index("```")].split())
    assert re.search(rf"\| {told} \| \[.*{name}\]", INDEX)


@pytest.mark.parametrize(
    ("page", "columns", "cpu"),
    [(README, README_COLUMNS, cpu) for cpu in CPUS]
    + [(PAGE, PAGE_COLUMNS, cpu) for cpu in CPUS]
    + [(PAGE, DENSE_COLUMNS, cpu) for cpu in CPUS if "Intel" not in cpu],  # of several sections
)
def test_the_ranges(page: str, columns: list[tuple[int, int, str, slice]], cpu: str) -> None:
    rows = measured()[cpu]
    for nth, column, wanted, taken in columns:
        values = [v for label, found in rows if label.startswith(wanted) for v in found[taken]]
        told = re.findall(r"\d+\.\d+", summary(page, cpu, nth)[column])
        if wanted == TEXTS and not values:  # told in words
            continue
        assert len(told) == (2 if values else 0), (wanted, told)
        for end, value in zip(told, (min(values), max(values)), strict=True) if values else ():
            half = Decimal(1).scaleb(Decimal(end).as_tuple().exponent) / 2  # type: ignore[arg-type]
            assert abs(Decimal(end) - value) <= half, (wanted, end, value)
