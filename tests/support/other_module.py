"""Another build of the compiled module in place of the installed one, say with sanitizers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def use_module(path: str | Path) -> None:
    """Have `sparsebert` import ``path`` as its `_engine`; before it is imported itself."""
    spec = importlib.util.spec_from_file_location("sparsebert._engine", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
