"""CPUs that QEMU plays answer as this machine does: older ones, and Arm's with a cross-built wheel.

Arm needs g++-aarch64-linux-gnu and qemu-user, and of the package registries a Python for arm64 (by
apt-get, not installed but unpacked in build/arm/python) and the wheels that sparsebert depends on.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsebert
from checkout import CHECKOUT
from sparsebert.packing import pack
from sparsebert.pruning import prune
from tiny_models import TinyBert

pytestmark = pytest.mark.thorough

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = CHECKOUT / "build" / "arm" / "python" / VERSION
TEXTS = ["alpha beta gamma", "delta", " ".join(["epsilon zeta"] * 3), "one long text " * 12]
WIDE = {"hidden_size": 128, "intermediate_size": 512}
# 24 dimensions a head, which 16 does not divide.
ODD = {"hidden_size": 72, "intermediate_size": 100, "num_attention_heads": 3}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {**WIDE, "num_hidden_layers": 3}),
    ("mpnet", ODD),
    ("nomic_bert", ODD),
    ("modernbert", {**WIDE, "global_attn_every_n_layers": 2, "local_attention": 40}),
    ("deberta-v2", ODD),
]
# Each CPU with the sets that it can run, best first.
ARM_CPUS = {
    "max": ["neon-i8mm", "neon-dotprod", "neon"],
    "neoverse-n1": ["neon-dotprod"],
    "cortex-a72": ["neon"],
}
# Each CPU with the set that is chosen.
X86_CPUS = {"Nehalem": "sse4.1", "Haswell": "avx2"}
ANSWER = """
import sys
import numpy, sparsebert
folders, texts = sys.argv[1].split(":"), sys.argv[2:]
for folder in folders:
    model = sparsebert.load(folder, threads=1)
    numpy.save(f"{folder}/answer.npy", model.embed(texts))
    print(model.instruction_set)
"""


def run(*command: str | Path, seconds: int = 300, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}"
    return done.stdout


def unpacked_python() -> Path:
    """The root of a file system with a Python for arm64, of this one's version."""
    root = PYTHON / "root"
    if (PYTHON / ".done").exists():
        return root
    apt = PYTHON / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "Dir::State::status": "/dev/null",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    names = [
        f"python{VERSION}-minimal",
        f"libpython{VERSION}-minimal",
        f"libpython{VERSION}-stdlib",
    ]
    names += ["libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3"]
    names += ["libbz2-1.0", "liblzma5", "libuuid1"]
    try:
        run("apt-get", "-qq", *options, "update")
        run("sh", "-c", 'cd "$1" && shift && exec apt-get -qq "$@"', "sh", apt / "debs", *options,
            "download", *names)  # fmt: skip
    except (AssertionError, OSError, subprocess.TimeoutExpired):
        pytest.skip(f"apt-get gives no Python {VERSION} for arm64 here")
    for package in (apt / "debs").glob("*.deb"):
        run("dpkg", "-x", package, root)
    (PYTHON / ".done").touch()
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages for aarch64: sparsebert and what it imports to answer."""
    for program in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if not shutil.which(program):
            pytest.skip(f"no {program}: apt install g++-aarch64-linux-gnu qemu-user")
    unpacked_python()
    site = tmp_path_factory.mktemp("site")
    wheels = tmp_path_factory.mktemp("wheels")
    tag = f"cpython-{VERSION.replace('.', '')}"
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        # Of a Linux of 64 bits as well.
        "Python_INCLUDE_DIR": sysconfig.get_path("include"),
    }
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, CHECKOUT),
        seconds=900,
        CMAKE_ARGS=" ".join(f"-D{key}={value}" for key, value in settings.items()),
        _PYTHON_HOST_PLATFORM="linux-aarch64",
        SETUPTOOLS_EXT_SUFFIX=f".{tag}-aarch64-linux-gnu.so",
    )
    (wheel,) = wheels.glob("*_aarch64.whl")
    shutil.unpack_archive(wheel, site, "zip")
    platforms = [f"--platform=manylinux{name}_aarch64" for name in ("2014", "_2_17", "_2_28")]
    run(
        *(*pip, "install", "--quiet", "--target", site, "--only-binary=:all:", "--no-deps"),
        *(*platforms, f"--python-version={VERSION}", "numpy", "tokenizers", "safetensors"),
    )
    return site


@pytest.fixture(scope="module")
def packed(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of MODELS in int8, 1:2."""
    folders = []
    for family, sizes in MODELS:
        folder = tmp_path_factory.mktemp(family)
        dense = tiny_bert("encoder", model_type=family, max_position_embeddings=200, **sizes)
        prune(dense, folder / "sparse")
        pack(folder / "sparse", folder / "packed", dtype="int8")
        folders.append(folder / "packed")
    return folders


def assert_answered_as_here(folders: list[Path]) -> None:
    for folder in folders:
        found = np.load(folder / "answer.npy")
        here = sparsebert.load(folder, threads=1).embed(TEXTS)
        np.testing.assert_array_equal(found.view(np.uint32), here.view(np.uint32))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of another architecture")
@pytest.mark.parametrize(("cpu", "isa"), X86_CPUS.items())
def test_older_cpus_answer_to_the_bit_as_here(packed: list[Path], cpu: str, isa: str) -> None:
    if not shutil.which("qemu-x86_64"):
        pytest.skip("no qemu-x86_64: apt install qemu-user")
    printed = run(
        *("qemu-x86_64", "-cpu", cpu, sys.executable, "-c", ANSWER),
        *(":".join(map(str, packed)), *TEXTS),
        SPARSEBERT_ISA="",
    )
    assert printed.split()[-len(packed) :] == [isa] * len(packed)
    assert_answered_as_here(packed)


@pytest.mark.parametrize(
    ("cpu", "isa"), [(cpu, isa) for cpu, sets in ARM_CPUS.items() for isa in sets]
)
def test_arm_answers_to_the_bit_as_here(packed: list[Path], site: Path, cpu: str, isa: str) -> None:
    root = unpacked_python()
    printed = run(
        *("qemu-aarch64", "-cpu", cpu, "-L", root, root / f"usr/bin/python{VERSION}", "-c", ANSWER),
        *(":".join(map(str, packed)), *TEXTS),
        PYTHONPATH=str(site),
        SPARSEBERT_ISA=isa if cpu == "max" else "",
    )
    assert printed.split() == [isa] * len(packed)
    assert_answered_as_here(packed)
