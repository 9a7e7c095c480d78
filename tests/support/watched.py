"""Readers of files run in a process of their own, which is watched: what a stranger's file may do.

A case passes if the reader answers or raises SparsebertError with a message that is one printable
line. It fails with any other exception, a signal, more than 10 seconds of processor time (or five
minutes of waiting), or a peak of memory above 256 MiB + 20 times the files' size.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

SECONDS = 10.0
_WAIT = 300.0  # a machine may be busy with other things
MEMORY, TIMES = 256 << 20, 20
_MOST = 8 << 30  # bytes of address space: a case that asks for more must not hurt the machine


class Watch:
    """A child process that runs cases one after another, and is started again when it ends."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self.cases = 0
        self.refused = 0

    def fault(self, reader: str, path: Path, size: int) -> str | None:
        """What is wrong with how ``reader`` takes ``path``; None if nothing is."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        self.cases += 1
        child.stdin.write(json.dumps([reader, str(path), size]).encode() + b"\n")
        child.stdin.flush()
        ready, *_ = select.select([child.stdout], [], [], _WAIT)
        answer = child.stdout.readline() if ready else b""
        if not answer:
            code = self._ended(kill=not ready)
            if not ready:
                return f"waits for more than {_WAIT:.0f} s"
            if -code in (signal.SIGPROF, signal.SIGALRM):
                return f"takes more than {SECONDS:.0f} s of processor time"
            return f"ends the process by {signal.Signals(-code).name if code < 0 else code}"
        found = json.loads(answer)
        self.refused += found["refused"]
        return found["fault"]

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._ended(kill=True)

    def _ended(self, *, kill: bool) -> int:
        child, self._child = self._child, None
        assert child is not None
        with child:  # closes its pipes
            if kill:
                child.kill()
            return child.wait()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        here = str(Path(__file__).parent)
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {here!r}); import watched; watched.serve()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "SPARSEBERT_NUM_THREADS": "1",
            },
        )
        return self._child


def serve() -> None:
    """The child: a case a line on standard input, its result a line on standard output."""
    import resource
    import warnings

    from file_readers import READERS

    with suppress(ImportError):  # so that no case pays for it
        import pyarrow
        import torch

        del pyarrow, torch
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST, _MOST))
    for line in sys.stdin.buffer:
        reader, path, size = json.loads(line)
        result = _judged(READERS[reader], Path(path), size)
        answers.write(json.dumps(result).encode() + b"\n")
        answers.flush()


def _judged(read, path: Path, size: int) -> dict[str, object]:
    from sparsebert.errors import SparsebertError

    refused, fault = False, None
    before = _peak(reset=True)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read(path)
    except SparsebertError as error:
        refused, fault = True, _wording(str(error), error.longest)
    except BaseException:  # a Rust library's PanicException is no Exception
        fault = traceback.format_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _peak() - before
    if fault is None and grown > MEMORY + TIMES * size:
        fault = f"takes {grown >> 20} MiB for {size} bytes"
    return {"refused": refused, "fault": fault}


def _wording(message: str, longest: int) -> str | None:
    if len(message) > longest:
        return f"a message of {len(message)} characters: {message[:400]!r}"
    if not message.strip() or not message.isprintable():
        return f"a message that is no printable line: {message!r}"
    return None


def _peak(*, reset: bool = False) -> int:
    """Bytes: the most memory that was resident since the last reset; now, with ``reset``."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
