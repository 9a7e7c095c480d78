"""Recipes: the options of a fine-tuning run in a small YAML file, to keep and to share.

    version: 1
    epochs: 4
    learning_rate: 1e-4
    dropout: 0
    embeddings: used

The names are those of `FinetuneOptions`. A recipe says how to train; on what (model, task, data)
and with which seed is an argument of each run. Beside the weights of every fine-tuned model is the
`recipe.yaml` that trains it again. Those of our own runs come with the package, by name.
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
    """The options that a recipe gives, by name, checked: a file, or one that comes with sparsebert.

    Raises TrainingError, naming the file and what is wrong in it.
    """
    need_extra("reading a recipe", "yaml")
    import yaml

    file = _recipe_file(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise TrainingError(f"{file} is larger than 1 MiB: it is no recipe.")
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise TrainingError(f"{file} cannot be read: {fault.strerror or fault}.") from fault
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        reason = " ".join(str(fault).split())
        raise TrainingError(f"{file} is not valid YAML: {reason}.") from fault
    if not isinstance(found, dict):
        raise TrainingError(f"{file} is no recipe: it must hold lines of the form 'name: value'.")
    try:
        return _checked(found)
    except TrainingError as fault:
        raise TrainingError(f"{file}: {fault}") from fault


def shipped_recipes() -> dict[str, tuple[Path, str]]:
    """The recipes that come with sparsebert: by name, the file and the comment it begins with."""
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
    """The options that are paths, by their last component, as they are recorded."""
    names = {}
    if options.teacher is not None:
        names["teacher"] = source_name(options.teacher)
    if options.unlabelled is not None:
        names["unlabelled"] = Path(options.unlabelled).resolve().name
    return names


def _recipe_file(named: str | Path) -> Path:
    """``best`` as the file of that name in the package, if there is none of it here."""
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
        # Never shown: lists of aliases to lists would fill the memory.
        if isinstance(value, list | dict | set):
            raise TrainingError(f"'{name}' must be a single value.")
    version = found.get("version")
    if version is None:
        raise TrainingError(f"a recipe begins with the line 'version: {VERSION}'.")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TrainingError(f"version must be a whole number from 1, not {version!r}.")
    if version > VERSION:
        raise TrainingError(
            f"it is of version {version} and this sparsebert reads version {VERSION}: "
            "install a newer sparsebert."
        )
    values = {name: value for name, value in found.items() if name != "version"}
    if "seed" in values:
        raise TrainingError("a recipe holds no seed: give it with each run (--seed, seed=).")
    values = {name: _number(name, value) for name, value in values.items()}
    # A recipe may leave teacher and texts to each run: options that need them are allowed here.
    placeholder = "given with the run"
    whole = {**values, "teacher": values.get("teacher") or placeholder}
    if values.get("unlabelled_rows") is not None:
        whole["unlabelled"] = values.get("unlabelled") or placeholder
    FinetuneOptions.from_names(whole)
    return values


def _number(name: Any, value: Any) -> Any:
    """YAML 1.1 takes 5e-5, without a point, for text: read it as the number it looks like."""
    if option_types(FinetuneOptions).get(name) is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
