"""docs/results.md and the pages beside it say what docs/results.json holds."""

from __future__ import annotations

import re

import pytest

from checkout import CHECKOUT
from sparsebert.table.formats import as_sections
from sparsebert.table.layout import Table, row_title, tables
from sparsebert.table.results import read_results

DOCS = CHECKOUT / "docs"
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"]
ROWS = ["best-int8", "shared64-int8", "shared-int8", "2of4-int8", "1of4-int8"]


@pytest.fixture(scope="module")
def measured() -> list[Table]:
    return tables(read_results(DOCS / "results.json"))


def table_cells(page: str) -> list[list[str]]:
    """The cells below the heading of a page's first table."""
    found = re.search(r"(?:^\|.*\n)+", page, re.M)
    assert found is not None
    return [
        [cell.strip(" *") for cell in line.split("|")[1:-1]] for line in found[0].splitlines()[2:]
    ]


def test_the_table_of_shares(measured: list[Table]) -> None:
    expected = []
    for table in measured:
        columns = [column for column in table.columns() if column.counts]
        for row in (row for row in ROWS if row in table.rows()):
            first = f"{table.model}, " if row == ROWS[0] else ""
            counts = sorted(
                {len(r.seeds) for r in table.results if r.row == row and r.run != "sst2-full"}
            )
            shares = {column.task: table.share(row, column) for column in columns}
            mean = table.mean_share(row)
            assert mean is not None
            expected.append(
                [
                    first + row_title(row).removesuffix("int8").rstrip(" ,"),
                    " or ".join(map(str, counts)),
                    *(
                        "" if (share := shares.get(task)) is None else f"{share:.1f}"
                        for task in ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "squad")
                    ),
                    f"{mean[0]:.1f}",
                ]
            )
    assert table_cells((DOCS / "results.md").read_text(encoding="utf-8")) == expected


def test_readme(measured: list[Table]) -> None:
    page = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = page[page.index("### Size and accuracy") :]
    told = [[row[0], *row[2:4]] for row in table_cells(section)]
    expected = []
    for table in measured:
        for row in ("best-int8", "shared-int8", "1of4-int8"):
            shares = [
                share
                for column in table.columns()
                if column.counts and (share := table.share(row, column)) is not None
            ]
            if not shares:
                continue
            first = f"{table.model}, " if row == "best-int8" else ""
            mean = table.mean_share(row)
            assert mean is not None
            expected.append(
                [
                    first + row_title(row).removesuffix("int8").rstrip(" ,"),
                    f"{mean[0]:.1f} % over {NUMBERS[len(shares)]} tasks",
                    f"{min(shares):.1f} %",
                ]
            )
    assert told == expected


def test_the_range_that_the_first_pages_begin_with(measured: list[Table]) -> None:
    (table,) = (each for each in measured if "MiniLM" in each.model)
    shares = [
        share
        for column in table.columns()
        if column.counts and (share := table.share(ROWS[0], column)) is not None
    ]
    told = f"{min(shares):.1f} to {max(shares):.1f} %"
    assert f"keeps {told} of the dense score on each of {NUMBERS[len(shares)]} tasks" in " ".join(
        (CHECKOUT / "README.md").read_text(encoding="utf-8").split()
    )
    assert f"{told} on each" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_the_page_of_scores(measured: list[Table]) -> None:
    assert (DOCS / "accuracy.md").read_text(encoding="utf-8") == as_sections(measured) + "\n"
