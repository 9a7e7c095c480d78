"""What `import sparsebert` promises: its names, and that it stays light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import sparsebert

NAMES = {
    "Model",
    "Pattern",
    "SparsebertError",
    "__version__",
    "convert",
    "evaluate",
    "export",
    "finetune",
    "halve",
    "inspect",
    "load",
    "load_torch_2to4",
    "pack",
    "prune",
    "prune_upstream",
    "push_to_hub",
    "unpack",
}
TRAINING_SIDE = {"torch", "transformers", "datasets", "accelerate", "sklearn", "scipy", "pyarrow"}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after running ``code``."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_exported_names() -> None:
    assert set(sparsebert.__all__) == NAMES
    assert set(dir(sparsebert)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(sparsebert, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantize'"):
        _ = sparsebert.quantize


def test_importing_the_package_imports_next_to_nothing() -> None:
    assert not modules_after("import sparsebert") & (TRAINING_SIDE | {"numpy", "tokenizers"})


def test_the_inference_side_never_imports_torch() -> None:
    code = "from sparsebert import Model, inspect, load, pack, prune, unpack"
    assert not modules_after(code) & TRAINING_SIDE


def test_the_training_side_is_imported_when_it_is_called() -> None:
    code = "from sparsebert import evaluate, finetune, convert, prune_upstream"
    assert not modules_after(code) & TRAINING_SIDE


@pytest.mark.parametrize("arguments", [["--help"], ["prune", "--help"], ["finetune", "--help"]])
def test_help_imports_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "from sparsebert.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code"
    )
    assert not modules_after(code) & (TRAINING_SIDE | {"numpy"})
