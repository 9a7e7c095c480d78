"""The commands finetune and evaluate, as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from commands import Run
from sparsebert.cli.finetune import finetune
from sparsebert.cli.options import expanded
from sparsebert.cli.prune import prune as prune_command
from sparsebert.pruning import prune
from sparsebert.training.options import NEED_TEACHER, FinetuneOptions
from sparsebert.training.upstream.options import UpstreamOptions
from tiny_models import TinyBert
from tiny_tasks import write_classification


@pytest.fixture(scope="module")
def work(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    prune(tiny_bert("encoder"), folder / "sparse")
    write_classification(folder / "data")
    return folder


def test_the_way_through(work: Path, run: Run) -> None:
    task = ("--task", "custom", "--data", work / "data")
    folders = (work / "sparse", work / "out")
    code, told, progress = run("finetune", *folders, *task, "--epochs", 1, "--batch-size", 8)
    assert code == 0, progress
    assert "8 steps on 60 rows in" in told
    row = told.splitlines()[-1]
    assert row.startswith("custom (accuracy/F1): ")
    assert "fine-tuning: 8/8" in progress

    code, told, progress = run("evaluate", work / "out", *task)
    assert code == 0, progress
    assert told.splitlines()[-1] == row
    code, told, _ = run("evaluate", work / "out", *task, "--engine", "torch", "--json")
    result = json.loads(told)
    assert (code, result["engine"], result["row"]) == (0, "torch", row)

    code, told, error = run("finetune", *folders, *task)
    assert (code, told) == (1, "")
    assert error.startswith("error: ")
    assert "exists" in error


def test_one_file_with_columns_of_its_own(work: Path, run: Run, tmp_path: Path) -> None:
    rows = (
        f"{'xy'[row % 2]} {'abcde'[row % 5]} {row},{['lost', 'kept'][row % 2]}\n"
        for row in range(50)
    )
    (tmp_path / "tickets.csv").write_text("body,outcome\n" + "".join(rows))
    task = ("--task", "custom", "--data", tmp_path / "tickets.csv")
    out = tmp_path / "out"
    code, _, error = run("finetune", work / "sparse", out, *task)
    assert code == 1
    assert "--text-column" in error
    columns = ("--text-column", "body", "--label-column", "outcome", "--positive-label", "lost")
    code, told, error = run("finetune", work / "sparse", out, *task, *columns, "--epochs", 1)
    assert code == 0, error
    assert "on 40 rows in" in told
    assert "note: F1 is that of the class 'lost'." in told
    assert "validation  precision  recall     F1    rows" in told
    by_class = [line for line in told.splitlines() if line.startswith(("lost ", "kept "))]
    assert [line.split()[-1] for line in by_class] == ["5", "5"]
    code, again, error = run("evaluate", out, *task)
    assert code == 0, error
    assert again.splitlines()[-1] == told.splitlines()[-1]
    code, told, _ = run("evaluate", out, *task, "--positive-label", "kept", "--json")
    result = json.loads(told)
    assert result["scores"]["validation"]["f1"] == result["by_class"]["validation"]["kept"]["f1"]
    code, told, error = run("doctor", out, "--data", tmp_path / "tickets.csv")
    assert "50 rows" in told, error


@pytest.mark.parametrize(
    ("command", "length"), [("finetune", "128, 384 for"), ("evaluate", "the model's own")]
)
def test_help_shows_defaults(command: str, length: str, run: Run) -> None:
    code, told, _ = run(command, "--help")
    assert code == 0
    for words in ("--task", "--data", length, "[default: 32; x>=1]"):
        assert words in " ".join(told.split()), words


@pytest.mark.parametrize(
    ("command", "options"), [(finetune, FinetuneOptions), (prune_command, UpstreamOptions)]
)
def test_the_limits_that_help_shows_are_allowed(command: Any, options: Any) -> None:
    known = {field.name for field in fields(options)}
    checked = 0
    for name, hint in get_type_hints(expanded(command), include_extras=True).items():
        if name not in known:
            continue
        beside: dict[str, Any] = {}
        if name in NEED_TEACHER:
            beside = {"teacher": "t", "hidden_weight": 1.0}
        if name == "unlabelled_rows":
            beside["unlabelled"] = "texts"
        for limit in (hint.__metadata__[0].min, hint.__metadata__[0].max):
            if limit is not None:
                options(**{**beside, name: limit})
                checked += 1
    assert checked >= 4


@pytest.mark.parametrize(
    "wrong",
    [
        ("finetune", "m", "o"),
        ("finetune", "m", "o", "--task", "imdb"),
        ("finetune", "m", "o", "--task", "sst2", "--optimizer", "adam"),
        ("finetune", "m", "o", "--task", "sst2", "--epochs", "0"),
        ("finetune", "m", "o", "--task", "sst2", "--dropout", "1"),
        ("finetune", "m", "o", "--task", "custom", "--pair-column", "b"),
        ("finetune", "m", "o", "--task", "custom", "--validation-share", "1"),
        ("evaluate", "m", "--task", "sst2", "--engine", "onnx"),
        ("evaluate", "m", "--task", "sst2", "--batch-size", "0"),
    ],
)
def test_wrong_use_exits_with_2(wrong: tuple[str, ...], run: Run) -> None:
    code, told, error = run(*wrong)
    assert (code, told) == (2, "")
    assert "Usage: sparsebert" in error


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_says_how_to_go_on(work: Path) -> None:
    out = work / "stopped"
    options = ["--task", "custom", "--data", work / "data", "--epochs", 400, "--batch-size", 8]
    command = [sys.executable, "-m", "sparsebert", "finetune", work / "sparse", out, *options]
    # Its parents may ignore SIGINT, as jobs in a shell's background do, and it would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("fine-tuning: "):
                break
        time.sleep(0.5)  # some steps into the 3,200
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
    assert running.returncode == 130, told
    assert "the same command with --resume" in told
    assert "Traceback" not in told
    assert not out.exists()
    assert list((work / "stopped.training").glob("checkpoint-*"))
