"""Everything that reads a user's files, each as a function of a path, for `watched`."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

TEXTS = ["a ferry to the island", ("where is it", "the ferry is on the island"), "b"]


def answer(folder: Path) -> None:
    """Load the folder and have it answer as its head does: finite numbers, or a refusal."""
    from sparsebert import load
    from sparsebert.checkpoint.families import Head

    model = load(folder, threads=1)
    if model.config.head in (Head.SEQUENCE, Head.TOKEN):
        scored = (
            model.classify(TEXTS[:2]) if model.config.head is Head.SEQUENCE else model.tag(TEXTS[0])
        )
        for each in scored:
            str(each)
    elif model.config.head is Head.QUESTION:
        str(model.answer("where is it", "the ferry is on the island"))
    else:
        vectors = model.embed([TEXTS[0], TEXTS[2]])
        assert np.isfinite(vectors).all(), "an embedding that is not finite"


def steps(folder: Path) -> None:
    """Prune and pack the folder, which may be packed already, and look into the results."""
    import sparsebert
    from sparsebert.packing import is_packed

    with tempfile.TemporaryDirectory() as out:
        packed = is_packed(folder)
        if packed:
            sparsebert.unpack(folder, Path(out, "sparse"))
        else:
            sparsebert.prune(folder, Path(out, "sparse"))
        sparsebert.pack(Path(out, "sparse"), Path(out, "packed"), dtype="int8")
        for each in (folder, Path(out, "packed")):
            found = sparsebert.inspect(each)
            found.summary()
            found.listing()


def doctor(folder: Path) -> None:
    """Diagnose the folder and print the report."""
    from sparsebert.diagnosis import diagnose

    report = diagnose(folder)
    report.as_dict()
    report.summary()
    list(report.lines(signs=False))


def convert(folder: Path) -> None:
    """Old pickled weights into a folder of safetensors."""
    import sparsebert

    with tempfile.TemporaryDirectory() as out:
        sparsebert.convert(folder, Path(out, "converted"))


def table(runs: Path) -> None:
    """A folder of runs, or a results.json, as the card's table in every format."""
    from sparsebert.table.formats import write

    for name in ("markdown", "json"):
        with redirect_stdout(io.StringIO()):
            write(runs, format=name)


def task(data: Path) -> None:
    """Rows with labels, as classes and as numbers; then the texts alone."""
    from sparsebert.errors import SparsebertError
    from sparsebert.tasks.data_options import DataOptions
    from sparsebert.tasks.examples import load_split
    from sparsebert.tasks.own import own_task
    from sparsebert.tasks.table import CUSTOM
    from sparsebert.tasks.texts import read_texts

    refusals = []
    for options in (DataOptions(), DataOptions(regression=True)):
        try:
            load_split(own_task(CUSTOM, data, options=options), data, "train")
        except SparsebertError as error:
            refusals.append(error)
    try:
        read_texts(data)
    except SparsebertError as error:
        refusals.append(error)
    for refusal in refusals:
        raise refusal


_models: list[Path] = []


def _model() -> Path:
    """A model to run texts through, made once in this process."""
    if not _models:
        from model_folders import write_classifier

        _models.append(write_classifier(Path(tempfile.mkdtemp()) / "model"))
    return _models[0]


def rows(data: Path) -> None:
    """A batch job over the file, into a folder of Parquet."""
    from sparsebert.scale import classify_files

    with tempfile.TemporaryDirectory() as out:
        classify_files(_model(), data, Path(out, "out"), threads=1, output_column="answer")


def lines(data: Path) -> None:
    """The file as lines of `classify` on the command line."""
    from typer.testing import CliRunner

    from sparsebert.cli.app import app

    done = CliRunner().invoke(app, ["classify", str(_model()), "--input", str(data)])
    if done.exit_code == 1 and isinstance(done.exception, SystemExit):
        return
    if done.exit_code not in (0, 1, 2):
        raise AssertionError(f"exit code {done.exit_code}: {done.output[-2000:]}")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def recipe(file: Path) -> None:
    """A recipe of a fine-tuning."""
    from sparsebert.training.recipe import read_recipe

    read_recipe(file)


def job(folder: Path) -> None:
    """A batch job that goes on in a folder where it had begun."""
    from sparsebert.scale import classify_files

    with tempfile.TemporaryDirectory() as out:
        target = Path(out, "out")
        shutil.copytree(folder / "out", target)
        classify_files(
            _model(),
            folder / "rows.jsonl",
            target,
            threads=1,
            rows_per_file=4,
            output_column="answer",
        )


READERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (answer, steps, doctor, convert, table, task, rows, lines, recipe, job)
}
