"""What the demo found, in lines for a terminal; the report has it all."""

from __future__ import annotations

from sparsebert.demo.result import DemoResult

_MB = 1e6


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
        told = f"{ratio} x {bench.baseline}'s time" if ratio else ""
        lines.append(f"  {row.shape!s:<7} {row.engine:<16} {row.median_ms:8.2f} ms {told}".rstrip())
    lines += ["", f"answers, dense | {result.pattern} packed:"]
    lines += [
        f"  {each.dense.label} {each.dense.score:.2f} | {each.packed.label} {each.packed.score:.2f}"
        f"  {each.text}"
        for each in result.examples
    ]
    return "\n".join(lines)
