"""What the demo measured, as plain data: the report and the summary show nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sparsebert.bench import BenchResult

_MB = 1e6


@dataclass(frozen=True)
class Step:
    """One step, the command that does the same by hand, and its time."""

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

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"bench": self.bench.as_dict()}


def summarise(result: DemoResult) -> str:
    """Scores, sizes, memory, latency beside torch, and the example answers."""
    lines = [f"{result.metric} on {result.validation_rows:,} rows, and weights on disk:"]
    width = max(len(variant.name) for variant in result.variants)
    lines += [
        f"  {variant.name:<{width}}  {variant.score:5.1f} %  {variant.weights_bytes / _MB:6.1f} MB"
        f"  ({variant.engine})"
        for variant in result.variants
    ]
    bench = result.bench
    lines += ["", "peak memory of the whole process:"]
    lines += [
        f"  {engine.name:<16} {engine.peak_bytes / _MB:6.0f} MB"
        for engine in bench.engines
        if engine.peak_bytes is not None
    ]
    lines += ["", f"latency, {bench.threads} threads (batch x tokens, median):"]
    for row in bench.rows:
        ratio = "" if row.ratio is None or row.engine == bench.baseline else f"{row.ratio:6.2f}"
        relative = f"{ratio} x {bench.baseline}'s time" if ratio else ""
        lines.append(
            f"  {row.shape!s:<7} {row.engine:<16} {row.median_ms:8.2f} ms {relative}".rstrip()
        )
    lines += ["", f"answers, dense | {result.pattern} packed:"]
    lines += [
        f"  {each.dense.label} {each.dense.score:.2f} | {each.packed.label} {each.packed.score:.2f}"
        f"  {each.text}"
        for each in result.examples
    ]
    return "\n".join(lines)
