"""A .npy file that is written row by row, and appears only when it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.errors import OutputError


class NpyFile:
    """Rows of one type written one after the other; the number of rows may be unknown at first.

    A context manager: at its end, the file takes its name; on any failure, nothing is left behind
    and an older file at ``path`` is kept. Raises OutputError if ``path`` exists (without ``force``)
    or cannot be written.
    """

    def __init__(
        self, path: Path, columns: int, *, dtype: str = "<f4", force: bool = False
    ) -> None:
        self.check_free(path, force=force)
        self._path = path
        self._opened = ExitStack()
        self._columns = columns
        self._dtype = np.dtype(dtype)
        self._rows = 0
        try:
            partial = self._opened.enter_context(replaced_file(path))
            self._file = self._opened.enter_context(partial.open("wb"))
            self._write_header()
        except OSError as error:
            raise self._failure(error) from None

    @staticmethod
    def check_free(path: Path, *, force: bool) -> None:
        """OutputError unless ``path`` may be written."""
        if path.is_dir():
            raise OutputError(f"{path} is a folder: choose a file.")
        if path.exists() and not force:
            raise OutputError(f"{path} exists: choose another file, or pass --force to replace it.")

    def write(self, rows: Sequence[npt.NDArray[Any] | None]) -> None:
        """Append rows of shape ``[columns]``; None is a row of NaN, or of zeros for integers."""
        missing = np.nan if self._dtype.kind == "f" else 0
        block = np.full((len(rows), self._columns), missing, self._dtype)
        for index, row in enumerate(rows):
            if row is not None:
                block[index] = row
        try:
            self._file.write(block.tobytes())
        except OSError as error:
            raise self._failure(error) from None
        self._rows += len(rows)

    def __enter__(self) -> NpyFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with self._opened:
                    self._file.seek(0)
                    self._write_header()
            else:
                self._opened.__exit__(kind, error, trace)
        except OSError as failed:
            if failed is error:
                raise
            raise self._failure(failed) from None

    def _write_header(self) -> None:
        # numpy leaves room in the header for the first dimension to grow: its size does not change.
        shape = (self._rows, self._columns)
        header = {
            "descr": npy_format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        npy_format.write_array_header_1_0(self._file, header)

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path} cannot be written: {error.strerror or error}.")
