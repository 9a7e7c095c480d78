"""What a check found: kinds of trouble, single findings, and the check they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import islice
from typing import Any

SHOWN = 5  # examples of a finding that people are shown; programs get them all
SHOWN_OF_NOTE = 2
_KEPT = 1000  # examples of a finding at most


class Severity(str, Enum):
    """An error makes a result wrong or stops the work; a warning may; a note is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One trouble.

    ``kind`` is its entry in docs/troubleshooting.md; ``where`` is a folder, a file or a split, and
    ``what`` a sentence; ``count`` of ``total`` things have it (None where nothing is counted),
    ``examples`` name the first of them; ``remedy`` says what to do.
    """

    kind: str
    severity: Severity
    where: str
    what: str
    remedy: str
    count: int | None = None
    total: int | None = None
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "severity": self.severity.value, "examples": list(self.examples)}


@dataclass(frozen=True)
class Kind:
    """A kind of trouble: its name in docs/troubleshooting.md, how bad it is, and what to do."""

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
    ) -> Finding:
        """A finding of this kind; a ``minor`` one, too small to matter, is a note."""
        kept = tuple(islice(examples, _KEPT))
        severity = Severity.NOTE if minor else self.severity
        remedy = "so few hardly matter." if minor else self.remedy
        return Finding(self.name, severity, str(where), what, remedy, count, total, kept)


@dataclass(frozen=True)
class Check:
    """One look at one thing. ``seen`` says what was looked at, and what was seen where all is well.

    ``skipped`` says why nothing could be looked at; a check that was skipped has no findings.
    """

    group: str
    name: str
    seen: str
    findings: tuple[Finding, ...] = ()
    skipped: bool = False

    @classmethod
    def of(cls, group: str, name: str, seen: str, findings: Sequence[Finding | None]) -> Check:
        """A check that took place; None among ``findings`` is no finding."""
        return cls(group, name, seen, tuple(each for each in findings if each is not None))

    @classmethod
    def skip(cls, group: str, name: str, why: str) -> Check:
        """A check that could not take place."""
        return cls(group, name, why, skipped=True)

    @property
    def severity(self) -> Severity | None:
        """That of the worst finding; None without any."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in Severity if severity in found), None)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        findings = [finding.to_dict() for finding in self.findings]
        return {**asdict(self), "findings": findings}


def share(count: int, total: int) -> str:
    """``count`` of ``total`` in words, such as ``1,203 of 67,349 (1.8 %)``."""
    percent = 100 * count / total if total else 0.0
    shown = f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{count:,} of {total:,} ({shown} %)"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
