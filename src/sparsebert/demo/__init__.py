"""The whole workflow on a real model and real sentences, in minutes, with a report."""

from sparsebert.demo.report import render_report as render_report
from sparsebert.demo.result import summarise as summarise
from sparsebert.demo.run import Settings as Settings
from sparsebert.demo.run import run_demo as run_demo

__all__ = ["Settings", "render_report", "run_demo", "summarise"]
