"""`halve`: from a dense model to a packed int8 folder, and what that cost.

All work happens in ``OUT.halving`` beside the output: texts, each step's folder, and the plan that
the run started with. Every step writes a whole folder or none, training resumes from its last
checkpoint, and nothing depends on when a run was stopped; so the same call resumes where it was
killed, and gives the same result bit for bit.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sparsebert.bench import run_bench
from sparsebert.bench.engines import default_engines
from sparsebert.bench.workloads import Shape
from sparsebert.checkpoint.atomic import LOCK_NAME, FolderLock
from sparsebert.checkpoint.folder import open_checkpoint
from sparsebert.checkpoint.json_files import read_object, replace_json, write_json
from sparsebert.checkpoint.model_files import fingerprint, model_fingerprint
from sparsebert.checkpoint.staging import (
    check_output,
    made_parents,
    remove_whole,
    staged_folder,
    writing,
)
from sparsebert.checkpoint.tensors import PACKED_NAME
from sparsebert.errors import InputError, OutputError
from sparsebert.extras import need_extra
from sparsebert.halving import steps
from sparsebert.halving.effort import Effort, Plan, get_effort, make_plan
from sparsebert.halving.embedding_judgement import judge_embedding
from sparsebert.halving.estimate import Pace, measure_pace
from sparsebert.halving.judgement import Judgement, judge_labels, judge_task
from sparsebert.halving.report import REPORT_NAME, render_report
from sparsebert.halving.resources import check_resources
from sparsebert.halving.result import HalveResult, LayerZeros, StepTaken, unsteady
from sparsebert.halving.rows import Rows, division_of, place, prepare
from sparsebert.halving.subject import Goal, Subject, recognise
from sparsebert.halving.texts import Gathered, gather
from sparsebert.inference import load
from sparsebert.patterns import Pattern
from sparsebert.progress import Progress, shown
from sparsebert.pruning.inspection import inspect
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.texts import Text

_PLAN_NAME = "plan.json"
_SHAPES = (Shape(1, 16), Shape(1, 128), Shape(8, 128))
_ROUNDS = 5


def halve(
    model: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    task: str | None = None,
    texts: Sequence[str | Path] = (),
    effort: str = "standard",
    max_drop: float | None = None,
    shared_rows: int = 1,
    seed: int = 1,
    threads: int | None = None,
    bench: bool = True,
    peers: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
    **columns: Any,
) -> HalveResult:
    """Halve ``model`` (a dense folder or hub id), pack it to int8 and write it to ``out``.

    A model with a trained head (classification, regression, reranking, question answering, token
    classification, several labels per text) is its own teacher. A model without one is first
    fine-tuned on ``data`` if that has labels for such a task; otherwise it is treated as an
    embedding model. The model is pruned to 1:2 by the second-order method on ``texts`` (files or
    folders, see `sparsebert.tasks.texts`; by default those of ``data``), then distilled from the
    dense model with every pruned weight locked at zero. Without any texts, it is only pruned, on
    sentences that come with the package. Labels are used for scoring, not for distillation; without
    them, the halved model is judged by how often it agrees with the dense one.

    ``effort`` limits the rounds of distillation:

    - "quick": one, of at most 3 minutes by an estimate measured beforehand;
    - "standard": up to two, each of at most 30 minutes;
    - "thorough": up to four, however long they take.

    Each round is compared with the one before, the first with pruning alone. Rounds end as soon as
    one gains less than 0.2 points ("thorough": as soon as one loses any), or as soon as no more
    than ``max_drop`` points of the score or agreement are lost (0 if it is not given); infinity
    means a single round. The best result is kept. Where there is a choice, it is made on separate
    rows that are neither trained on nor reported on. Without ``max_drop``, the promise is to lose
    no more than 0.5 points of a score, 1 point of nearest neighbours found, 20 points of F1 for
    answers from a context, or 5 points of any other agreement.

    ``shared_rows`` is as in `prune`, and ``columns`` are the fields of
    `sparsebert.tasks.data_options.DataOptions`. ``said`` is called with each sentence about what
    was recognised and how long it will take. ``bench`` compares latency and memory with torch, and
    with ``peers`` also with every other engine that is installed.

    ``out`` becomes a packed folder that also holds report.html and, if it was distilled on a task,
    recipe.yaml. It is written even if more was lost than promised: see `HalveResult.held`. After an
    interruption, the same call resumes the run.

    Raises CheckpointError for a model that cannot be halved, PatternError for invalid
    ``shared_rows``, DataError, InputError, OutputError and TrainingError; KeyboardInterrupt on
    Ctrl-C.
    """
    began = time.perf_counter()
    need_extra("halving", "torch", "transformers", "accelerate", "pyarrow", "yaml", "jinja2")
    from sparsebert.training.fingerprints import text_fingerprint

    tell = said or (lambda _: None)
    report = shown(progress)
    chosen = get_effort(effort)
    if max_drop is not None and max_drop < 0:
        raise InputError(f"max_drop must be at least 0, not {max_drop}.")
    Pattern(1, 2, shared_rows)
    target = check_output(out, force=force)
    subject = recognise(model, data=data, task=task, texts=texts, columns=DataOptions(**columns))
    check_output(out, force=force, source=subject.checkpoint.path)
    for sentence in subject.said:
        tell(sentence)
    gathered = gather(subject)
    inputs: dict[str, Any] = {
        "model": model_fingerprint(subject.checkpoint.path),
        "texts": text_fingerprint(gathered.texts),
        "data": _data_fingerprint(subject),
        "task": _task_of(subject),
        "effort": effort,
        "shared_rows": shared_rows,
        "seed": seed,
        "columns": subject.columns.given(),
    }
    work = target.with_name(f"{target.name}.halving")
    choose = chosen.rounds > 1 and gathered.own
    with ExitStack() as stack:
        _lock(work, stack)
        plan = _kept_plan(work, inputs)
        if plan is not None:
            tell("Resuming the unfinished run.")
            rows = prepare(work, subject, gathered, choose=choose, threads=threads)
        else:
            plan = _made_plan(inputs, chosen, subject, gathered, threads)
            check_resources(subject, plan, work)
            with _emptied_on_error(work):
                replace_json(work / _PLAN_NAME, plan.as_dict())
                rows = prepare(work, subject, gathered, choose=choose, threads=threads)
        if plan.estimate:
            tell(_about_time(plan, len(gathered.texts)))
        folders = rows.folders
        run = _Run(subject, gathered, rows, plan, seed, shared_rows, threads, report)
        tell(run.overview(measured=bench))
        judgement, number = run.rounds(max_drop, chosen.worth)
        student = folders.student(number)
        result = HalveResult(
            model=subject.title,
            out=str(out),
            said=list(subject.said),
            effort=effort,
            promise=_promise(max_drop, judgement),
            judgement=judgement,
            dense_bytes=subject.checkpoint.tensors.nbytes,
            bytes=(folders.packed(number) / PACKED_NAME).stat().st_size,
            seconds=0.0,
            settings={
                "effort": effort,
                "shared rows": shared_rows,
                "seed": seed,
                **subject.columns.given(),
                **plan.settings(),
            },
            notes=[*gathered.notes, *run.notes],
            steps=run.taken,
            layers=[LayerZeros(each.name, each.zeros) for each in inspect(student).layers],
        )
        if bench:
            result.bench = run_bench(
                student,
                shapes=[shape for shape in _SHAPES if shape.tokens <= _most_tokens(student)],
                engines=_engines(peers),
                threads=threads,
                rounds=_ROUNDS,
                progress=report,
            )
            note = unsteady(result.bench)
            result.notes += [note] if note else []
        result.seconds = time.perf_counter() - began
        with staged_folder(out, force=force, source=subject.checkpoint.path) as staging:
            shutil.copytree(folders.packed(number), staging, dirs_exist_ok=True)
            recipe = student / "recipe.yaml"
            if recipe.is_file():
                shutil.copy(recipe, staging)
            if division := division_of(subject):
                division.write(staging)
            (staging / REPORT_NAME).write_text(render_report(result), encoding="utf-8")
            write_json(staging / "halving.json", result.as_dict())
        remove_whole(work, target)  # a run killed meanwhile must not leave half of its steps
    return result


def commands(
    model: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    task: str | None = None,
    texts: Sequence[str | Path] = (),
    effort: str = "standard",
    shared_rows: int = 1,
    seed: int = 1,
    **columns: Any,
) -> tuple[list[str], list[str]]:
    """What was recognised, and the separate commands that do the same: nothing is computed.

    If `halve` first writes rows of its own, a sentence says so: they are in its work folder only
    while it runs. It also measures how many examples fit into the time allowed. Raises what `halve`
    raises for its arguments.
    """
    chosen = get_effort(effort)
    subject = recognise(model, data=data, task=task, texts=texts, columns=DataOptions(**columns))
    gathered = gather(subject)
    work = Path(f"{out}.halving")
    rows = place(work, subject, gathered, choose=chosen.rounds > 1 and gathered.own)
    folders = rows.folders
    if shown_texts := _own_texts(subject, gathered, folders):
        folders = steps.Folders(work, shown_texts, folders.data)
        rows = Rows(folders, rows.scored, rows.choice)
    plan = make_plan(
        {}, chosen, gathered.examples, Pace(0.0, 0.0), texts_alone=subject.goal is not Goal.TASK
    )
    run = _Run(subject, gathered, rows, plan, seed, shared_rows, None, shown(None))
    number = min(1, plan.rounds)
    said = list(subject.said)
    if folders.texts.is_relative_to(work):
        said.append(f"{folders.texts} has the texts, without duplicates and those held out.")
    if folders.data.is_relative_to(work) and subject.goal is Goal.TASK:
        labels = "the data's labels" if subject.labelled else "the model's own answers as labels"
        said.append(f"{folders.data} has the rows to train and to score on, with {labels}.")
    if number:
        said.append("Of too many texts, halve uses as many as fit the time allowed (--max-rows).")
    return said, [
        *(step.command for step in run.before()),
        *(step.command for step in run.round_steps(number)),
    ]


class _Run:
    """The steps of one halving, in order; each is skipped if an earlier run made its folder."""

    def __init__(
        self,
        subject: Subject,
        gathered: Gathered,
        rows: Rows,
        plan: Plan,
        seed: int,
        shared_rows: int,
        threads: int | None,
        progress: Progress,
    ) -> None:
        self._subject = subject
        self._gathered = gathered
        self._rows = rows
        self._folders = rows.folders
        self._plan = plan
        self._seed = seed
        self._shared_rows = shared_rows
        self._threads = threads
        self._progress = progress
        self.taken: list[StepTaken] = []
        self.notes: list[str] = []

    def before(self) -> list[steps.Step]:
        """The steps before the first round."""
        first = [steps.dense_step(self._subject, self._folders, self._seed)]
        pruning = steps.prune_step(self._subject, self._folders, self._shared_rows)
        return [*([] if self._subject.taught else first), pruning]

    def round_steps(self, number: int) -> list[steps.Step]:
        """One round of distillation (none for 0), and packing its result."""
        distil = [steps.distil_step(self._subject, self._folders, self._plan, number, self._seed)]
        return [*(distil if number else []), steps.pack_step(self._folders, number)]

    def overview(self, *, measured: bool) -> str:
        """The steps as a list on one line, with those done earlier marked."""
        rounds = self._plan.rounds
        listed = [*self.before(), *self.round_steps(min(1, rounds))]
        titles = [step.title + (" (done)" if step.done else "") for step in listed]
        if rounds > 1:
            titles[-2] += f", up to {rounds} rounds"
        titles += ["compare with the dense model", *(["measure"] if measured else [])]
        return "Steps: " + "; ".join(f"{place}. {each}" for place, each in enumerate(titles, 1))

    def rounds(self, max_drop: float | None, worth: float) -> tuple[Judgement, int]:
        """Run everything; the judgement of the best round, and its number (0: no distillation).

        Rounds end as soon as no more than ``max_drop`` points are lost (None: none at all), or one
        gains fewer than ``worth``. The first is compared with pruning alone, which is the result if
        no round gains.
        """
        rounds = self._plan.rounds
        choosing = rounds > 1 and max_drop != math.inf
        for step in self.before():
            self._take(step)
        best, least = 0, math.inf
        for number in range(0 if choosing else min(1, rounds), rounds + 1):
            for step in self.round_steps(number):
                self._take(step)
            if not choosing:
                best = number
                break
            judgement = self._judge(number, self._rows.choice)
            gained = least - judgement.drop
            if gained >= 0:
                best, least = number, judgement.drop
            if number and judgement.drop <= (max_drop or 0):
                break
            if gained < worth:
                self.notes.append(
                    f"round {number} of distillation gained {gained:.2f} points on the rows to "
                    "choose on, too few for another round."
                )
                break
        return self._judge(best, self._rows.scored), best

    def _take(self, step: steps.Step) -> None:
        seconds = None
        if not step.done:
            began = time.perf_counter()
            found = step.run(
                lambda label, done, total: self._progress(f"{step.title}: {label}", done, total)
            )
            seconds = time.perf_counter() - began
            notes = getattr(found, "notes", ())  # packing has none
            self.notes += [f"{step.title}: {note}" for note in notes]
        self.taken.append(StepTaken(step.title, step.command, seconds))

    def _judge(self, number: int, held: Path | list[Text]) -> Judgement:
        dense = steps.teacher_of(self._subject, self._folders)
        halved = self._folders.packed(number)
        options: dict[str, Any] = {"threads": self._threads, "progress": self._progress}
        if self._subject.goal is Goal.EMBEDDING:
            texts = self._gathered.texts
            return judge_embedding(self._subject, texts, held, dense, halved, **options)
        if isinstance(held, Path):
            name = steps.task_name(self._subject)
            options["columns"] = steps.data_options(self._subject)
            return judge_task(self._subject, name, held, dense, halved, **options)
        return judge_labels(held, dense, halved, **options)


def _task_of(subject: Subject) -> str | None:
    """The task's name, for the arguments that decide the result."""
    if subject.goal is Goal.TASK:
        return steps.task_name(subject)
    return subject.task.name if subject.task is not None else None


def _promise(max_drop: float | None, judgement: Judgement) -> float:
    """The points that may be lost: those asked for, or the default for what was judged."""
    return judgement.allowed if max_drop is None else max_drop


@contextmanager
def _emptied_on_error(work: Path) -> Iterator[None]:
    """A run that cannot start leaves nothing behind that another call would have to remove."""
    try:
        yield
    except Exception:
        for path in sorted(work.iterdir(), key=lambda path: path.name != _PLAN_NAME):
            if path.name != LOCK_NAME:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _lock(work: Path, stack: ExitStack) -> None:
    """Create the work folder and keep others out of it; it is removed at the end if it is empty."""
    stack.enter_context(writing(work))
    stack.enter_context(made_parents(work))
    work.mkdir(exist_ok=True)
    stack.callback(_remove_if_empty, work)
    lock = FolderLock.take(work)
    if lock is None:
        raise OutputError(f"{work} is in use by another process: wait for it to end.")
    stack.callback(lock.release, work)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _own_texts(subject: Subject, gathered: Gathered, folders: steps.Folders) -> Path | None:
    """The user's own data, if a command by hand would read the same texts from it."""
    if gathered.duplicates or subject.goal is not Goal.TASK or subject.texts:
        return None
    return folders.data


def _engines(peers: bool) -> tuple[str, ...]:
    """Ours, torch, and with ``peers`` every other engine that is installed."""
    ours = ("sparsebert-int8", "sparsebert-dense-int8", "torch")
    others = [name for name in default_engines() if not name.startswith(("sparsebert", "torch"))]
    return (*ours, *(others if peers else ()))


def _data_fingerprint(subject: Subject) -> str | None:
    """SHA-256 of the files of labelled data; other texts have a fingerprint of their own."""
    if not subject.labelled:
        return None
    assert subject.data is not None
    files = [subject.data] if subject.data.is_file() else sorted(subject.data.rglob("*"))
    return fingerprint(
        {str(file.relative_to(subject.data)): file for file in files if file.is_file()}
    )


def _kept_plan(work: Path, inputs: dict[str, Any]) -> Plan | None:
    """The plan that the run in ``work`` started with. OutputError if another call started it."""
    path = work / _PLAN_NAME
    if not path.is_file():
        return None
    plan = Plan(**read_object(path))
    changed = [name for name, value in inputs.items() if plan.inputs.get(name) != value]
    if changed:
        raise OutputError(
            f"{work} holds an unfinished run with different {' and '.join(changed)}: use the same "
            "again to resume it, or remove that folder to start over."
        )
    return plan


def _made_plan(
    inputs: dict[str, Any],
    effort: Effort,
    subject: Subject,
    gathered: Gathered,
    threads: int | None,
) -> Plan:
    pace = Pace(0.0, 0.0)
    if gathered.own:
        model = load(subject.checkpoint.path, threads=threads)
        length = min(steps.LENGTH, model.max_length)
        pace = measure_pace(subject.checkpoint, model, gathered.texts, length)
    alone = subject.goal is not Goal.TASK
    return make_plan(inputs, effort, gathered.examples, pace, texts_alone=alone)


def _about_time(plan: Plan, texts: int) -> str:
    rows = f"{plan.max_rows or texts:,} of {texts:,} texts, {plan.epochs:g} epochs"
    most = "" if plan.rounds == 1 else f"; there are at most {plan.rounds}"
    return (
        f"A round of distillation takes up to about {_duration(plan.estimate)} here ({rows}){most}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _most_tokens(folder: Path) -> int:
    return open_checkpoint(folder).config.max_length
