"""What the documentation and messages show is there: commands, options, Python names and files."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import sparsebert
from checkout import CHECKOUT
from sparsebert.cli.app import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FLAGS = {
    name: {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    for name, command in COMMANDS.items()
}
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
SOURCES = sorted((CHECKOUT / "src" / "sparsebert").rglob("*.py"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of the languages."""
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield block


def spans(file: Path) -> Iterator[str]:
    """What stands between backticks outside fenced blocks, on one line each."""
    text = FENCED.sub("", file.read_text(encoding="utf-8"))
    for span in re.findall(r"`([^`]+)`", text):
        yield re.sub(r"\s+(# )?", " ", span)


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `sparsebert` in a shell's text, without redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        if "sparsebert" not in line:
            continue
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                while words and re.match(r"\w+=", words[0]):  # variables
                    del words[0]
                if words[:1] == ["sparsebert"] or ["-m", "sparsebert"] in [
                    words[at : at + 2] for at in range(len(words))
                ]:
                    yield words[words.index("sparsebert") + 1 :]
                words = []
            else:
                words.append(word)


def parse(arguments: list[str]) -> None:
    """Parse them as `sparsebert` does, without running the command."""
    name, *rest = arguments
    while "<" in rest or ">" in rest:
        place = next(index for index, word in enumerate(rest) if set(word) <= set("<>"))
        del rest[place : place + 2]
    COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_can_be_typed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "sh", ""):
        for arguments in commands(block):
            for word in arguments:
                if re.fullmatch(r"[\w-]+\.(txt|jsonl)", word):  # some options want a file
                    (tmp_path / word).touch()
            parse([word for word in arguments if word != "..."])


def test_commands_and_options_in_prose_exist() -> None:
    """Also those in messages and docstrings; arguments may be left out there."""
    wrong = []
    for file in [*PAGES, *SOURCES]:
        for span in spans(file):
            name = span.removeprefix("sparsebert ").partition(" ")[0]
            given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span))
            if name in COMMANDS:
                unknown = not given <= {*FLAGS[name], "--help"}
            else:
                unknown = span.startswith("sparsebert ") and name.isalpha() and name.islower()
            if unknown:
                wrong.append((file.name, span))
    assert wrong == []


def called(block: str) -> Iterator[tuple[ast.Call, Any]]:
    """The calls of our functions and classes in a Python block, each with what is called."""
    tree = ast.parse(block)
    names: dict[str, Any] = {"sb": sparsebert, "sparsebert": sparsebert}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sparsebert"):
            module = importlib.import_module(str(node.module))
            names |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in names:
            yield node, names[function.id]
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            owner = function.value.id
            if owner in ("sb", "sparsebert"):
                yield node, getattr(sparsebert, function.attr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_names_what_is_there(page: Path) -> None:
    for module in ("torch", "transformers", "sentence_transformers", "langchain_core", "ray"):
        pytest.importorskip(module)
    pytest.importorskip("llama_index.core")
    for block in blocks(page, "python"):
        for call, function in called(block):
            keywords = {each.arg: None for each in call.keywords if each.arg}
            inspect.signature(function).bind(*call.args, **keywords)


NAMED = re.compile(
    r"(?<![\w/.-])((?:tests|scripts|src|benchmarks|requirements|docs|runs)/[\w./-]*\.(?:\w*[a-z]))"
)


def tracked() -> list[str]:
    """The files of the checkout, by git."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("git is not installed: with it, the checkout's files are looked through")
    if done.returncode:
        pytest.skip("not a git checkout: in one, its files are looked through")
    return done.stdout.splitlines()


def test_files_that_are_named_exist() -> None:
    wrong = []
    for name in tracked():
        if name.startswith(("tests/hostile/", "tests/table/")) or name.endswith((".svg", ".json")):
            continue
        try:
            text = (CHECKOUT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        wrong += [(name, to) for to in NAMED.findall(text) if not (CHECKOUT / to).exists()]
    assert wrong == []


def test_what_git_ignores_is_not_in_the_checkout() -> None:
    tracked()
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
