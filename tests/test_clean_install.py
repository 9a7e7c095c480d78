"""The wheel in an empty environment: the inference side works, and torch is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import CHECKOUT
from sparsebert.packing import pack
from sparsebert.pruning import prune

OFFLINE = ("NewConnectionError", "Temporary failure in name resolution", "Network is unreachable")

PROGRAM = """
import importlib.util, sys
import numpy as np
import sparsebert as sb

model = sb.load(sys.argv[1], threads=1)
(best, *_), second = model.classify(["a first text", ("a second", "and its pair")])
assert 0 < best["score"] <= 1, best
assert model.embed(["a text"]).shape == (1, 32)
assert np.isfinite(model.logits(["a text"])).all()
sb.unpack(sys.argv[1], sys.argv[2])
sb.prune(sys.argv[2], sys.argv[3])
for absent in ("torch", "transformers", "scipy", "sklearn", "pyarrow"):
    assert importlib.util.find_spec(absent) is None, absent
try:
    sb.finetune(sys.argv[2], sys.argv[3] + "-task", task="sst2", data=".")
except sb.SparsebertError as error:
    assert "sparsebert[train]" in str(error), error
else:
    raise AssertionError("fine-tuning without torch")
print("fine")
"""


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A command in a clean environment; skips if pip finds no index, fails if it fails."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=environment,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("pip reaches no package index: try with a network")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make test` built and names, or one built now."""
    named = os.environ.get("SPARSEBERT_WHEEL")
    if named:
        return Path(CHECKOUT, named)
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a new virtual environment with the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", wheel)
    return programs


@pytest.fixture(scope="module")
def packed(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    prune(tiny_bert("sequence-classification"), folder / "sparse")
    pack(folder / "sparse", folder / "packed")
    return folder / "packed"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    source = CHECKOUT / "src"
    wanted = {
        str(file.relative_to(source))
        for file in (source / "sparsebert").rglob("*")
        if file.is_file() and file.suffix not in {".so", ".pyc"} and file.name[0] != "."
    }
    assert "sparsebert/py.typed" in wanted
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    (engine,) = held - wanted
    assert engine.startswith("sparsebert/_engine.")
    assert wanted <= held


def test_the_page_on_pypi_links_to_files_that_are_there(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel)
    (name,) = [each for each in held.namelist() if each.endswith(".dist-info/METADATA")]
    links = re.findall(r"\]\(([^)#]+)", held.read(name).decode())
    assert len(links) > 10
    for link in links:
        host, path = re.fullmatch(
            r"(https://[^/]+/sparsebert/sparsebert)/(?:blob/)?main/(.+)", link
        ).groups()
        assert ("raw." in host) == path.endswith(".svg")
        assert (CHECKOUT / path).is_file(), path


def test_the_inference_side_runs_without_torch(
    environment: Path, packed: Path, tmp_path: Path
) -> None:
    paths = (packed, tmp_path / "unpacked", tmp_path / "pruned")
    done = run(environment / "python", "-c", PROGRAM, *paths, cwd=tmp_path)
    assert done.stdout == "fine\n"


def test_the_command_answers(environment: Path, packed: Path, tmp_path: Path) -> None:
    texts = "a first text\na second text\n"
    done = run(environment / "sparsebert", "classify", packed, input=texts, cwd=tmp_path)
    assert done.stdout.count("\n") == 2
    assert "LABEL_" in done.stdout
    assert "Usage: sparsebert" in run(environment / "sparsebert", "--help").stdout


def test_only_what_the_metadata_says_is_installed(environment: Path) -> None:
    listed = run(environment / "python", "-m", "pip", "list", "--format", "freeze").stdout
    names = {line.partition("==")[0].lower().replace("-", "_") for line in listed.splitlines()}
    assert {"sparsebert", "numpy", "tokenizers", "safetensors", "huggingface_hub"} <= names
    assert not names & {"torch", "transformers", "pandas", "scipy"}
    # Each of those brings some of its own; a jump here is a server's bill.
    assert len(names) < 40, sorted(names)
