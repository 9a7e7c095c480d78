"""The order of the packages, and what a module may cost to import.

Both are read from the source, so that a forbidden import is found on whatever path it hides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import sparsebert
from checkout import CHECKOUT

ROOT = Path(sparsebert.__file__).parent

# Lowest first; a module imports only from lines above its own (and from its own package).
LAYERS = (
    {"_engine", "control_groups", "errors", "progress"},
    {"patterns", "extras", "options"},
    {"compressed"},
    {"quantized"},
    {"engine"},
    {"machine"},
    {"checkpoint"},
    {"packing"},
    {"inference"},
    {"tasks"},
    {"torch_models"},
    {"pruning", "evaluation"},
    {"training"},
    {"table"},
    {"exporting"},
    {"bench", "scale", "serving"},
    {"integrations"},
    {"diagnosis"},
    {"halving"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

HEAVY = {
    "accelerate",
    "ctranslate2",
    "datasets",
    "fastapi",
    "jinja2",
    "matplotlib",
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "pandas",
    "pyarrow",
    "ray",
    "scipy",
    "seqeval",
    "sklearn",
    "torch",
    "transformers",
}
# Everything a server needs, and everything `sparsebert VERB --help` imports.
LIGHT = ("__init__", "errors", "progress", "patterns", "quantized", "engine", "machine")
LIGHT += ("control_groups", "extras", "options")
LIGHT += (
    "checkpoint",
    "packing",
    "inference",
    "pruning",
    "cli",
    "bench",
    "demo",
    "halving",
    "tasks",
    "table",
    "diagnosis",
)
LIGHT += ("exporting", "scale", "torch_models")

MODULES = sorted(ROOT.rglob("*.py"))


def package_of(module: Path) -> str:
    """The top-level name below sparsebert that a file belongs to."""
    first = module.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, *, at_import: bool) -> Iterator[tuple[str, int]]:
    """Absolute names imported, with their line; ``at_import``: only what importing it runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name"
            if node.module == "sparsebert":
                yield from ((f"sparsebert.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield str(node.module), node.lineno
        elif not (at_import and is_deferred(node)):
            yield from imports(node, at_import=at_import)


def is_deferred(node: ast.AST) -> bool:
    """Whether importing a module does not run this part of it."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def read(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), filename=str(module))


def test_every_package_has_a_layer() -> None:
    found = {package_of(module) for module in MODULES} - {"__init__"}
    assert found == set(LEVEL) - {"_engine"}


def test_the_map_of_the_code_has_the_same_order() -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| \d \| ([^|]+) \|", text, re.M)
    rows = [re.findall(r"`(\w+)`", packages) for packages in table]
    assert {name for row in rows for name in row} == LEVEL.keys() - {"_engine", "__main__"}
    levels = [sorted(LEVEL[name] for name in row) for row in rows]
    assert all(above[-1] <= below[0] for above, below in pairwise(levels))


def test_imports_only_downwards() -> None:
    wrong = []
    for module in MODULES:
        package = package_of(module)
        if package == "__init__":  # it names every layer, and imports them when they are used
            continue
        for name, line in imports(read(module), at_import=False):
            first, *rest = name.split(".")
            if first != "sparsebert" or not rest or rest[0] == "__version__" or rest[0] == package:
                continue
            if rest[0] not in LEVEL:
                wrong.append(f"{module}:{line} imports {name}, which has no layer")
            elif LEVEL[rest[0]] >= LEVEL[package]:
                wrong.append(f"{module}:{line}: {package} imports {name}")
    assert wrong == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{module}:{line} imports {name} at its top"
        for module in MODULES
        if package_of(module) in LIGHT
        for name, line in imports(read(module), at_import=True)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_the_walk_sees_nested_and_skips_deferred_imports() -> None:
    deferred = "def f():\n    import b\nif TYPE_CHECKING:\n    import c\n"
    tree = ast.parse(f"import a\n{deferred}class D:\n    import d\n")
    assert [name for name, _ in imports(tree, at_import=True)] == ["a", "d"]
    assert [name for name, _ in imports(tree, at_import=False)] == ["a", "b", "c", "d"]
