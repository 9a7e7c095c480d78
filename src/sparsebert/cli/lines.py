"""What `embed`, `classify` and `answer` share: lines in, JSON lines out, in order and streaming.

Input is read as it arrives, in chunks of a bounded size: a million lines take no more memory than
a few hundred, and one line written into a pipe is answered at once. A line that cannot be used
becomes ``{"line": number, "error": reason}``; the others are unaffected.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from sparsebert.cli.console import progress_bar, stderr, write_json
from sparsebert.errors import InputError
from sparsebert.options import Options, option
from sparsebert.progress import Progress, silent

if TYPE_CHECKING:
    from sparsebert.inference.answer_each import Work

_BLOCK = 1 << 16  # bytes per read; a pipe returns what it has
_CHUNK = 512  # maximum number of lines processed together


Format = Literal["auto", "text", "tsv", "jsonl"]
InputOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="File of lines to read.",
        show_default="standard input",
        exists=True,
        dir_okay=False,
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help='text: each line is a text. tsv: a pair, separated by a tab. jsonl: {"text": ...}, '
        'with "text_pair" for a pair. auto: detected from the first line.',
    ),
]
SingleFormat = Literal["auto", "text", "jsonl"]
SingleFormatOption = Annotated[
    SingleFormat,
    typer.Option(
        "--format",
        help='text: each line is a text. jsonl: {"text": ...}. auto: detected from the first line.',
    ),
]
JsonLinesOption = Annotated[
    bool,
    typer.Option("--json", help="Accepted, but has no effect: the output is always JSON lines."),
]


@dataclass(frozen=True)
class InferenceOptions(Options):
    """How the engine takes texts, declared for the command line: the defaults are `Model`'s."""

    batch_size: int = option(32, least=1, help="Texts that the engine takes at once.")
    max_length: int | None = option(
        None,
        least=1,
        help="Maximum tokens per text, special tokens included.",
        shown_default="the model's own",
    )
    strict: bool = option(
        False, help="Treat a text that is too long as an error instead of truncating it."
    )
    threads: int | None = option(
        None, least=1, help="CPU threads of the engine.", shown_default="all cores"
    )
    compute: str | None = option(
        None,
        metavar="NAME",
        help="bf16: multiply in bf16 in the linear layers of models that are not int8.",
        shown_default="int8 if the model is packed so, else fp32",
    )


Parse = Callable[[str], Any]
"""A line to an item; raises InputError."""


@dataclass
class Line:
    """One line of input: the item parsed from it, and its result or the error."""

    number: int
    item: Any = None
    result: Any = None
    error: str | None = None


class LineWorker:
    """Runs `Work` over lines and counts the lines that failed or were truncated.

    ``parser`` takes the first line that is not blank and returns the function that parses all.
    """

    def __init__(
        self, parser: Callable[[str], Parse], work: Work, progress: Progress, label: str
    ) -> None:
        self.lines = self.failed = 0
        self._parser = parser
        self._parse: Parse | None = None
        self._work = work
        # On a terminal the results themselves show the progress, and a bar would break them up.
        self._progress = silent if sys.stdout.isatty() else progress
        self._label = label
        self._cut = self._first_cut = self._limit = 0

    def run(self, stream: io.BufferedIOBase) -> Iterator[list[Line]]:
        """The lines of ``stream`` with their results, chunk after chunk."""
        for chunk in _chunks(stream):
            lines = [self._read(raw) for raw in chunk]
            self._answer([line for line in lines if line.error is None])
            self.failed += sum(line.error is not None for line in lines)
            yield lines
            self._progress(self._label, self.lines, 0)

    def finish(self) -> None:
        """`report`; exit code 1 if a line failed."""
        self.report()
        if self.failed:
            raise typer.Exit(1)

    def report(self) -> None:
        """Print to standard error how many lines were truncated and how many failed."""
        if self._cut:
            lines = "1 line was" if self._cut == 1 else f"{self._cut} lines were"
            stderr.print(
                f"warning: {lines} longer than {self._limit} tokens and truncated; the first is "
                f"line {self._first_cut}.",
                markup=False,
            )
        if self.failed:
            stderr.print(f"error: {self.failed} of {self.lines} lines failed.", markup=False)

    def _read(self, raw: bytes) -> Line:
        self.lines += 1
        line = Line(self.lines)
        try:
            text = raw.decode("utf-8-sig" if self.lines == 1 else "utf-8").rstrip("\r")
            parse = self._parse or self._parser(text)
            if text.strip():  # a blank line does not show the format of the others
                self._parse = parse
            line.item = parse(text)
        except UnicodeDecodeError as error:
            line.error = f"the line is not UTF-8 text: byte {error.start} is invalid."
        except InputError as error:
            line.error = str(error)
        return line

    def _answer(self, lines: Sequence[Line]) -> None:
        """Put its result or error into each line."""
        from sparsebert.inference.answer_each import answer_each

        answers = answer_each([line.item for line in lines], self._work)
        for index, line in enumerate(lines):
            line.result, line.error = answers.results[index], answers.errors.get(index)
        if answers.truncated:
            self._first_cut = self._first_cut or lines[answers.first_truncated].number
            self._cut += answers.truncated
            self._limit = answers.limit


def run_lines(
    file: Path | None,
    parser: Callable[[str], Parse],
    work: Work,
    label: str,
    write: Callable[[Sequence[Line]], None],
) -> LineWorker:
    """Read, answer and write every line of ``file``, or of standard input."""
    with progress_bar() as progress, opened(file) as stream:
        worker = LineWorker(parser, work, progress, label)
        for lines in worker.run(stream):
            write(lines)
    return worker


@contextmanager
def opened(file: Path | None) -> Iterator[io.BufferedIOBase]:
    """The input as bytes: a file, or standard input, which stays open."""
    if file is None:
        yield cast(io.BufferedIOBase, sys.stdin.buffer)
        return
    with file.open("rb") as stream:
        yield stream


def write_json_lines(lines: Sequence[Line], *, to_json: Callable[[Any], str]) -> None:
    """One line of JSON for each line of input; ``to_json`` serialises a result."""
    if lines:
        write_json(
            "\n".join(
                to_json(line.result) if line.error is None else _error(line) for line in lines
            )
        )


def as_json(result: Any) -> str:
    """One line of JSON."""
    return json.dumps(result, ensure_ascii=False, allow_nan=False)


def text_parser(chosen: Format, first: str, *, pairs: bool) -> Parse:
    """The parser of lines with texts or pairs; ``auto`` detects the format from the first line.

    Without ``pairs`` a tab is part of the text, unless the format is ``tsv``.
    """
    if chosen == "auto":
        if _is_object(first):
            chosen = "jsonl"
        else:
            chosen = "tsv" if pairs and first.count("\t") == 1 else "text"
    return {"text": _parse_text, "tsv": _parse_pair, "jsonl": _parse_object}[chosen]


def parse_json_object(line: str) -> dict[str, Any]:
    """The line's JSON object, or InputError."""
    from sparsebert.checkpoint.json_files import parse_json

    try:
        found = parse_json(line)
    except ValueError as error:
        raise InputError(f"the line is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError("the line's JSON is not an object.")
    return found


def _parse_text(line: str) -> Any:
    from sparsebert.inference.texts import as_texts

    return as_texts(line).items[0]


def _parse_pair(line: str) -> Any:
    from sparsebert.inference.texts import as_texts

    parts = line.split("\t")
    if len(parts) != 2:
        raise InputError(f"the line has {len(parts) - 1} tabs: a pair of texts has one.")
    return as_texts((parts[0], parts[1])).items[0]


def _parse_object(line: str) -> Any:
    from sparsebert.inference.texts import as_string

    found = parse_json_object(line)
    if "text" not in found:
        raise InputError('the line\'s JSON has no "text".')
    text = as_string(found["text"], '"text"')
    if found.get("text_pair") is None:
        return text
    return text, as_string(found["text_pair"], '"text_pair"')


def _is_object(line: str) -> bool:
    try:
        parse_json_object(line)
    except InputError:
        return False
    return True


def _chunks(stream: io.BufferedIOBase) -> Iterator[list[bytes]]:
    """Lines without their ends, as many at a time as have arrived, up to `_CHUNK`."""
    begun: list[bytes] = []  # parts of a line whose end has not been read yet
    while block := stream.read1(_BLOCK):
        first, *others = block.split(b"\n")
        begun.append(first)
        if not others:
            continue
        lines = [b"".join(begun), *others[:-1]]
        begun = [others[-1]]
        for start in range(0, len(lines), _CHUNK):
            yield lines[start : start + _CHUNK]
    last = b"".join(begun)
    if last:
        yield [last]


def _error(line: Line) -> str:
    return as_json({"line": line.number, "error": line.error})
