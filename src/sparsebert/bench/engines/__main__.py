"""A worker that serves one engine: ``python -m sparsebert.bench.engines NAME``."""

import sys
from typing import cast

from sparsebert.bench.engines import known_engines
from sparsebert.bench.worker import Engine, serve

if __name__ == "__main__":
    serve(cast(Engine, known_engines()[sys.argv[1]]()))
