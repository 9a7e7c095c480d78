"""The commands that produced a result, from the lineage of its models."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from sparsebert.tasks.table import TASKS, Task
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.upstream.options import UpstreamOptions

Lineage = Sequence[dict[str, Any]]  # steps, as `sparsebert.checkpoint.sparsity` records them

_FORMER = {"last_layer_weight": 1.0, "similarity_weight": 0.0}  # in lineages; no longer options
_DEFAULTS = {
    "finetune": FinetuneOptions().as_dict(),
    "distill": {**UpstreamOptions().as_dict(), **_FORMER},
}
_MADE_BY = {"finetune": "TUNED", "prune": "PRUNED", "pack": "PACKED"}
_SEED_FOLDER = re.compile(r"seed-\d+")
_SEEDS = re.compile(r"--seeds? [\d,]+")


def command(lineages: Sequence[Lineage], *, scored: str | None = None) -> str:
    """The commands that made the models of one result, whose lineages these are, ending with OUT.

    For example ``sparsebert prune dense sparse --method wanda && sparsebert finetune sparse OUT``.
    They are the commands of the first model, with each step's seeds over all models; a model that
    all of them started from has one seed. Folders keep their names; a folder of a single seed is
    named after the step that made it. Options at their defaults are left out. ``scored`` is the
    task on which `evaluate` scored OUT.
    """
    first = lineages[0]
    commands: list[list[str]] = []
    for index, step in enumerate(first):
        command_name = str(step.get("step"))
        if command_name != "distill" or not commands:  # else part of `prune --corpus`
            source = _source(str(step.get("from")), commands)
            if commands:
                commands[-1][3] = source
            commands.append(["sparsebert", command_name, source, "OUT"])
        defaults = _DEFAULTS.get(command_name, {})
        for name, value in (step.get("arguments") or {}).items():
            if name == "seed" and command_name == "finetune":
                seeds = _seeds(lineages, index)
                commands[-1] += _option("seeds" if len(seeds) > 1 else "seed", seeds)
            elif command_name == "finetune" and name == "max_length" and value == _length(step):
                continue
            elif name not in defaults or value != defaults[name]:
                commands[-1] += _option(name, value)
    if scored is not None:
        data = [
            (step.get("arguments") or {}).get("data")
            for step in first
            if step.get("step") == "finetune"
        ]
        commands.append(["sparsebert", "evaluate", "OUT", "--task", scored])
        commands[-1] += _option("data", data[-1]) if data else []
    return " && ".join(shlex.join(words) for words in commands)


def without_seeds(made: str) -> str:
    """A command without its seeds, for comparison with the command of other seeds."""
    return _SEEDS.sub("", made)


def with_seeds(made: str, other: str, numbers: Sequence[int]) -> str:
    """``made`` with the seeds ``numbers``, except where both commands have the same seeds."""
    option = f"--seed{'s' if len(numbers) > 1 else ''} {','.join(map(str, numbers))}"
    others = iter(_SEEDS.findall(other))
    return _SEEDS.sub(lambda found: found[0] if found[0] == next(others, "") else option, made)


def _source(name: str, earlier: Sequence[Sequence[str]]) -> str:
    """The input of a command; a seed's folder is named after its step: TUNED, then TUNED-2."""
    if not _SEED_FOLDER.fullmatch(name):
        return name
    last = earlier[-1][1] if earlier else ""
    made, count = _MADE_BY.get(last, "MODEL"), sum(each[1] == last for each in earlier)
    return f"{made}-{count}" if count > 1 else made


def _seeds(lineages: Sequence[Lineage], index: int) -> list[str]:
    steps = [lineage[index] for lineage in lineages if index < len(lineage)]
    return list(dict.fromkeys(str((step.get("arguments") or {}).get("seed")) for step in steps))


def _length(step: dict[str, Any]) -> int:
    """The task's default max_length, in tokens."""
    return TASKS.get(str((step.get("arguments") or {}).get("task")), Task).max_length


def _option(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else "--no-" + name.replace("_", "-")]
    if isinstance(value, list):
        if name == "corpus":
            return [word for each in value for word in (flag, str(each))]
        return [flag, ",".join(map(str, value))]
    return [flag, "TEACHER" if name == "teacher" else str(value)]
