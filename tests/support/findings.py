"""Reading a diagnosis in tests."""

from __future__ import annotations

from collections.abc import Iterable

from sparsebert.diagnosis import Check, Finding, Report


def by_kind(found: Report | Iterable[Check]) -> dict[str, Finding]:
    """The findings by their kind; a kind that was found more than once is a fault of the test."""
    checks = found.checks if isinstance(found, Report) else tuple(found)
    findings = [finding for check in checks for finding in check.findings]
    kinds = {finding.kind: finding for finding in findings}
    assert len(kinds) == len(findings), [finding.kind for finding in findings]
    return kinds


def the_check(found: Report | Iterable[Check], name: str) -> Check:
    """The only check of this name."""
    checks = found.checks if isinstance(found, Report) else tuple(found)
    (check,) = [check for check in checks if check.name == name]
    return check
