"""From ``NAME=MODEL`` to models that are ready to serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.errors import InputError
from sparsebert.inference import load
from sparsebert.serving.served_model import ServedModel


def load_models(
    models: Sequence[str | Path],
    *,
    threads: int | None = None,
    workers: int = 1,
    max_length: int | None = None,
) -> list[ServedModel]:
    """Load each ``MODEL`` or ``NAME=MODEL`` (a folder, or an id of the hub).

    The name is what requests call it by, and otherwise the folder's own or the hub id. ``workers``
    is how many engine threads each model gets, and ``threads`` how many threads each of them works
    with. Raises InputError for a name given twice, and what `sparsebert.load` raises.
    """
    if not models:
        raise InputError("no model was named: give at least one to serve.")
    served = [
        _load(name, model, threads=threads, workers=workers, max_length=max_length)
        for name, model in map(_split, models)
    ]
    names = [model.name for model in served]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models are called {name}: name them, as in first=FOLDER.")
    return served


def _split(model: str | Path) -> tuple[str | None, str | Path]:
    text = str(model)
    if isinstance(model, Path) or "=" not in text or Path(text).exists():
        return None, model
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise InputError(f"{text} is not a model: write NAME=FOLDER or FOLDER.")
    return name, rest


def _load(
    name: str | None,
    model: str | Path,
    *,
    threads: int | None,
    workers: int,
    max_length: int | None,
) -> ServedModel:
    replicas = [load(model, threads=threads, max_length=max_length) for _ in range(workers)]
    return ServedModel(name or replicas[0].name, replicas)
