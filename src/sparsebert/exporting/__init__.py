"""Sparse models for other engines: ONNX, OpenVINO, and 2:4 tensors of torch on NVIDIA GPUs."""

from __future__ import annotations

from sparsebert.exporting.export_folder import TARGETS, ExportResult, export
from sparsebert.exporting.semi_structured import load_torch_2to4

__all__ = ["TARGETS", "ExportResult", "export", "load_torch_2to4"]
