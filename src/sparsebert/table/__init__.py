"""The table of results: what halving costs on each task, over seeds."""

from __future__ import annotations

from sparsebert.table.layout import Table
from sparsebert.table.results import Result, read_results
from sparsebert.table.runs import read_runs

__all__ = ["Result", "Table", "read_results", "read_runs"]
