"""The native engine's own tests (tests/native), as it is shipped and under the sanitizers.

The first run compiles the engine four times, each in minutes on two cores (so only
`make test-thorough` does it); builds stay in ``build/native-tests`` and ``build/native-fuzzer``.
To look for longer, or at one case that failed:

    build/native-tests/release/native_tests --rounds 1000000 --seed 7
    build/native-tests/address,undefined,float-cast-overflow/native_tests --case 7 int8-linear
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from checkout import CHECKOUT, SUPPORT

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
    "encoder",
]
SANITIZERS = "address,undefined,float-cast-overflow"
ROUNDS = "16"  # of one random case of each test: a time would choose other cases elsewhere

Run = Callable[..., str]


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; the test fails with all of it if the command does."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
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
    settings = ["-DSPARSEBERT_TESTS=ON", f"-DSPARSEBERT_SANITIZE={sanitizers}"]
    if sanitizers and importlib.util.find_spec("nanobind"):
        settings += ["-DSPARSEBERT_MODULE=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    compile_in(folder, cxx, *settings)
    return folder / "native_tests"


def run_python(sanitizers: str, library: str, script: Path | str, *arguments: object) -> str:
    """What a script prints whose `_engine` is built with sanitizers: its path is ``--module``."""
    folder = build(sanitizers).parent
    modules = list(folder.glob("_engine*"))
    if not modules:
        pytest.skip("no nanobind to build the Python module with: pip install nanobind")
    # Of C++'s own library the address sanitizer replaces what throws, so it must be there as well.
    libraries = [library, "libstdc++.so"]
    found = [run(compiler(), f"-print-file-name={name}").strip() for name in libraries]
    if not all(Path(name).is_absolute() for name in found):
        pytest.skip(f"the compiler has no {library} to be loaded before Python")
    environment = {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    words = [sys.executable, script, "--module", modules[0], *map(str, arguments)]
    return run(*words, environment=environment)


def compile_in(folder: Path, cxx: str, *settings: str) -> None:
    generator: list[str] = []
    # A folder that was configured with another generator cannot change to this one.
    if shutil.which("ninja") and not (folder / "Makefile").exists():
        generator = ["-G", "Ninja"]
    common = ["-DSPARSEBERT_MODULE=OFF", f"-DCMAKE_CXX_COMPILER={cxx}", *generator]
    run("cmake", "-S", CHECKOUT, "-B", folder, *common, *settings)
    run("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1))


def runner(sanitizers: str) -> Run:
    program = build(sanitizers)
    return lambda *arguments: run(program, *arguments)


def native_calls(printed: str) -> int:
    return int(re.findall(r"(\d+) native calls", printed)[0])


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
    assert native_calls(release("--rounds", ROUNDS)) > 100


def test_random_cases_under_the_sanitizers(sanitized: Run) -> None:
    assert native_calls(sanitized("--rounds", ROUNDS)) > 100


def test_cases_that_libfuzzer_chooses(tmp_path: Path) -> None:
    if not shutil.which("clang++"):
        pytest.skip("no clang++, which has libFuzzer: apt install clang")
    folder = CHECKOUT / "build" / "native-fuzzer"  # that of `make fuzz-native`
    compile_in(folder, "clang++", "-DSPARSEBERT_FUZZER=ON", "-DSPARSEBERT_SANITIZE=address")
    # libFuzzer's limit is on the peak of memory, which Linux hands on from the process that forked.
    flags = ["-max_len=64", "-len_control=0", "-rss_limit_mb=0", "-malloc_limit_mb=2048"]
    flags += ["-max_total_time=2"]
    printed = run(folder / "native_fuzzer", *flags, f"-artifact_prefix={tmp_path}/", tmp_path)
    assert int(re.findall(r"Done (\d+) runs", printed)[0]) > 10


@pytest.mark.parametrize("sanitizers", ["", SANITIZERS], ids=["shipped", "sanitized"])
def test_every_allocation_fails_in_turn(sanitizers: str) -> None:
    program = build(sanitizers).with_name("native_allocations")
    if not program.exists():
        pytest.skip("the linker puts a function before libc's: on Linux")
    assert int(run(program).split()[0]) > 1000


def test_threads_under_the_thread_sanitizer() -> None:
    assert "threads: fine" in runner("thread")("threads")


def test_calls_of_the_module_under_the_sanitizers() -> None:
    script = CHECKOUT / "tests" / "fuzz" / "call_engine.py"
    printed = run_python(SANITIZERS, "libasan.so", script, "--calls", 2000)
    assert int(re.findall(r"(\d+) calls", printed)[0]) >= 2000


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_python_threads_on_one_model_under_the_thread_sanitizer(tmp_path: Path, dtype: str) -> None:
    from model_folders import write_model
    from sparsebert.packing import pack

    write_model(tmp_path / "dense", "encoder")
    pack(tmp_path / "dense", tmp_path / "packed", dtype=dtype)
    script = SUPPORT / "many_threads.py"
    assert run_python("thread", "libtsan.so", script, tmp_path / "packed") == "all the same\n"


def test_what_is_not_there_is_refused(release: Run) -> None:
    with pytest.raises(AssertionError, match="there is no test nonsense"):
        release("nonsense")
