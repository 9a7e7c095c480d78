"""Latency compared with other engines: each in its own process, in interleaved rounds.

from sparsebert.bench import parse_shapes, run_bench
print(as_markdown(run_bench("sparse/", shapes=parse_shapes("1x128"))))
"""

from sparsebert.bench.engines import default_engines as default_engines
from sparsebert.bench.engines import parse_engines as parse_engines
from sparsebert.bench.random_models import RANDOM_MODELS as RANDOM_MODELS
from sparsebert.bench.random_models import write_random_model as write_random_model
from sparsebert.bench.result import BenchResult as BenchResult
from sparsebert.bench.result import as_csv as as_csv
from sparsebert.bench.result import as_markdown as as_markdown
from sparsebert.bench.run import DEFAULT_SHAPES as DEFAULT_SHAPES
from sparsebert.bench.run import run_bench as run_bench
from sparsebert.bench.workloads import Shape as Shape
from sparsebert.bench.workloads import parse_shapes as parse_shapes

__all__ = [
    "DEFAULT_SHAPES",
    "RANDOM_MODELS",
    "BenchResult",
    "Shape",
    "as_csv",
    "as_markdown",
    "default_engines",
    "parse_engines",
    "parse_shapes",
    "run_bench",
    "write_random_model",
]
