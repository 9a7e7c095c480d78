"""The result of upstream pruning, and its folder: the pruned model's, with trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import (
    WEIGHTS_NAME,
    Checkpoint,
    read_masks,
    with_step,
    write_auxiliary_files,
    write_card,
    write_masks,
    write_tensors,
)
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.json_files import write_json
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.extras import data_frame
from sparsebert.training.saving import progress_record, versions

if TYPE_CHECKING:
    import pandas as pd

    from sparsebert.training.run import Outcome


@dataclass(frozen=True)
class UpstreamResult:
    """The result of `prune_upstream`.

    ``layers`` is the number of sparse layers, and ``texts`` the number of distinct texts in the
    corpus, which were made into ``rows`` sequences with ``tokens`` tokens for training. ``seconds``
    and ``rows_per_second`` are those of training in this call; ``history`` is the loss during
    training.
    """

    model: str
    out: str
    pattern: str
    method: str
    layers: int
    texts: int
    rows: int
    tokens: int
    steps: int
    resumed_from: int
    seconds: float
    rows_per_second: float
    batch_size: int
    gradient_accumulation: int
    precision: str
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON."""
        return asdict(self)

    def to_pandas(self) -> pd.DataFrame:
        """The loss during training, one row per report; needs [notebook]."""
        return data_frame(self.history)


def save_upstream(
    folder: Path,
    student: Checkpoint,
    dense: Checkpoint,
    outcome: Outcome,
    result: UpstreamResult,
    arguments: dict[str, Any],
) -> None:
    """Write a copy of the student's folder with the trained weights.

    Tensors keep their names; those that were not part of the training (such as another head or a
    buffer) are copied.
    """
    canonical = student.config.family.canonical
    trained = {canonical(name): weight for name, weight in outcome.model.state_dict().items()}
    names = {stored: name for name, stored in student.stored_name.items()}
    specs = []
    for stored in student.tensors:
        spec = student.tensors.spec(stored)
        in_model = names.get(stored) in trained
        specs.append(replace(spec, dtype="F32") if in_model else spec)

    def arrays() -> Iterator[Array]:
        for spec in specs:
            weight = trained.get(names.get(spec.name, ""))
            if weight is None:
                yield student.tensors[spec.name]
            else:
                yield weight.detach().float().cpu().numpy()

    write_tensors(
        folder / WEIGHTS_NAME, specs, arrays(), {"format": "pt", **student.tensors.metadata}
    )
    raw = {key: value for key, value in student.config.raw.items() if key != "torch_dtype"}
    raw["dtype"] = "float32"
    raw = with_step(raw, "distill", dense.source, arguments)
    write_auxiliary_files(folder, raw, source=student.path)
    write_masks(folder, read_masks(student))
    write_json(folder / TRAINING_NAME, _record(outcome, result, arguments))
    write_card(folder, source=dense.path)


def _record(outcome: Outcome, result: UpstreamResult, arguments: dict[str, Any]) -> dict[str, Any]:
    """training.json, in the same form as for fine-tuning, without local paths."""
    return {
        "arguments": arguments,
        "max_length": arguments["max_length"],
        "batch_size": result.batch_size,
        "gradient_accumulation": result.gradient_accumulation,
        "rows": {"train": result.rows},
        "texts": result.texts,
        "tokens": result.tokens,
        "sparse_layers": result.layers,
        **progress_record(outcome),
        "scores": {},
        "notes": result.notes,
        "versions": versions(),
    }
