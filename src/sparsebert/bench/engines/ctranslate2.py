"""CTranslate2, through its own converter: the encoder with its pooler, without the task's head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.bench.engines import dense_folder, not_installed, once
from sparsebert.bench.worker import Batch, Engine

_TYPES = {"fp32": "float32", "int8": "int8"}


class CTranslate2Engine(Engine):
    """One encoder with N threads; the library skips padding by itself."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self._encoder: Any = None

    def missing(self) -> str | None:
        return not_installed("ctranslate2", "torch", "transformers")

    def prepare(self, model: Path, workspace: Path) -> Path:
        import ctranslate2

        def make(folder: Path) -> None:
            _convert(dense_folder(model, workspace), folder / "model", _TYPES[self.precision])

        return once(workspace / f"ctranslate2-{ctranslate2.__version__}-{self.precision}", make)

    def start(self) -> None:
        import ctranslate2  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import ctranslate2

        self._encoder = ctranslate2.Encoder(
            str(folder / "model"),
            device="cpu",
            compute_type=_TYPES[self.precision],
            inter_threads=1,
            intra_threads=threads,
        )

    def run(self, batch: Batch) -> Any:
        from ctranslate2 import StorageView

        lengths = batch.mask.sum(axis=1).astype(np.int32)
        output = self._encoder.forward_batch(
            StorageView.from_array(batch.ids.astype(np.int32)), StorageView.from_array(lengths)
        )
        return np.array(output.last_hidden_state)

    def about(self) -> dict[str, str]:
        import ctranslate2

        return {
            "version": f"ctranslate2 {ctranslate2.__version__}",
            "settings": f"{self._encoder.compute_type}, encoder and pooler only",
        }


def _convert(source: Path, target: Path, quantisation: str) -> None:
    from ctranslate2.converters import TransformersConverter

    class Words:
        """A stand-in for a tokenizer, which the folder may lack and the engine does not use."""

        unk_token = "[UNK]"

        def __init__(self, size: int) -> None:
            self._size = size

        def get_vocab(self) -> dict[str, int]:
            return {self.unk_token: 0} | {str(word): word for word in range(1, self._size)}

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_model(self, model_class: Any, folder: str, **options: Any) -> Any:
            model = model_class.from_pretrained(folder, **options)
            # The converter reads it; transformers 5 dropped it along with all other kinds.
            model.config.position_embedding_type = "absolute"
            self._words = Words(model.config.vocab_size)
            return model

        def load_tokenizer(self, *_given: Any, **_options: Any) -> Any:
            return self._words

    Converter(str(source)).convert(str(target), quantization=quantisation)


ENGINES: dict[str, Callable[[], Engine]] = {
    f"ctranslate2-{precision}": partial(CTranslate2Engine, precision) for precision in _TYPES
}
