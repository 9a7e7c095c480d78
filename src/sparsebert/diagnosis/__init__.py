"""What is wrong with a model, its training or its data, and what to do: `sparsebert doctor`."""

from __future__ import annotations

from sparsebert.diagnosis.doctor import diagnose
from sparsebert.diagnosis.report import Check, Finding, Report, Severity
from sparsebert.diagnosis.system import describe_system

__all__ = ["Check", "Finding", "Report", "Severity", "describe_system", "diagnose"]
