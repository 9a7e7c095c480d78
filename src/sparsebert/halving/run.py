"""`halve`: a dense model to a packed int8 folder, and what that cost.

All work happens in ``OUT.halving`` beside the output: texts, each step's folder, and the plan that
the run was begun with. Every step makes a whole folder or none, training resumes from its last
checkpoint, and nothing depends on when a run was stopped; so the same call goes on where it was
killed, to the same bits.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sparsebert.bench import run_bench
from sparsebert.bench.workloads import Shape
from sparsebert.checkpoint.atomic import FolderLock
from sparsebert.checkpoint.folder import PACKED_NAME, model_fingerprint, open_checkpoint
from sparsebert.checkpoint.json_files import read_object, write_json
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.errors import InputError, OutputError
from sparsebert.extras import need_extra
from sparsebert.halving import steps
from sparsebert.halving.effort import Effort, Plan, get_effort, make_plan
from sparsebert.halving.estimate import seconds_a_row
from sparsebert.halving.judgement import Judgement, judge_embedding, judge_task
from sparsebert.halving.report import REPORT_NAME, render_report
from sparsebert.halving.result import HalveResult, LayerZeros, StepTaken
from sparsebert.halving.subject import Goal, Subject, recognise
from sparsebert.halving.texts import (
    Gathered,
    check_vocabulary,
    divide_texts,
    gather,
    write_labelled,
    write_texts,
)
from sparsebert.inference import load
from sparsebert.patterns import Pattern
from sparsebert.progress import Progress, shown
from sparsebert.pruning.inspection import inspect
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import hold_out
from sparsebert.tasks.files import split_files
from sparsebert.tasks.texts import Text, read_texts

_PLAN_NAME = "plan.json"
_ENGINES = ("sparsebert-int8", "sparsebert-dense-int8", "torch")
_SHAPES = (Shape(1, 16), Shape(1, 128), Shape(8, 128))
_ROUNDS = 5
_DROP_OF_SCORE, _DROP_OF_AGREEMENT = 0.5, 5.0  # points


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
    force: bool = False,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
    **columns: Any,
) -> HalveResult:
    """Halve ``model`` (a dense folder or hub id), pack it in int8 and write it to ``out``.

    A model with a trained head (classifier, regression, reranker, question answering) is its own
    teacher. One without is fine-tuned on ``data`` first, if that has labels, and is an embedding
    model otherwise. It is pruned to 1:2 by second order on ``texts`` (files or folders of
    `sparsebert.tasks.texts`; by default the data's, else sentences that the package ships), then
    distilled from its dense self with every pruned weight locked at zero. Labels are used for
    scoring, not for the distillation; without them the halved model is judged by how often it
    agrees with the dense one.

    ``effort`` is "quick" (second order alone), "standard" (up to two rounds of distillation, each
    within 45 minutes by an estimate that is measured first) or "thorough" (up to four). Rounds end
    as soon as no more than ``max_drop`` points of the score, or of agreement, are lost; by default
    0.5 of a score and 5 of agreement (int8 alone costs some), and infinity takes one round.
    ``shared_rows`` is that of `prune`; ``columns`` are those of
    `sparsebert.tasks.data_options.DataOptions`. ``said`` is called with each sentence on what was
    recognised and how long it will take.

    ``out`` is a packed folder with report.html and recipe.yaml in it. It is written also if more
    than ``max_drop`` was lost, which ``held`` of the result says. An interrupted run resumes by the
    same call.

    Raises CheckpointError for a model that cannot be halved, DataError, InputError, OutputError,
    TrainingError, and KeyboardInterrupt on Ctrl-C.
    """
    began = time.perf_counter()
    need_extra("halving", "torch", "transformers", "accelerate", "pyarrow", "yaml", "jinja2")
    from sparsebert.training.fingerprints import text_fingerprint

    tell = said or (lambda _: None)
    report = shown(progress)
    chosen = get_effort(effort)
    if max_drop is not None and max_drop < 0:
        raise InputError(f"max_drop must not be negative, and is {max_drop}.")
    Pattern(1, 2, shared_rows)
    target = check_output(out, force=force)
    subject = recognise(model, data=data, task=task, texts=texts, columns=DataOptions(**columns))
    check_output(out, force=force, source=subject.checkpoint.path)
    for sentence in subject.said:
        tell(sentence)
    gathered = gather(subject)
    inputs: dict[str, Any] = {
        "model": model_fingerprint(subject.checkpoint),
        "texts": text_fingerprint(gathered.texts),
        "data": _data_fingerprint(subject),
        "task": steps.task_name(subject) if subject.goal is Goal.TASK else None,
        "effort": effort,
        "shared_rows": shared_rows,
        "seed": seed,
        "columns": subject.columns.given(),
    }
    work = target.with_name(f"{target.name}.halving")
    with ExitStack() as stack:
        _lock(work, stack)
        plan = _kept_plan(work, inputs)
        folders, held = _prepare(work, subject, gathered, threads)
        if plan is not None:
            tell("Resuming the unfinished run.")
        else:
            plan = _made_plan(inputs, chosen, subject, gathered, threads)
            write_json(work / _PLAN_NAME, plan.as_dict())
        if plan.estimate:
            tell(_about_time(plan, len(gathered.texts)))
        run = _Run(subject, gathered, folders, plan, seed, shared_rows, held, threads, report)
        judgement, number = run.rounds(max_drop)
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
                "epochs of a round": plan.epochs,
                "examples of a round": plan.max_rows or "all",
            },
            notes=[*gathered.notes, *run.notes],
            steps=run.taken,
            layers=[LayerZeros(each.name, each.zeros) for each in inspect(student).layers],
        )
        if bench:
            result.bench = run_bench(
                student,
                shapes=[shape for shape in _SHAPES if shape.tokens <= _most_tokens(student)],
                engines=_ENGINES,
                threads=threads,
                rounds=_ROUNDS,
                progress=report,
            )
        result.seconds = time.perf_counter() - began
        with staged_folder(out, force=force, source=subject.checkpoint.path) as staging:
            shutil.copytree(folders.packed(number), staging, dirs_exist_ok=True)
            recipe = student / "recipe.yaml"
            if recipe.is_file():
                shutil.copy(recipe, staging)
            (staging / REPORT_NAME).write_text(render_report(result), encoding="utf-8")
            write_json(staging / "halving.json", result.as_dict())
    shutil.rmtree(work, ignore_errors=True)
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
    """What was recognised, and the single commands that come to the same: nothing is computed.

    Where `halve` writes rows of its own first, a sentence says so: these are in its work folder
    only while it runs. How many examples fit the time allowed it measures, too. Raises what `halve`
    raises of its arguments.
    """
    chosen = get_effort(effort)
    subject = recognise(model, data=data, task=task, texts=texts, columns=DataOptions(**columns))
    gathered = gather(subject)
    work = Path(f"{out}.halving")
    folders = steps.Folders(work, _shown_texts(subject, gathered, work), _data_place(subject, work))
    plan = make_plan({}, chosen, len(gathered.texts), 0.0)
    run = _Run(subject, gathered, folders, plan, seed, shared_rows, [], None, shown(None))
    number = 1 if plan.rounds and gathered.own else 0
    said = list(subject.said)
    if folders.texts.is_relative_to(work):
        said.append(f"{folders.texts} holds the texts, without duplicates and those held out.")
    if folders.data.is_relative_to(work) and subject.goal is Goal.TASK:
        labels = "the data's" if subject.labelled else "the model's own answers"
        said.append(f"{folders.data} holds rows to train and to score on, their labels {labels}.")
    if number:
        said.append("Of many texts a selection that fits the time allowed is taken: --max-rows.")
    return said, [
        *(step.command for step in run.before(number)),
        *(step.command for step in run.round_steps(number)),
    ]


class _Run:
    """The steps of one halving, in order, each skipped where an earlier run made its folder."""

    def __init__(
        self,
        subject: Subject,
        gathered: Gathered,
        folders: steps.Folders,
        plan: Plan,
        seed: int,
        shared_rows: int,
        held: Sequence[Text],
        threads: int | None,
        progress: Progress,
    ) -> None:
        self._subject = subject
        self._gathered = gathered
        self._folders = folders
        self._plan = plan
        self._seed = seed
        self._shared_rows = shared_rows
        self._held = held
        self._threads = threads
        self._progress = progress
        self.taken: list[StepTaken] = []
        self.notes: list[str] = []

    def before(self, rounds: int) -> list[steps.Step]:
        """What comes before the first round."""
        found = []
        if not self._subject.taught:
            found.append(steps.dense_step(self._subject, self._folders, self._seed))
        # Upstream training prunes by itself.
        if not (rounds and self._subject.goal is Goal.EMBEDDING):
            found.append(steps.prune_step(self._subject, self._folders, self._shared_rows))
        return found

    def round_steps(self, number: int) -> list[steps.Step]:
        """One round of distillation (none for 0), and packing what came of it."""
        distil = [
            steps.distil_step(
                self._subject, self._folders, self._plan, number, self._seed, self._shared_rows
            )
        ]
        return [*(distil if number else []), steps.pack_step(self._folders, number)]

    def rounds(self, max_drop: float | None) -> tuple[Judgement, int]:
        """Run it all; the judgement of the best round, and its number (0: none)."""
        rounds = self._plan.rounds if self._gathered.own else 0
        for step in self.before(rounds):
            self._take(step)
        best: tuple[Judgement, int] | None = None
        for number in range(min(1, rounds), rounds + 1):
            for step in self.round_steps(number):
                self._take(step)
            judgement = self._judge(number)
            if best is None or judgement.drop < best[0].drop:
                best = judgement, number
            if judgement.drop <= _promise(max_drop, judgement):
                break
        assert best is not None
        return best

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

    def _judge(self, number: int) -> Judgement:
        dense = steps.teacher_of(self._subject, self._folders)
        halved = self._folders.packed(number)
        options: dict[str, Any] = {"threads": self._threads, "progress": self._progress}
        if self._subject.goal is Goal.EMBEDDING:
            texts = self._gathered.texts
            return judge_embedding(self._subject, texts, self._held, dense, halved, **options)
        name = steps.task_name(self._subject)
        return judge_task(self._subject, name, self._folders.data, dense, halved, **options)


def _promise(max_drop: float | None, judgement: Judgement) -> float:
    """The points that may be lost: those asked for, or the default for what was judged."""
    if max_drop is not None:
        return max_drop
    return _DROP_OF_AGREEMENT if judgement.agreement else _DROP_OF_SCORE


def _lock(work: Path, stack: ExitStack) -> None:
    work.mkdir(parents=True, exist_ok=True)
    lock = FolderLock.take(work)
    if lock is None:
        raise OutputError(f"{work} is being worked in by another process: wait for it to end.")
    stack.callback(lock.release, work)


def _shown_texts(subject: Subject, gathered: Gathered, work: Path) -> Path:
    """The user's own data where a command by hand reads the same from it."""
    if gathered.duplicates or subject.goal is Goal.EMBEDDING or subject.texts:
        return work / "texts.parquet"
    return _data_place(subject, work)


def _data_fingerprint(subject: Subject) -> str | None:
    """SHA-256 of the files of data that has labels; the texts of others have one of their own."""
    if not subject.labelled:
        return None
    assert subject.data is not None
    files = [subject.data] if subject.data.is_file() else sorted(subject.data.rglob("*"))
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _data_place(subject: Subject, work: Path) -> Path:
    if not subject.labelled or subject.goal is Goal.EMBEDDING:
        return work / "data"
    assert subject.data is not None
    return subject.data if _has_validation(subject) else work / "data"


def _has_validation(subject: Subject) -> bool:
    """Whether the data comes in parts: if not, the same rows are held out for every model."""
    assert subject.data is not None
    if subject.data.is_file() or subject.task is None:
        return False
    return bool(split_files(subject.data, subject.task.validation_splits[0]))


def _prepare(
    work: Path, subject: Subject, gathered: Gathered, threads: int | None
) -> tuple[steps.Folders, list[Text]]:
    """Texts and data in the work folder, written once; and the texts held out to compare on.

    No row that a model is scored or compared on is pruned or distilled with.
    """
    folders = steps.Folders(work, work / "texts.parquet", _data_place(subject, work))
    texts = gathered.texts
    held: list[Text] = []
    if subject.goal is Goal.EMBEDDING:
        texts, held = divide_texts(gathered)
    if not folders.texts.is_file():
        model = load(subject.checkpoint.path, threads=threads)
        if gathered.own:
            note = check_vocabulary(model, gathered.texts)
            gathered.notes.extend([note] if note else [])
        partial = work / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if (
            subject.goal is Goal.TASK
            and folders.data == work / "data"
            and not folders.data.exists()
        ):
            if subject.labelled:
                assert subject.task is not None
                hold_out(subject.task.name, subject.data, partial, options=subject.columns)
            else:
                write_labelled(partial, model, gathered.texts)
            partial.rename(folders.data)
        own_rows = subject.goal is Goal.TASK and folders.data == work / "data"
        if own_rows and not (subject.labelled and subject.texts):
            texts = list(dict.fromkeys(read_texts(folders.data, subject.task, subject.columns)))
        write_texts(work / "texts.partial", texts, questions=steps.is_question(subject))
        (work / "texts.partial").rename(folders.texts)
    return folders, held


def _kept_plan(work: Path, inputs: dict[str, Any]) -> Plan | None:
    """The plan that a run in ``work`` was begun with. OutputError if it is of another call."""
    path = work / _PLAN_NAME
    if not path.is_file():
        return None
    plan = Plan(**read_object(path))
    changed = [name for name, value in inputs.items() if plan.inputs.get(name) != value]
    if changed:
        raise OutputError(
            f"{work} holds an unfinished run with another {' and '.join(changed)}: give the "
            "same again to resume it, or remove that folder."
        )
    return plan


def _made_plan(
    inputs: dict[str, Any],
    effort: Effort,
    subject: Subject,
    gathered: Gathered,
    threads: int | None,
) -> Plan:
    pace = 0.0
    if effort.rounds and gathered.own:
        model = load(subject.checkpoint.path, threads=threads)
        length = min(steps.LENGTH, model.max_length)
        pace = seconds_a_row(subject.checkpoint, model, gathered.texts, length)
    # Upstream training begins anew in each round, and lasts longer.
    longest = effort.rounds if subject.goal is Goal.EMBEDDING else 1
    return make_plan(inputs, effort, len(gathered.texts), pace, longest=longest)


def _about_time(plan: Plan, texts: int) -> str:
    rows = f"{plan.max_rows or texts:,} of {texts:,} texts, {plan.epochs:g} epochs"
    return (
        f"A round of distillation takes up to about {_duration(plan.estimate)} here ({rows}); "
        f"there are {plan.rounds} at most."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _most_tokens(folder: Path) -> int:
    return open_checkpoint(folder).config.max_length
