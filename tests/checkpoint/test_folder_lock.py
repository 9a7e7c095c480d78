"""One run at a time in a folder; what a killed one left is removed; SIGTERM is as Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparsebert.checkpoint import staged_folder
from sparsebert.checkpoint.atomic import FolderLock
from sparsebert.errors import OutputError

WRITING = """
import sys, time
from pathlib import Path
from sparsebert.checkpoint import staged_folder
with staged_folder(sys.argv[1], force=True) as staging:
    (staging / "half").touch()
    print(staging.name, flush=True)
    time.sleep(600)
"""
TRAINING = """
import sys, time
from pathlib import Path
from sparsebert.training.work_folder import locked_work_folder
with locked_work_folder(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def another(program: str, out: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process at work on ``out``, and the line that it said when it was."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write(out: Path) -> None:
    with staged_folder(out, force=True) as staging:
        (staging / "config.json").write_text("{}")


class TestLock:
    def test_a_second_one_does_not_get_it(self, tmp_path: Path) -> None:
        first = FolderLock.take(tmp_path)
        assert first is not None
        assert FolderLock.take(tmp_path) is None
        first.release(tmp_path)
        assert names(tmp_path) == set()
        again = FolderLock.take(tmp_path)
        assert again is not None
        again.release(tmp_path)

    def test_a_folder_that_was_made_again_is_locked_anew(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        first = FolderLock.take(folder)
        assert first is not None
        (folder / ".lock").unlink()  # as when the folder is removed by the one who holds it
        second = FolderLock.take(folder)
        assert second is not None
        for lock in (first, second):
            lock.release(folder)


class TestStaging:
    def test_what_a_killed_process_left_is_removed_by_the_next(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with another(WRITING, out) as (process, left):
            process.kill()
            process.wait()
            assert names(tmp_path) == {left}
        (tmp_path / ".out.partial-mine").mkdir()
        (tmp_path / ".other.partial-12345678").mkdir()
        (tmp_path / ".out.old-12345678").mkdir()  # killed between two renames
        write(out)
        assert names(tmp_path) == {"out", ".out.partial-mine", ".other.partial-12345678"}
        assert names(out) == {"config.json"}

    def test_what_another_process_is_writing_is_not(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with another(WRITING, out) as (_, theirs):
            write(out)
            assert names(tmp_path) == {"out", theirs}
            assert (tmp_path / theirs / "half").is_file()

    def test_sigterm_tidies_up(self, tmp_path: Path) -> None:
        with another(WRITING, tmp_path / "deep" / "out") as (process, _):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) != 0
        assert names(tmp_path) == set()

    def test_a_programs_own_way_with_sigterm_stays(self, tmp_path: Path) -> None:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        write(tmp_path / "out")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        seen: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        try:
            with staged_folder(tmp_path / "out", force=True):
                signal.raise_signal(signal.SIGTERM)
        except OutputError:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
        assert seen == [signal.SIGTERM]


class TestTraining:
    @pytest.fixture(autouse=True)
    def needed(self) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("pyarrow")

    @pytest.mark.thorough
    def test_two_runs_into_one_folder(self, sparse: Path, tmp_path: Path) -> None:
        from short_runs import QUICK
        from sparsebert.training import finetune
        from tiny_tasks import write_classification

        data, out = write_classification(tmp_path / "data", train=16), tmp_path / "out"
        options: dict[str, Any] = {**QUICK, "epochs": 1}
        with another(TRAINING, out):
            for resume in (False, True):
                with pytest.raises(
                    OutputError, match=r"another run is currently training .*out, in "
                ):
                    finetune(sparse, out, data=data, resume=resume, **options)
        assert finetune(sparse, out, data=data, **options).steps == 2  # that one was killed
        assert names(tmp_path) == {"data", "out"}

    def test_the_second_in_one_process_too(self, sparse: Path, tmp_path: Path) -> None:
        from short_runs import QUICK
        from sparsebert.training import finetune
        from tiny_tasks import write_classification

        data, out = write_classification(tmp_path / "data", train=16), tmp_path / "out"
        options: dict[str, Any] = {**QUICK, "epochs": 1}
        refused: list[str] = []

        def begin_another(label: str, done: int, total: int) -> None:
            if label == "fine-tuning" and done == 1:
                with pytest.raises(OutputError, match="another run is currently training") as found:
                    finetune(sparse, out, data=data, seed=2, **options)
                refused.append(str(found.value))

        assert finetune(sparse, out, data=data, progress=begin_another, **options).steps == 2
        assert len(refused) == 1
        assert names(tmp_path) == {"data", "out"}

    def test_sigterm_saves_the_run_however_often_it_comes(
        self, sparse: Path, tmp_path: Path
    ) -> None:
        from short_runs import QUICK, assert_same_bits
        from sparsebert.training import finetune
        from tiny_tasks import write_classification

        data, out = write_classification(tmp_path / "data"), tmp_path / "out"

        def terminate(label: str, done: int, total: int) -> None:
            if label == "fine-tuning" and done == 3:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 16; .*--resume"):
            finetune(sparse, out, data=data, progress=terminate, **QUICK)
        assert names(tmp_path) == {"data", "out.training"}
        assert finetune(sparse, out, data=data, resume=True, **QUICK).resumed_from == 3
        finetune(sparse, tmp_path / "whole", data=data, **QUICK)
        assert_same_bits(out, tmp_path / "whole")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
