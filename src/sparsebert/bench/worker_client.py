"""The parent's side of an engine's worker process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Each library reads one of these when it starts its threads, before there is an API to call.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerError(Exception):
    """An engine failed in its worker: the result gives the reason, and the measurement goes on."""


class Worker:
    """A running worker; `request` sends it one request at a time."""

    def __init__(self, command: list[str], environment: dict[str, str], threads: int) -> None:
        # Stays open while the worker runs; `stop` closes it.
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
                env={**os.environ, **variables, **environment},
            )
        except OSError as error:  # an engine may live in another Python, which may not be there
            self._log.close()
            raise WorkerError(f"its process could not be started: {error}") from error

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer; WorkerError if the engine fails or dies."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(
                f"its process ended with exit code {self._process.wait()}{self._last_words()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def stop(self) -> None:
        """End the process, at once if it does not end by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""


@contextmanager
def running(command: list[str], environment: dict[str, str], threads: int) -> Iterator[Worker]:
    """A worker for the duration of a with block."""
    worker = Worker(command, environment, threads)
    try:
        yield worker
    finally:
        worker.stop()
