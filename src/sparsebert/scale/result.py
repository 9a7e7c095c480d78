"""What a job came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FilesResult:
    """A finished job: ``rows`` in ``files`` of the folder ``out``.

    ``rows_done`` were answered in this call (the others were there already); of these ``failed``
    have no answer and ``truncated`` were cut. ``seconds`` are by the clock, ``worker_seconds`` the
    sum over all engines, ``threads`` those of one engine.
    """

    out: str
    rows: int
    files: int
    rows_done: int
    failed: int
    truncated: int
    seconds: float
    worker_seconds: float
    workers: int
    threads: int
    error_column: str

    @property
    def rows_per_second(self) -> float:
        """Rows of this call by the clock."""
        return self.rows_done / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "worker_seconds": round(self.worker_seconds, 3),
            "rows_per_second": round(self.rows_per_second, 3),
        }

    def __str__(self) -> str:
        told = f"{self.out}: {self.rows:,} rows in {self.files:,} files"
        if self.rows_done < self.rows:
            told += f", {self.rows - self.rows_done:,} of them done before"
        told += f"; {self.rows_done:,} rows in {self.seconds:.1f} s ({self.rows_per_second:.1f}/s)."
        if self.truncated:
            told += f"\nnote: {self.truncated:,} texts were longer than the model reads, and cut."
        if self.failed:
            told += f"\nnote: {self.failed:,} rows have no answer: see column {self.error_column}."
        return told
