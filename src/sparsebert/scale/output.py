"""The output folder of a job: finished parts, resuming, and writing files atomically.

    OUT/part-000000.parquet, ...   each gets this name once it is complete
    OUT/_sparsebert.json           describes the job, so that only the same one can resume here
    OUT/_SUCCESS                   all parts are complete (the convention of Hadoop and Spark)
    OUT/.part-000007.parquet.RUN.1 an unfinished part; removed when the job ends or starts again
    OUT/._SUCCESS.RUN              the same for _SUCCESS (and for _sparsebert.json)

Readers of Parquet folders ignore names that begin with ``_`` or ``.``.

RUN is a random number that each run of a job writes into _sparsebert.json when it begins, with
which it takes the folder over: an earlier run, which may still be going on anywhere, finds another
number there before it gives a file its name, and stops. There is no lock, as object stores have
none, and one that a killed run leaves behind would have to be removed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.atomic import sync
from sparsebert.checkpoint.json_files import differences
from sparsebert.errors import OutputError
from sparsebert.scale.finished_parts import KEY, note
from sparsebert.scale.input_files import InputFiles, Location

if TYPE_CHECKING:
    import pyarrow as pa

TRIES = 3  # a part on which this many workers died is not tried again
_JOB, _SUCCESS = "_sparsebert.json", "_SUCCESS"
_SHARED = "Use a folder that all machines share, or a URL such as s3://bucket/folder."
_LARGEST = 1 << 20  # most bytes read from _sparsebert.json
_PART = re.compile(r"part-\d{6,}\.parquet")
_RUN = "run"  # the key of the run's number in _sparsebert.json
_UNFINISHED = re.compile(rf"\.(part-\d{{6,}}\.parquet|{_JOB}|{_SUCCESS})\.[0-9a-f]+(\.\d+)?")
_ROW_GROUP = 32 << 20  # bytes collected before a row group is written


def begin(
    out: Location, job: Mapping[str, Any], inputs: InputFiles, run: str, *, force: bool
) -> set[str]:
    """Prepare the folder for a new or resumed job; returns the names of its finished parts.

    ``job`` is what the output depends on. Another run that still writes here will stop. Raises
    OutputError if the folder overlaps the input, has the output of another job (``force`` removes
    it), or has other files.
    """
    if inputs.overlaps(out):
        raise OutputError(
            f"{out.path} is inside the input or contains files of it, so that output could be read "
            "as input or input removed: name another folder."
        )
    try:
        out.filesystem.create_dir(out.path, recursive=True)
        names = {name for name in _names(out) if not _UNFINISHED.fullmatch(name)}
        known = _read(out) if _JOB in names else None
        others = [name for name in names if not _is_ours(name)]
        if others or (_JOB not in names and names and not force):
            raise OutputError(
                f"{out.path} contains {(others or sorted(names))[0]}, which does not belong to a "
                "job that can be resumed: name an empty folder."
            )
        if not force and _JOB in names:
            if known is None:
                raise OutputError(
                    f"{out.child(_JOB).path} is damaged: name another folder, or pass --force."
                )
            different = differences(known, job, ignored=(_RUN,))
            if different:
                raise OutputError(
                    f"{out.path} was started by another job ({'; '.join(different)}): use the same "
                    "options and input to resume it, name another folder, or pass --force to start "
                    "over."
                )
        if known is not None:
            _describe(out, known, run)
        # In this order: without its unfinished file, an earlier run cannot add a part any more.
        _remove(out, {name for name in _names(out) if _UNFINISHED.fullmatch(name)})
        names = _names(out)
        if force:
            _remove(out, names - {_JOB})
            names = set()
        if force or known is None:  # only now, as old parts are not of the new job
            _describe(out, job, run)
        return {name for name in names if _PART.fullmatch(name)}
    except OSError as fault:
        raise _failure(out, fault) from fault


def finish(out: Location, parts: Sequence[str], run: str) -> None:
    """Mark the output as complete, and remove unfinished files of killed workers.

    OutputError if one of ``parts`` is missing because a machine wrote it elsewhere, or if another
    run has taken over.
    """
    try:
        names = _names(out)
        _check_run(out, run)
        lost = [name for name in parts if name not in names]
        if lost:
            raise OutputError(
                f"{out.path} lacks {len(lost)} of {len(parts)} files, such as {lost[0]}, although "
                "they were written: on some machine of the cluster, this path is another folder. "
                f"{_SHARED}"
            )
        # Not those of a run that is just beginning.
        _remove(out, {name for name in names if _UNFINISHED.fullmatch(name) and run in name})
        _write(out, _SUCCESS, b"", run)
    except OSError as fault:
        raise _failure(out, fault) from fault


def discard(out: Location, parts: Sequence[str], run: str) -> None:
    """Remove damaged parts, and the mark that the output is complete."""
    try:
        _check_run(out, run)
        _remove(out, {*parts, *({_SUCCESS} & _names(out))})
    except OSError as fault:
        raise _failure(out, fault) from fault


class PartWriter:
    """A context manager that writes a Parquet file and renames it once it is complete.

    An error in the block removes the file. A worker that is killed leaves its unfinished file
    behind, which counts as a failed attempt: after `TRIES` of these, OutputError is raised. So it
    is if another run has taken over the folder.
    """

    def __init__(self, out: Location, name: str, run: str) -> None:
        self._out = out
        self._name = name
        self._run = run
        self._waiting: list[pa.Table] = []
        self._writer: Any = None

    def add(self, table: pa.Table) -> None:
        """Append rows; all tables have the same columns."""
        self._waiting.append(table)
        if sum(each.nbytes for each in self._waiting) >= _ROW_GROUP:
            self._flush()

    def note(self, counts: Mapping[str, int]) -> None:
        """Add the part's counts to the file's metadata, after all of its rows."""
        self._flush()
        try:
            self._writer.add_key_value_metadata({KEY: note(counts, self._writer.schema)})
        except OSError as fault:
            raise _failure(self._out, fault) from fault

    def __enter__(self) -> PartWriter:
        try:
            _check_run(self._out, self._run)  # also at the end; here it saves the work
            self._unfinished = self._claim()
            self._stream = self._out.filesystem.open_output_stream(self._unfinished)
        except OSError as fault:
            raise _failure(self._out, fault) from fault
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            self._flush()
            self._writer.close()
            self._stream.close()
            _rename(self._out, self._unfinished, self._name, self._run)
        except OutputError:
            self._abandon()
            raise
        except OSError as fault:
            self._abandon()
            raise _failure(self._out, fault) from fault

    def _abandon(self) -> None:
        """Remove the file; closing it first writes buffered data, which may fail (full disk)."""
        for leave in (
            self._writer.close if self._writer is not None else lambda: None,
            self._stream.close,
            lambda: self._out.filesystem.delete_file(self._unfinished),
        ):
            with suppress(OSError):
                leave()

    def _claim(self) -> str:
        """The temporary name: the first one that no earlier worker of this run has left behind."""
        from pyarrow.fs import FileType

        stem = self._out.child(f".{self._name}.{self._run}").path
        names = [f"{stem}.{count}" for count in range(1, TRIES + 1)]
        for info in self._out.filesystem.get_file_info(names):
            if info.type is FileType.NotFound:
                # Object stores list a file only once it is closed: create an empty one to claim it.
                self._out.filesystem.open_output_stream(info.path).close()
                path: str = info.path
                return path
        raise OutputError(
            f"{TRIES} workers died on {self._name}: their machines may have too little memory for "
            "it. Use smaller parts (--rows-per-file) or a smaller --batch-size."
        )

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting.clear()
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(
                    self._stream, table.schema, compression="zstd", write_page_checksum=True
                )
            self._writer.write_table(table, row_group_size=table.num_rows)
        except OSError as fault:
            raise _failure(self._out, fault) from fault


def _names(out: Location) -> set[str]:
    from pyarrow.fs import FileSelector

    return {each.base_name for each in out.filesystem.get_file_info(FileSelector(out.path))}


def _is_ours(name: str) -> bool:
    return name in (_JOB, _SUCCESS) or bool(_PART.fullmatch(name))


def _remove(out: Location, names: set[str]) -> None:
    for name in sorted(names, key=lambda name: name != _SUCCESS):  # first, if this is interrupted
        with suppress(FileNotFoundError):  # another run, which stops, may remove its own files
            out.filesystem.delete_file(out.child(name).path)


def _read(out: Location) -> dict[str, Any] | None:
    """The description of the job, None if it is damaged."""
    try:
        with out.filesystem.open_input_stream(out.child(_JOB).path) as file:
            found = json.loads(file.read(_LARGEST))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check_run(out: Location, run: str) -> None:
    """OutputError if another run has taken over the folder, or this is not the folder."""
    try:
        found = _read(out) or {}
    except FileNotFoundError:
        raise OutputError(
            f"{out.path} has no {_JOB}: it was removed, or this path is another folder on this "
            f"machine. {_SHARED}"
        ) from None
    if found.get(_RUN) != run:
        raise OutputError(
            f"another run has begun to write to {out.path}, so this one stops: use a folder for "
            "one run at a time."
        )


def _describe(out: Location, job: Mapping[str, Any], run: str) -> None:
    _write(out, _JOB, json.dumps({**job, _RUN: run}, indent=2).encode() + b"\n", run)


def _write(out: Location, name: str, data: bytes, run: str) -> None:
    unfinished = out.child(f".{name}.{run}").path
    with out.filesystem.open_output_stream(unfinished) as file:
        file.write(data)
    _rename(out, unfinished, name, run)


def _rename(out: Location, unfinished: str, name: str, run: str) -> None:
    """Give a complete file its name, unless another run has taken over the folder."""
    taking_over = name == _JOB
    try:
        if out.is_local:
            sync(unfinished)
        if not taking_over:
            _check_run(out, run)
        out.filesystem.move(unfinished, out.child(name).path)
    except OSError:
        if not taking_over:
            _check_run(out, run)  # the other run removes unfinished files
        raise


def _failure(out: Location, fault: OSError) -> OutputError:
    return OutputError(f"{out.path} could not be written: {fault}. Finished parts are kept.")
