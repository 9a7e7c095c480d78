"""Where the checkout stands, and the scripts in its benchmarks/ and runs/ as modules to test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHMARKS, RUNS = CHECKOUT / "benchmarks", CHECKOUT / "runs"
SUPPORT = CHECKOUT / "tests" / "support"


def load_script(path: Path) -> ModuleType:
    """The script as a module, under a name that no installed one has."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
