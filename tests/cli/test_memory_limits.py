"""Too little memory, at any height: a step does its work or says so, and leaves no half output."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_folders import write_model

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits address space as Linux does"
)
MEBIBYTES = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 4096)

# The step as it is, which also imports all that it needs; then, in forks, with so much more address
# space than is taken by then. What each says goes to a file beside its output.
_LIMITED = """
import json, os, resource, sys
from pathlib import Path
from sparsebert.cli import main

def run(out, most):
    said = os.open(out + ".said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    if most:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        main([word.replace('OUT', out) for word in sys.argv[2:]])
    except SystemExit as end:
        return end.code or 0

tries = {}
terminal = os.dup(1)
assert run("whole", None) == 0
for height in json.loads(sys.argv[1]):
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if not (child := os.fork()):
        os._exit(run(f"out-{height}", taken + (height << 20)))
    tries[height] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os.write(terminal, json.dumps(tries).encode())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 40 MB of weights."""
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    return write_model(tmp_path_factory.mktemp("model") / "dense", "encoder", **sizes)


def contents(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


STEPS = {
    "embed": "embed MODEL --input texts.txt --output OUT.npy",
    "prune": "prune MODEL OUT --method magnitude",
    "pack-int8": "pack MODEL OUT --dtype int8",
    "pack-fp32": "pack MODEL OUT --dtype fp32",
}


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=() if step == "pack-int8" else pytest.mark.thorough)
        for step in STEPS
    ],
)
def test_too_little_memory(model: Path, tmp_path: Path, step: str) -> None:
    (tmp_path / "texts.txt").write_text("the ferry is where\n" * 100)
    arguments = STEPS[step].replace("MODEL", str(model)).split()
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, json.dumps(MEBIBYTES), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    ended = {int(height): code for height, code in json.loads(done.stdout).items()}
    suffix = ".npy" if step == "embed" else ""
    whole, wrong = contents(tmp_path / f"whole{suffix}"), []
    for height, code in ended.items():
        said = (tmp_path / f"out-{height}.said").read_text()
        out = tmp_path / f"out-{height}{suffix}"
        sentence = said.splitlines()[-1:] and said.splitlines()[-1].startswith("error: ")
        refused = code == 1 and sentence and said.count("\nerror: ") <= 1 and not out.exists()
        if not (contents(out) == whole if code == 0 else refused):
            wrong.append(f"{height} MiB: {code}\n{said[-900:]}")
    assert not wrong, "\n".join(wrong)
    assert set(ended.values()) == {0, 1}
    left = {each.name for each in tmp_path.iterdir() if each.suffix != ".said"}
    done_ones = {f"out-{height}{suffix}" for height, code in ended.items() if code == 0}
    assert left == {f"whole{suffix}", "texts.txt", *done_ones}
