"""Everything the demo found out, as plain data: the report is drawn from this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsebert.bench import BenchResult


@dataclass(frozen=True)
class Step:
    """One step of the way, the command that does the same by hand, and how long it took."""

    title: str
    command: str
    seconds: float


@dataclass(frozen=True)
class Variant:
    """A form of the fine-tuned model, as it was evaluated."""

    name: str
    engine: str
    score: float
    """The task's main metric on the validation rows, in percent."""
    rows: int
    """How many validation rows that were."""
    weights_bytes: int
    """Size of the weights file on disk."""
    sparse: bool


@dataclass(frozen=True)
class LayerZeros:
    """Share of zeros in one linear layer of the fine-tuned sparse model, 0 to 1."""

    name: str
    rows: int
    columns: int
    zeros: float


@dataclass(frozen=True)
class Prediction:
    """What a model says about a text, and how sure it is (0 to 1; of a regression, the value)."""

    label: str
    score: float


@dataclass(frozen=True)
class ExampleAnswer:
    """One text through the dense model and through the packed one."""

    text: str
    dense: Prediction
    packed: Prediction


@dataclass
class DemoResult:
    """One run of the demo."""

    command: str
    seconds: float
    model_title: str
    model_source: str
    task_title: str
    task_source: str
    metric: str
    train_rows: int
    validation_rows: int
    pattern: str
    settings: dict[str, str]
    versions: dict[str, str]
    bench: BenchResult
    variants: list[Variant] = field(default_factory=list)
    """The dense model first, then the sparse one as trained, then its packed forms."""
    layers: list[LayerZeros] = field(default_factory=list)
    examples: list[ExampleAnswer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
