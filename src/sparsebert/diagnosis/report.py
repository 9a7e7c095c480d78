"""All checks of one diagnosis, as lines for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sparsebert.diagnosis.finding import SHOWN, SHOWN_OF_NOTE, Check, Finding, Severity, plural
from sparsebert.extras import data_frame

if TYPE_CHECKING:
    import pandas as pd

SIGNS = {None: "✓", Severity.NOTE: "·", Severity.WARNING: "!", Severity.ERROR: "✗"}
WORDS = {None: "ok", Severity.NOTE: "note", Severity.WARNING: "warning", Severity.ERROR: "ERROR"}
_SKIPPED = "-", "skipped"


@dataclass(frozen=True)
class Report:
    """What `diagnose` found. ``subject`` is the model and ``data`` the data that it was given."""

    subject: str | None
    data: str | None
    task: str | None
    checks: tuple[Check, ...]

    @property
    def findings(self) -> list[Finding]:
        """Those of all checks, in their order."""
        return [finding for check in self.checks for finding in check.findings]

    def count(self, severity: Severity) -> int:
        """Findings of this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether no error was found; warnings and notes do not make a model unfit."""
        return not self.count(Severity.ERROR)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "subject": self.subject,
            "data": self.data,
            "task": self.task,
            "healthy": self.healthy,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "checks": [check.to_dict() for check in self.checks],
        }

    def to_pandas(self) -> pd.DataFrame:
        """One line a finding; needs [notebook]."""
        return data_frame(
            {"group": check.group, "check": check.name, **finding.to_dict()}
            for check in self.checks
            for finding in check.findings
        )

    def _repr_markdown_(self) -> str:
        listing = "\n".join(self.lines(signs=True))
        return f"```text\n{listing}\n```"

    def lines(self, *, signs: bool) -> Iterator[str]:
        """The listing for people: ``signs`` (✓ · ! ✗) for a terminal, else words."""
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
        """The last line: how many findings, and where each is explained."""
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
