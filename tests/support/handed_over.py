"""What `sparsebert.engine` hands to the compiled module for a small BERT, before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from bert_folders import bert_config, bert_tensors
from sparsebert import _engine
from sparsebert import engine as face
from sparsebert.checkpoint.config import parse_config
from sparsebert.quantized import QuantizedDense, QuantizedTable, quantize


class HandedOver:
    """Settings and arrays, of which a test changes something, and the module's own encoder."""

    def __init__(self, *, int8: bool, head: str = "encoder") -> None:
        raw = bert_config(head)
        weights: dict[str, Any] = {
            name.removeprefix("bert."): value
            for name, value in bert_tensors(raw, head, seed=3).items()
        }
        config = parse_config(raw, list(weights), Path("config.json"))
        if int8:
            for name, value in weights.items():
                if value.ndim == 2 and not name.startswith("classifier"):
                    kind = QuantizedTable if "embeddings." in name else QuantizedDense
                    weights[name] = quantize(value, kind)
        with mock.patch.object(face._engine, "Encoder") as encoder:
            self.hidden_size = face.Encoder(config, weights, threads=1).hidden_size
        self.settings, self.arrays, _, self.set, self.compute = encoder.call_args.args

    def load(self) -> Any:
        return _engine.Encoder(self.settings, self.arrays, 1, self.set, self.compute)
