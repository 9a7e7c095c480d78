"""Recipes: the options of a fine-tuning run in a small YAML file.

    version: 1
    epochs: 4
    learning_rate: 1e-4
    dropout: 0
    embeddings: used

The names are those of `FinetuneOptions`. A recipe says how to train; model, task, data and seed are
arguments of each run. Every fine-tuned model has a `recipe.yaml` beside its weights that repeats
its training. The recipes of our own runs come with the package and are given by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sparsebert
from sparsebert.checkpoint import source_name
from sparsebert.errors import TrainingError
from sparsebert.extras import need_extra
from sparsebert.options import option_types
from sparsebert.training.options import FinetuneOptions

RECIPE_NAME = "recipe.yaml"
VERSION = 1
_LARGEST = 1 << 20  # bytes
_OURS = Path(sparsebert.__file__).parent / "recipes"


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The checked options of a recipe: ``path`` is a file, or the name of a shipped recipe.

    Raises TrainingError, which names the file and what is wrong in it.
    """
    need_extra("reading a recipe", "yaml")
    import yaml

    file = _recipe_file(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise TrainingError(f"{file} is larger than 1 MiB, so it is not a recipe.")
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise TrainingError(f"{file} cannot be read: {fault.strerror or fault}.") from fault
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        reason = " ".join(str(fault).split())
        raise TrainingError(f"{file} is not valid YAML: {reason}.") from fault
    if not isinstance(found, dict):
        raise TrainingError(f"{file} is not a recipe: it must have lines like 'name: value'.")
    try:
        return _checked(found)
    except TrainingError as fault:
        raise TrainingError(f"{file}: {fault}") from fault


def shipped_recipes() -> dict[str, tuple[Path, str]]:
    """The recipes that come with sparsebert: for each name, the file and its comment."""
    found = {}
    for file in sorted(_OURS.glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        comment = [line.lstrip("# ") for line in lines if line.startswith("#")]
        found[file.stem] = file, " ".join(comment)
    return found


def write_recipe(folder: Path, options: FinetuneOptions) -> None:
    """Write the recipe of a run beside its weights."""
    import yaml

    recipe = {"version": VERSION, **options.meaningful(), **source_names(options)}
    seed = recipe.pop("seed")
    text = f"# sparsebert finetune MODEL OUT --task TASK --recipe {RECIPE_NAME} --seed {seed}\n"
    text += yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    (folder / RECIPE_NAME).write_text(text, encoding="utf-8")


def source_names(options: FinetuneOptions) -> dict[str, Any]:
    """The options that are paths, reduced to the names that are recorded."""
    names = {}
    if options.teacher is not None:
        names["teacher"] = source_name(options.teacher)
    if options.unlabelled is not None:
        names["unlabelled"] = Path(options.unlabelled).resolve().name
    return names


def _recipe_file(named: str | Path) -> Path:
    """The path itself or, for a bare name without such a file, the recipe in the package."""
    file = Path(named)
    if file.exists() or file.name != str(named) or file.suffix:
        return file
    ours = shipped_recipes()
    if file.name not in ours:
        raise TrainingError(
            f"there is no recipe '{named}': name a file, or one of {', '.join(ours)}."
        )
    return ours[file.name][0]


def _checked(found: Mapping[Any, Any]) -> dict[str, Any]:
    for name, value in found.items():
        # The value is not shown: nested YAML aliases could expand to fill the memory.
        if isinstance(value, list | dict | set):
            raise TrainingError(f"'{name}' must be a single value.")
    version = found.get("version")
    if version is None:
        raise TrainingError(f"a recipe must have the line 'version: {VERSION}'.")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TrainingError(f"version must be a positive integer, not {version!r}.")
    if version > VERSION:
        raise TrainingError(
            f"the recipe has version {version}, but this sparsebert only reads version {VERSION}: "
            "install a newer sparsebert."
        )
    values = {name: value for name, value in found.items() if name != "version"}
    if "seed" in values:
        raise TrainingError("a recipe cannot set the seed: pass it with each run (--seed, seed=).")
    values = {name: _number(name, value) for name, value in values.items()}
    # The teacher and the texts may be given with each run, so options that need them are allowed.
    placeholder = "given with the run"
    whole = {**values, "teacher": values.get("teacher") or placeholder}
    if values.get("unlabelled_rows") is not None:
        whole["unlabelled"] = values.get("unlabelled") or placeholder
    FinetuneOptions.from_names(whole)
    return values


def _number(name: Any, value: Any) -> Any:
    """Read values such as 5e-5, which YAML 1.1 takes for text without a point, as numbers."""
    if option_types(FinetuneOptions).get(name) is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
