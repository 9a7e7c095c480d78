"""``OUT.training``: where a run keeps its checkpoints until OUT is written.

It is beside OUT and named after it, is used by one run at a time, and is removed when the run
succeeds. It holds checkpoints of transformers, including the optimiser state, not models for others
to use.

A checkpoint has the weights and the optimiser's state in fp32: with AdamW, three times the size of
the model. Two are kept (and the best one, with early stopping), and the next one is written before
the older one is removed. Before the first step, it is checked that the disk has room for them.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.architecture import WORDS
from sparsebert.checkpoint.atomic import LOCK_NAME, FolderLock
from sparsebert.checkpoint.json_files import differences, replace_json
from sparsebert.checkpoint.masks import MASKS_NAME
from sparsebert.checkpoint.staging import (
    check_disk,
    made_parents,
    staged_folder,
    writing,
)
from sparsebert.errors import OtherRunError, OutputError, TrainingError
from sparsebert.training.batches import BatchPlan
from sparsebert.training.callbacks import CHECKPOINTS_KEPT, DivergedError
from sparsebert.training.checkpoint_folders import (
    checkpoints_in,
    folder_bytes,
    work_folder_of,
)
from sparsebert.training.defaults import RunOptions
from sparsebert.training.distributed import from_main, is_main, wait_for_all
from sparsebert.training.fingerprints import changed
from sparsebert.training.options import OPTIMIZER_STATES
from sparsebert.training.upstream.options import UpstreamOptions

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_RUN = "run.json"
_WHOLE = ("model.safetensors", "config.json", "scheduler.pt")
# These have another name if several processes wrote them, or for a sharded model.
_WHOLE_TOO = (("optimizer.pt", "optimizer.bin"), ("rng_state.pth", "rng_state_0.pth"))
_STATE = "trainer_state.json"  # the last file that the Trainer writes


@contextmanager
def locked_work_folder(out: Path) -> Iterator[None]:
    """Keep other runs out of the work folder of ``out``, and remove it if the block succeeds.

    It is created if it does not exist. Raises OutputError if another run is using it, if it was not
    left by a run, or if it cannot be written.
    """
    folder = work_folder_of(out)
    _refuse_foreign(folder, out)
    with writing(folder), made_parents(folder):
        lock = None
        while lock is None:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # the previous run has just removed it
                lock = FolderLock.take(folder)
                if lock is None:
                    raise OutputError(
                        f"another run is currently training {out}, in {folder}: wait for it to "
                        "finish, or choose another output folder."
                    )
        try:
            yield
            _empty(folder)
        finally:
            lock.release(folder)
            with suppress(OSError):  # not if it holds checkpoints to resume from
                folder.rmdir()


def remove_left_over(out: Path) -> None:
    """Remove the work folder of a finished ``out`` whose run was killed before removing it."""
    folder = work_folder_of(out)
    if not folder.is_dir() or _is_foreign(folder):
        return
    with suppress(OSError):  # leaving it does no harm
        lock = FolderLock.take(folder)
        if lock is None:
            return
        try:
            if lock.held:
                _empty(folder)
        finally:
            lock.release(folder)
            folder.rmdir()


@contextmanager
def training_output(out: Path, *, force: bool, source: Path) -> Iterator[Path]:
    """An empty folder that becomes ``out`` if the block succeeds; the work folder is locked.

    With several processes, the main one creates both, and all of them leave the block together.
    Raises OutputError as `locked_work_folder` and `staged_folder` do.
    """
    with ExitStack() as stack:
        from_main(lambda: stack.enter_context(locked_work_folder(out)))
        yield from_main(lambda: stack.enter_context(staged_folder(out, force=force, source=source)))
    wait_for_all()


@contextmanager
def work_folder(
    out: Path,
    arguments: dict[str, Any],
    contents: dict[str, str],
    *,
    with_masks: bool,
    resume: bool,
    needed: int,
) -> Iterator[WorkFolder]:
    """`WorkFolder.open` in the main process; the folder is tidied if the block fails.

    Raises OutputError unless the disk has room for the ``needed`` bytes.
    """
    work = from_main(
        lambda: WorkFolder.open(out, arguments, contents, with_masks=with_masks, resume=resume)
    )
    with work.tidied_on_failure():
        from_main(
            lambda: check_disk(
                out, needed - folder_bytes(work.path), "training with its checkpoints"
            )
        )
        yield work


class WorkFolder:
    """The checkpoints of one run, and the arguments it was started with."""

    def __init__(
        self,
        path: Path,
        arguments: dict[str, Any],
        contents: dict[str, str],
        with_masks: bool,
    ) -> None:
        self.path = path
        self._arguments = arguments
        self._contents = contents
        self._with_masks = with_masks

    @classmethod
    def open(
        cls,
        out: Path,
        arguments: dict[str, Any],
        contents: dict[str, str],
        *,
        with_masks: bool,
        resume: bool,
    ) -> WorkFolder:
        """The work folder of ``out``, new or (with ``resume``) as an unfinished run left it.

        ``contents`` are the fingerprints of the run's inputs, by name. Without checkpoints in the
        folder, there is nothing to resume or lose, and the run starts over. Raises TrainingError if
        there are checkpoints and ``resume`` is not set, or if the run was started with other
        arguments or inputs. The folder must be locked (`locked_work_folder`).
        """
        folder = cls(work_folder_of(out), arguments, contents, with_masks)
        if not folder._holds_run():
            folder.remove()
            folder._write(None)
            return folder
        if not resume:
            raise TrainingError(
                f"{folder.path} holds an unfinished run for {out}: continue it with --resume "
                "(resume=True), or remove that folder to start over."
            )
        run = folder._read()
        # Folders written before this entry existed do not have it.
        before = {**run["arguments"], "masks": run.get("masks", with_masks)}
        different = differences(before, {**arguments, "masks": with_masks})
        different += changed(run["contents"], contents)
        if different:
            raise OtherRunError(
                f"the unfinished run in {folder.path} was started differently: "
                f"{'; '.join(different)}. Use the same options and input, or remove that folder to "
                "start over."
            )
        return folder

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        found = [path for path in checkpoints_in(self.path).values() if self._is_whole(path)]
        return found[-1] if found else None

    def keep_plan(self, plan: BatchPlan) -> None:
        """Record a batch size that fits, for when the run is resumed."""
        self._write(plan)

    def kept_plan(self) -> BatchPlan | None:
        """The batch size that an earlier part of this run recorded."""
        kept = self._read().get("batch_plan")
        return BatchPlan(**kept) if kept else None

    @contextmanager
    def tidied_on_failure(self) -> Iterator[None]:
        """If the run inside fails, leave only what can be resumed.

        If a checkpoint could not be written (such as on a full disk), raises OutputError. With
        several processes, only the main one tidies.
        """
        if not is_main():
            yield
            return
        try:
            yield
        except DivergedError:
            self.remove()
            raise
        except BaseException as error:
            kept = self.last_checkpoint()
            if kept is None:
                self.remove()
            for path in self.path.glob("checkpoint-*"):
                if not self._is_whole(path):
                    shutil.rmtree(path, ignore_errors=True)
            if _is_failed_write(error):
                rest = f"the run is kept up to {kept.name}: " if kept else "nothing was kept: "
                raise OutputError(
                    f"a checkpoint could not be written to {self.path} ({error}); {rest}"
                    f"free some space, then run it again{' with --resume' if kept else ''}."
                ) from error
            raise

    def remove(self) -> None:
        """Delete its contents."""
        _empty(self.path)

    def _holds_run(self) -> bool:
        """Whether a run has left a complete checkpoint, judged by that run's own record."""
        if not (self.path / _RUN).is_file():
            return False
        run = self._read()
        earlier = WorkFolder(self.path, run["arguments"], {}, bool(run.get("masks", False)))
        return earlier.last_checkpoint() is not None

    def _is_whole(self, checkpoint: Path) -> bool:
        needed = (*_WHOLE, MASKS_NAME) if self._with_masks else _WHOLE
        if not all((checkpoint / name).is_file() for name in needed):
            return False
        if not all(any((checkpoint / name).is_file() for name in names) for names in _WHOLE_TOO):
            return False
        try:
            json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return True

    def _write(self, plan: BatchPlan | None) -> None:
        kept = {"batch_size": plan.batch_size, "accumulation": plan.accumulation} if plan else None
        run = {
            "arguments": self._arguments,
            "contents": self._contents,
            "masks": self._with_masks,
            "batch_plan": kept,
        }
        replace_json(self.path / _RUN, run)

    def _read(self) -> dict[str, Any]:
        try:
            run: dict[str, Any] = json.loads((self.path / _RUN).read_text(encoding="utf-8"))
            run["arguments"].keys()
            run.setdefault("contents", {}).keys()
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as fault:
            raise TrainingError(
                f"{self.path / _RUN} is missing or damaged, so the run cannot be resumed: remove "
                f"{self.path} to start over."
            ) from fault
        return run


def _empty(folder: Path) -> None:
    """Delete a folder's contents except its lock; run.json, which marks it as a run's, last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _RUN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK_NAME:
            path.unlink()


def _refuse_foreign(folder: Path, out: Path) -> None:
    """OutputError for a file or folder that was not left by a run."""
    if _is_foreign(folder):
        raise OutputError(
            f"{folder}, where checkpoints are kept until {out} is written, was not made by "
            "sparsebert: move it away, or choose another output folder."
        )


def _is_foreign(folder: Path) -> bool:
    """Whether there is something that was not left by a run."""
    if (folder / _RUN).is_file() or not (folder.exists() or folder.is_symlink()):
        return False
    # Left by a run that was killed before it wrote run.json, or after it removed it.
    ours = folder.is_dir() and all(
        each.name == LOCK_NAME or each.name.startswith(f".{_RUN}.") for each in folder.iterdir()
    )
    return not ours


def _is_failed_write(error: BaseException) -> bool:
    """Whether an error came from writing a checkpoint; each library has its own kind of error."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    if isinstance(error, SafetensorError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("inline_container", "PytorchStreamWriter", "iostream error")
    )


_FLOAT = 4  # bytes


def disk_needed(checkpoint: Checkpoint, options: RunOptions | UpstreamOptions) -> int:
    """The most bytes that the result and the checkpoints of whole epochs take together.

    A long epoch has checkpoints every ten minutes too, but how long it takes is not known.
    """
    sizes = {
        name: math.prod(checkpoint.tensors.spec(checkpoint.stored_name[name]).shape)
        for name in checkpoint.used
    }
    weights = sum(sizes.values())
    trained = weights - (0 if options.embeddings == "train" else sizes.get(WORDS, 0))
    one = _FLOAT * (weights + OPTIMIZER_STATES.get(options.optimizer, 2) * trained)
    written = math.ceil(options.epochs)
    kept = CHECKPOINTS_KEPT + (1 if getattr(options, "early_stopping", 0) else 0)
    result = _FLOAT * weights
    return max(min(kept + 1, written) * one, min(kept, written) * one + result)
