"""What is wrong with a model, its training or its data, and what to do: `sparsebert doctor`."""

from __future__ import annotations

from sparsebert.diagnosis.doctor import diagnose
from sparsebert.diagnosis.finding import Check, Finding, Severity
from sparsebert.diagnosis.report import Report
from sparsebert.diagnosis.system import describe_system

__all__ = ["Check", "Finding", "Report", "Severity", "describe_system", "diagnose"]
