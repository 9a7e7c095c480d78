"""Choose a recipe's settings on held-out training rows, never on the validation split.

    python runs/search.py all-MiniLM-L6-v2 data/stsb search --task stsb --row dense \
        --grid learning_rate=5e-5,1e-4,2e-4 --grid epochs=4

A fixed fifth of the training rows (or of those that --max-rows selects) is held out. Every
combination of the grid is trained on the others and scored on that fifth. The dense row must not
get a smaller grid than the sparse ones, or the comparison would be unfair. A teacher must not have
seen the held-out rows either: --teacher search/stsb/dense/best is the best point of another search.

If it is stopped, the same command continues where it left off. It keeps only the weights of the
best point, as OUT/TASK/ROW/best, and writes all scores to OUT/TASK/ROW/search.json. A point that
diverged with any seed is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from sparsebert.checkpoint.json_files import differences, replace_json
from sparsebert.errors import InputError, SparsebertError
from sparsebert.tasks.division import hold_out
from sparsebert.tasks.table import TASK_NAMES
from sparsebert.training import finetune
from sparsebert.training.callbacks import DivergedError

Point = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    asked = parse(arguments)
    folder = asked.out / asked.task / asked.row
    data = asked.out / asked.task / f"data-{asked.max_rows or 'all'}"
    options = {"teacher": asked.teacher} if asked.teacher else {}
    if asked.recipe:
        options["recipe"] = asked.recipe
    shared = {
        "model": named(asked.model),
        "data": named(asked.data),
        "max_rows": asked.max_rows,
        "teacher": asked.teacher and named(asked.teacher),
        "recipe": asked.recipe and asked.recipe.read_text(encoding="utf-8"),
    }
    try:
        check_same(folder / "shared.json", shared)
        check_same(data.with_name(f"{data.name}.json"), {"data": shared["data"]})
        if not data.exists():
            rows = hold_out(asked.task, asked.data, data, max_rows=asked.max_rows)
            tell(f"{data}: " + ", ".join(f"{count:,} {split}" for split, count in rows.items()))
        for point in points(asked.grid):
            for seed in asked.seeds:
                train(asked.model, folder, asked.task, data, point, seed, options)
            write_search(folder, asked)
    except SparsebertError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = folder / "search.json"
    if not found.is_file():
        print("error: every point of the grid diverged.", file=sys.stderr)
        return 1
    print(as_markdown(read(found)))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the model to fine-tune: dense or sparse")
    parser.add_argument("data", type=Path, help="the task's data; only its train split is read")
    parser.add_argument("out", type=Path, help="where models and scores go")
    parser.add_argument("--task", required=True, choices=TASK_NAMES)
    parser.add_argument("--row", required=True, help="name of the row: dense, oneshot, best, ...")
    parser.add_argument(
        "--grid",
        required=True,
        action="append",
        type=one_axis,
        metavar="OPTION=VALUE,...",
        help="an option of `finetune` and the values to try; repeat for more options",
    )
    parser.add_argument("--recipe", type=Path, help="settings that all points share (YAML)")
    parser.add_argument("--teacher", help="a teacher that has not seen the held-out rows")
    parser.add_argument(
        "--max-rows", type=int, help="as in `finetune`; a fifth of them is held out"
    )
    parser.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1]
    )
    return parser.parse_args(arguments)


def one_axis(text: str) -> tuple[str, list[Any]]:
    """``learning_rate=3e-5,1e-4`` as a name and its values."""
    name, found, values = text.partition("=")
    if not (name.isidentifier() and found and all(values.split(","))):
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE,VALUE,...")
    return name, [value_of(word) for word in values.split(",")]


def value_of(word: str) -> Any:
    """A value as YAML reads it, but 3e-5, which YAML 1.1 takes for text, as a number."""
    value = yaml.safe_load(word)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def points(grid: list[tuple[str, list[Any]]]) -> list[Point]:
    """Every combination, the last option varying fastest."""
    names = [name for name, _ in grid]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(values for _, values in grid))
    ]


def named(model: str | Path) -> str:
    """The absolute path of a file or folder; a hub id as it is."""
    return str(Path(model).absolute() if Path(model).exists() else model)


def check_same(file: Path, now: Point) -> None:
    """InputError if ``file`` records a search with another model, other data or settings."""
    if file.is_file():
        different = differences(read(file), now)
        if different:
            raise InputError(
                f"{file.parent} holds a search that was started differently "
                f"({'; '.join(different)}): choose another OUT or row."
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_json(file, now)


def train(
    model: str, folder: Path, task: str, data: Path, point: Point, seed: int, options: Point
) -> None:
    """Train and score one point with one seed, unless that has been done."""
    name = ",".join(f"{key}={value}" for key, value in point.items()).replace("/", "_")
    out = folder / "points" / name / f"seed-{seed}"
    failed = out.with_name(out.name + ".failed")
    if (out / "training.json").is_file() or failed.is_file():
        return
    tell(f"{task}, {name}, seed {seed} ...")
    try:
        result = finetune(
            model, out, task=task, data=data, seed=seed, resume=True, **{**options, **point}
        )
    except DivergedError as fault:  # also a result: this point diverges
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_text(f"{fault}\n", encoding="utf-8")
        tell(f"  {fault}")
        return
    tell(f"  {result.row()}, {result.seconds:.0f} s")


def write_search(folder: Path, asked: argparse.Namespace) -> None:
    """Write all scores so far to search.json; link the best point's first seed as ``best``."""
    found = []
    for place in sorted((folder / "points").iterdir()):
        runs = [read(run) for run in sorted(place.glob("seed-*/training.json"))]
        if runs and not any(place.glob("*.failed")):
            means = [
                statistics.fmean(
                    value for split in run["scores"].values() for value in split.values()
                )
                for run in runs
            ]
            found.append(
                {
                    "point": place.name,
                    "scores": [run["scores"] for run in runs],
                    "mean": statistics.fmean(means),
                    "seconds": sum(run["seconds"] for run in runs),
                    "rows": runs[0]["rows"],
                }
            )
    if not found:
        return
    found.sort(key=lambda each: -each["mean"])
    record = {"task": asked.task, "row": asked.row, "model": Path(asked.model).name, "tried": found}
    replace_json(folder / "search.json", record)
    keep_best(folder, found[0]["point"])


def keep_best(folder: Path, best: str) -> None:
    """Link ``best`` to the best point's model, and remove the weights of the others."""
    link, target = folder / "best", min((folder / "points" / best).glob("seed-*/")).resolve()
    if not (target / "model.safetensors").is_file():  # with other seeds, another point was best
        tell(f"{target} is best, but its weights were removed: delete it and run this again.")
        return
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.relative_to(folder.resolve()))
    for weights in folder.resolve().glob("points/*/seed-*/*.safetensors"):
        if weights.parent != target:
            weights.unlink()


def as_markdown(record: dict[str, Any]) -> str:
    lines = [
        f"{record['task']}, {record['row']}: mean of the metrics on held-out training rows",
        "",
        "| point | mean | scores of the first seed | seconds |",
        "|---|---:|---|---:|",
    ]
    for each in record["tried"]:
        scores = ", ".join(
            f"{name} {value:.2f}"
            for split in each["scores"][0].values()
            for name, value in split.items()
        )
        lines.append(f"| {each['point']} | {each['mean']:.2f} | {scores} | {each['seconds']:.0f} |")
    return "\n".join(lines)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
