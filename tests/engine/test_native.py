"""The native engine's own tests (tests/native), as it is shipped and under the sanitizers.

The first run compiles the engine three times, each about a minute on two cores (so only
`make test-thorough` does it); builds stay in ``build/native-tests``. To look for longer, or at one
case that the fuzzer named:

    build/native-tests/release/native_tests --fuzz 3600 --seed 7
    build/native-tests/address,undefined,float-cast-overflow/native_tests --case 7 int8-linear
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import CHECKOUT

pytestmark = pytest.mark.thorough

BUILDS = CHECKOUT / "build" / "native-tests"
KERNELS = [
    "int8-linear",
    "int8-lookup",
    "int8-tiles",
    "int8-rows",
    "int8-attention",
    "linear",
    "bf16-linear",
    "rows",
    "attention",
]
SANITIZERS = "address,undefined,float-cast-overflow"
FUZZ_SECONDS = "2"

Run = Callable[..., str]


def run(*command: str | Path) -> str:
    """What a command prints; the test fails with all of it if the command does."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if "unexpected memory mapping" in done.stdout:
        pytest.skip("ThreadSanitizer cannot run here: the kernel places memory where it may not be")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}"
    return done.stdout


def compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    pytest.skip("no C++ compiler: apt install g++")


def build(sanitizers: str) -> Path:
    """The tests built with these sanitizers; only what changed since the last run is compiled."""
    if not shutil.which("cmake"):
        pytest.skip("no cmake: apt install cmake")
    cxx = compiler()
    if sanitizers:
        probe = [cxx, f"-fsanitize={sanitizers}", "-x", "c++", "-", "-o", os.devnull]
        if subprocess.run(probe, input="int main() {}", text=True, capture_output=True).returncode:
            pytest.skip(f"{cxx} has no sanitizers {sanitizers}")
    folder = BUILDS / (sanitizers or "release")
    settings = ["-DSPARSEBERT_MODULE=OFF", "-DSPARSEBERT_TESTS=ON"]
    settings += [f"-DSPARSEBERT_SANITIZE={sanitizers}", f"-DCMAKE_CXX_COMPILER={cxx}"]
    # A folder that was configured with another generator cannot change to this one.
    if shutil.which("ninja") and not (folder / "Makefile").exists():
        settings += ["-G", "Ninja"]
    run("cmake", "-S", CHECKOUT, "-B", folder, *settings)
    run("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1))
    return folder / "native_tests"


def runner(sanitizers: str) -> Run:
    program = build(sanitizers)
    return lambda *arguments: run(program, *arguments)


@pytest.fixture(scope="module")
def release() -> Run:
    return runner("")


@pytest.fixture(scope="module")
def sanitized() -> Run:
    return runner(SANITIZERS)


@pytest.mark.parametrize("name", [*KERNELS, "threads"])
def test_as_it_is_shipped(release: Run, name: str) -> None:
    assert f"{name}: fine" in release(name)


@pytest.mark.parametrize("name", [*KERNELS, "threads"])
def test_under_the_address_and_undefined_behaviour_sanitizers(sanitized: Run, name: str) -> None:
    assert f"{name}: fine" in sanitized(name)


def test_random_cases_as_it_is_shipped(release: Run) -> None:
    assert int(release("--fuzz", FUZZ_SECONDS).split()[0]) > 100


def test_random_cases_under_the_sanitizers(sanitized: Run) -> None:
    assert int(sanitized("--fuzz", FUZZ_SECONDS).split()[0]) > 10


@pytest.mark.parametrize("sanitizers", ["", SANITIZERS], ids=["shipped", "sanitized"])
def test_every_allocation_fails_in_turn(sanitizers: str) -> None:
    program = build(sanitizers).with_name("native_allocations")
    if not program.exists():
        pytest.skip("the linker puts a function before libc's: on Linux")
    assert int(run(program).split()[0]) > 1000


def test_threads_under_the_thread_sanitizer() -> None:
    assert "threads: fine" in runner("thread")("threads")


def test_what_is_not_there_is_refused(release: Run) -> None:
    with pytest.raises(AssertionError, match="there is no test nonsense"):
        release("nonsense")
