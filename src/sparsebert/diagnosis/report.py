"""Kinds of problems, findings, checks, and the report of one diagnosis.

A `Problem` has its entry in docs/troubleshooting.md, a `Finding` is one occurrence of it, a `Check`
gathers the findings about one thing, and a `Report` all checks, as text and as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from sparsebert.extras import data_frame

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # examples of a finding in the listing; JSON has more
SHOWN_OF_NOTE = 2
_KEPT = 1000  # most examples of a finding


class Severity(str, Enum):
    """An error makes a result wrong or stops the work; a warning may; a note is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


SIGNS = {None: "✓", Severity.NOTE: "·", Severity.WARNING: "!", Severity.ERROR: "✗"}
WORDS = {None: "ok", Severity.NOTE: "note", Severity.WARNING: "warning", Severity.ERROR: "ERROR"}
_SKIPPED = "-", "skipped"


@dataclass(frozen=True)
class Finding:
    """One problem.

    ``kind`` is its entry in docs/troubleshooting.md; ``where`` is a folder, a file or a split,
    ``what`` describes it in a sentence and ``remedy`` says what to do; ``count`` of ``total`` items
    are affected (None where nothing is counted), of which ``examples`` name the first.
    """

    kind: str
    severity: Severity
    where: str
    what: str
    remedy: str
    count: int | None = None
    total: int | None = None
    examples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {**asdict(self), "severity": self.severity.value, "examples": list(self.examples)}


@dataclass(frozen=True)
class Problem:
    """A kind of problem: its entry in docs/troubleshooting.md, its severity and its remedy."""

    name: str
    severity: Severity
    remedy: str

    def at(
        self,
        where: object,
        what: str,
        *,
        count: int | None = None,
        total: int | None = None,
        examples: Iterable[str] = (),
        minor: bool = False,
        further: str = "",
    ) -> Finding:
        """A finding of this kind; a ``minor`` one, too small to matter, is a note.

        ``further`` is a sentence that the remedy ends with.
        """
        kept = tuple(islice(examples, _KEPT))
        severity = Severity.NOTE if minor else self.severity
        remedy = "nothing: so few hardly matter." if minor else self.remedy
        remedy = f"{remedy} {further}".rstrip()
        return Finding(self.name, severity, str(where), what, remedy, count, total, kept)

    def among(
        self,
        where: object,
        found: Collection[Any],
        total: int,
        what: str,
        example: Callable[[Any], str] = lambda row: f"row {row + 1}",
        *,
        minor: float = 0.0,
    ) -> Finding | None:
        """A finding about those ``found`` among ``total`` items; None if there are none.

        ``what`` continues their `share`, and ``example`` names one of them, by default a row by
        its index. A share below ``minor`` is too small to matter.
        """
        if not len(found):
            return None
        return self.at(
            where,
            f"{share(len(found), total)} {what}",
            count=len(found),
            total=total,
            examples=map(example, found),
            minor=len(found) < minor * total,
        )


@dataclass(frozen=True)
class Check:
    """One check of one thing. ``seen`` summarises what was examined, or why it was skipped.

    A ``skipped`` check has no findings.
    """

    group: str
    name: str
    seen: str
    findings: tuple[Finding, ...] = ()
    skipped: bool = False

    @classmethod
    def of(cls, group: str, name: str, seen: str, findings: Sequence[Finding | None]) -> Check:
        """A check that ran; None among ``findings`` is dropped."""
        return cls(group, name, seen, tuple(each for each in findings if each is not None))

    @classmethod
    def skip(cls, group: str, name: str, why: str) -> Check:
        """A check that could not run."""
        return cls(group, name, why, skipped=True)

    @property
    def severity(self) -> Severity | None:
        """The severity of the worst finding; None without findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in Severity if severity in found), None)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        findings = [finding.as_dict() for finding in self.findings]
        return {**asdict(self), "findings": findings}


@dataclass(frozen=True)
class Report:
    """What `diagnose` found. ``subject`` is the model and ``data`` the data that it was given."""

    subject: str | None
    data: str | None
    task: str | None
    checks: tuple[Check, ...]

    @property
    def findings(self) -> list[Finding]:
        """The findings of all checks, in order."""
        return [finding for check in self.checks for finding in check.findings]

    def count(self, severity: Severity) -> int:
        """The number of findings of this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether no error was found; warnings and notes do not make a model unfit."""
        return not self.count(Severity.ERROR)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "subject": self.subject,
            "data": self.data,
            "task": self.task,
            "healthy": self.healthy,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "checks": [check.as_dict() for check in self.checks],
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a finding; needs [notebook]."""
        return data_frame(
            {"group": check.group, "check": check.name, **finding.as_dict()}
            for check in self.checks
            for finding in check.findings
        )

    def _repr_markdown_(self) -> str:
        listing = "\n".join(self.lines(signs=True))
        return f"```text\n{listing}\n```"

    def lines(self, *, signs: bool) -> Iterator[str]:
        """The report as lines of text: ``signs`` (✓ · ! ✗) for a terminal, else words."""
        marks = SIGNS if signs else WORDS
        skipped = _SKIPPED[0 if signs else 1]
        width = max(map(len, (*marks.values(), skipped)))
        inner = " " * (width + 3)
        for group, checks in groupby(self.checks, key=lambda check: check.group):
            yield group
            for check in checks:
                mark = skipped if check.skipped else marks[check.severity]
                yield f"  {mark:<{width}} {check.name}: {check.seen}"
                for finding in check.findings:
                    yield from _finding(finding, marks[finding.severity], inner)
            yield ""
        yield self.summary()

    def summary(self) -> str:
        """The last line: the number of findings, and where each is explained."""
        counts = [
            plural(self.count(severity), severity.value)
            for severity in Severity
            if self.count(severity)
        ]
        looked = sum(not check.skipped for check in self.checks)
        left = len(self.checks) - looked
        said = f"{plural(looked, 'check')}: {', '.join(counts) or 'nothing wrong'}."
        if left:
            said += f" {plural(left, 'check')} skipped."
        if counts:
            said += " The names in brackets are explained in docs/troubleshooting.md."
        return said


def _finding(finding: Finding, mark: str, inner: str) -> Iterator[str]:
    yield f"{inner}{mark} {finding.where}: {finding.what} [{finding.kind}]"
    shown = SHOWN_OF_NOTE if finding.severity is Severity.NOTE else SHOWN
    for example in finding.examples[:shown]:
        yield f"{inner}    {example}"
    beyond = len(finding.examples) - shown
    if beyond > 0:
        yield f"{inner}    and {beyond:,} more (--json lists them)"
    yield f"{inner}  do: {finding.remedy}"


def share(count: int, total: int) -> str:
    """``count`` of ``total`` in words, such as ``1,203 of 67,349 (1.8 %)``."""
    percent = 100 * count / total if total else 0.0
    shown = f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{count:,} of {total:,} ({shown} %)"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
