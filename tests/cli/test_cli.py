"""The command line as a whole: commands, output, errors. Each command has its own tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sparsebert
from commands import Run
from sparsebert.cli.app import COMMANDS

NAMES = [
    "halve",
    "convert",
    "prune",
    "finetune",
    "recipes",
    "evaluate",
    "table",
    "pack",
    "unpack",
    "push",
    "export",
    "inspect",
    "doctor",
    "bench",
    "embed",
    "classify",
    "rerank",
    "answer",
    "tag",
    "fill",
    "serve",
    "demo",
]
# What each command that reads a model needs besides it.
ARGUMENTS = {
    "halve": ["OUT"],
    "convert": ["OUT"],
    "prune": ["OUT"],
    "finetune": ["OUT", "--task", "sst2", "--data", "DATA"],
    "evaluate": ["--task", "sst2", "--data", "DATA"],
    "pack": ["OUT"],
    "unpack": ["OUT"],
    "push": ["org/model"],
    "export": ["OUT", "--to", "torch-2to4"],
    "inspect": [],
    "doctor": [],
    "bench": [],
    "embed": [],
    "classify": [],
    "rerank": ["--query", "a"],
    "answer": [],
    "tag": [],
    "fill": [],
    "serve": [],
}


def test_commands_are_those_of_the_workflow() -> None:
    assert [command.__name__ for command in COMMANDS] == NAMES


def test_help_shows_every_command(run: Run) -> None:
    code, out, error = run("--help")
    assert (code, error) == (0, "")
    for name in NAMES:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("command", NAMES)
def test_help_of_a_command_says_what_it_does(run: Run, command: str) -> None:
    code, out, error = run(command, "--help")
    assert (code, error) == (0, "")
    usage = out[out.index("Usage: ") :].splitlines()[0]
    assert f"sparsebert {command} [OPTIONS]" in usage
    assert "[[" not in usage  # typer brackets the arguments
    assert usage.count("...") <= 1
    assert "--json" in out


def test_recipes_are_listed_and_shown(run: Run, tmp_path: Path) -> None:
    code, out, error = run("recipes")
    assert (code, error) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert {"best", "dense", "oneshot"} <= set(names)
    pytest.importorskip("yaml")
    from sparsebert.training.recipe import read_recipe

    for name in names:
        code, out, _ = run("recipes", name)
        assert code == 0
        (tmp_path / "r.yaml").write_text(out, encoding="utf-8")
        assert read_recipe(tmp_path / "r.yaml") == read_recipe(name)
    assert run("recipes", "worst")[0] == 2


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"sparsebert {sparsebert.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["quantize"],
        ["prune"],
        ["prune", "only-one"],
        ["prune", "a", "b", "--pattern", "two to one"],
        ["export", "a", "b"],
        ["inspect", "a", "--colour"],
        ["table", "a", "--format", "svg", "--json"],
        ["halve", "a", "b", "--peers", "--no-bench"],
        ["doctor"],
        ["doctor", "--data", "somewhere"],
        ["doctor", "a", "--data", "somewhere", "--task", "chess"],
        ["doctor", "--system", "--against", "a"],
        ["doctor", "a", "--text-column", "q"],
        ["doctor", "--data", "somewhere", "--task", "sst2", "--batch-size", "4"],
        ["bench"],
        ["bench", "a", "--random", "minilm"],
        ["bench", "a", "--shapes", "16"],
        ["bench", "a", "--engines", "sparsebert-fp32,abacus"],
        ["bench", "a", "--output", "csv", "--json"],
        ["bench", "--random", "bert-huge"],
        ["bench", "a", "--rounds", "0"],
        ["demo", "--threads", "0"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(run: Run, arguments: list[str]) -> None:
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: sparsebert" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
def test_a_folder_that_is_no_model_is_the_users_to_mend(
    run: Run, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", sys.__stdin__)
    model = tmp_path / "model"
    model.mkdir()
    places = {"OUT": tmp_path / "out", "DATA": tmp_path}
    rest = [str(places.get(word, word)) for word in ARGUMENTS[command]]
    if command == "answer":
        rest = _answer_arguments()
    code, out, error = run(command, model, *rest)
    assert code == 1, error
    assert out == ""
    assert "error: " in error
    assert "model" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def _answer_arguments() -> list[str]:
    return []


def test_errors_are_one_line_each(run: Run, tmp_path: Path) -> None:
    code, out, error = run("inspect", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_an_existing_folder_is_kept(
    run: Run, tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    code, _, error = run("prune", tiny_bert(), out)
    assert code == 1
    assert "--force" in error or "exists" in error
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]


def test_json_is_all_there_is_on_standard_output(
    run: Run, tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    sparse, packed, dense = (tmp_path / name for name in ("sparse", "packed", "dense"))
    for arguments in (
        ["prune", tiny_bert(), sparse],
        ["inspect", sparse],
        ["pack", sparse, packed],
        ["unpack", packed, dense],
    ):
        code, out, _ = run(*arguments, "--json")
        assert code == 0
        assert out.count("\n") == 1
        assert isinstance(json.loads(out), dict)


def test_words_go_to_standard_output_and_progress_does_not(
    run: Run, tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    code, out, error = run("prune", tiny_bert(), tmp_path / "sparse")
    assert code == 0
    assert "pruned to 1:2" in out
    assert "pruning" not in out
    assert "pruning" in error


def test_our_own_fault_shows_a_traceback_and_where_to_report(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("an index went astray")

    monkeypatch.setattr("sparsebert.pruning.inspect", fail)
    code, out, error = run("inspect", tmp_path)
    assert (code, out) == (1, "")
    assert "Traceback" in error
    assert "RuntimeError: an index went astray" in error
    assert "report" in error.splitlines()[-1]
    assert f"sparsebert {sparsebert.__version__}, Python 3" in error.splitlines()[-1]


def test_an_interrupt_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsebert.pruning.inspect", interrupt)
    code, out, error = run("inspect", tmp_path)
    assert (code, out) == (130, "")
    assert error.startswith("interrupted: ")
    assert error.count("\n") == 1


def test_a_reader_that_leaves_is_no_fault(tiny_bert: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", "sparsebert", "inspect", str(tiny_bert())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "BrokenPipe" not in error
    assert "Exception ignored" not in error


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_standard_output_on_a_full_disk(
    tiny_bert: Callable[..., Path], arguments: list[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    command = [sys.executable, "-m", "sparsebert", "inspect", str(tiny_bert()), *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: No space left on device."
    assert "Traceback" not in done.stderr


def test_standard_output_and_folders_that_are_not_utf8(
    tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    def run(*arguments: str | bytes) -> str:
        command = [sys.executable, "-m", "sparsebert", *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return done.stdout.decode("ascii")

    (tmp_path / "caf\xe9").symlink_to(tiny_bert())
    assert "caf\\xe9" in run("inspect", os.fsencode(tmp_path / "caf\xe9"))
    target = os.fsencode(tmp_path) + b"/mod\xe8le"
    try:
        os.rename(shutil.copytree(tiny_bert(), tmp_path / "copy"), target)
    except OSError:
        pytest.skip("this file system only takes names in UTF-8")
    run("prune", target, str(tmp_path / "sparse"))
    run("prune", str(tmp_path / "sparse"), str(tmp_path / "again"))  # the record can be read
    config = json.loads((tmp_path / "again" / "config.json").read_bytes())
    assert config["sparsity"]["lineage"][0]["from"] == "mod\\udce8le"


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparsebert", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"sparsebert {sparsebert.__version__}\n"
