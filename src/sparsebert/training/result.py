"""What a fine-tuning run came to, and how it is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.evaluation.metrics import ByClass
from sparsebert.evaluation.results import cells, scores_table, table_row
from sparsebert.extras import data_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run came to.

    ``scores`` maps validation split to metric to percent (empty without a validation split);
    ``rows`` counts training examples; ``seconds`` and ``examples_per_second`` are those of training
    in this call; ``batch_size`` and ``gradient_accumulation`` are what fitted into memory.
    ``by_class`` has precision, recall and F1 of each class of a classification, by split.
    """

    model: str
    out: str
    task: str
    title: str
    rows: int
    steps: int
    resumed_from: int
    seconds: float
    examples_per_second: float
    batch_size: int
    gradient_accumulation: int
    scores: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)
    by_class: dict[str, ByClass] = field(default_factory=dict)

    def row(self) -> str:
        """The task's row of the table; empty without a validation split."""
        return table_row(self.title, self.scores) if self.scores else ""

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "row": self.row()}

    def to_pandas(self) -> pd.DataFrame:
        """One line for each split and metric; needs [notebook]."""
        about = {"model": self.out, "task": self.task}
        return data_frame({**about, **cell} for cell in cells(self.scores))

    def _repr_markdown_(self) -> str:
        title = f"{self.title}, {self.out}: {self.rows:,} rows, {self.steps:,} steps"
        return scores_table(title, self.scores) if self.scores else title
