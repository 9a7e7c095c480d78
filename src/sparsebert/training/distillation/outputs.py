"""A teacher's outputs on the training examples: logits, and the variance of its hidden states.

They are cached on disk, so that the next seed, recipe or resumed run need not run the teacher
again. The cache is not part of a result and may be deleted. It is in ``sparsebert/teacher-outputs``
under ``$XDG_CACHE_HOME`` (``~/.cache``), or in ``teacher-outputs`` under ``$SPARSEBERT_CACHE`` if
that is set. A file's name is a hash of everything that its numbers depend on (the teacher's config
and weights, the tokenised examples and the number type), so runs into different folders share it,
and nothing stale is ever read. Logits take 4 bytes each: about 5 MB for MNLI's three classes,
130 MB for SQuAD's two numbers per token.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sparsebert.checkpoint import Checkpoint, TensorFiles, TensorSpec, write_tensors
from sparsebert.checkpoint.dtypes import Array
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.progress import Progress
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import model_inputs, padded_batch
from sparsebert.training.distillation.losses import head_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """A teacher's outputs on a training set.

    ``logits`` is float32 ``[examples, labels]``, or ``[examples, 1]`` for regression. An embedding
    model has its embeddings ``[texts, width]`` here. For kinds of tasks with an answer for each
    token it is ``[tokens, labels]`` (for questions, start and end), with the tokens of all examples
    concatenated at ``offsets`` (int64 ``[examples + 1]``). ``hidden_variance`` is float64
    ``[layers]``: the variance of each layer's output over all tokens of the training set, averaged
    over the features.
    """

    logits: npt.NDArray[np.float32]
    hidden_variance: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64] | None = None

    def batch(self, indices: torch.Tensor, tokens: int) -> torch.Tensor:
        """The logits of the examples at ``indices`` (int64 ``[batch]``), on their device.

        float32 ``[batch, labels]``, or ``[batch, tokens, labels]`` with zeros at padding.
        """
        chosen = indices.cpu().numpy()
        if self.offsets is None:
            return torch.from_numpy(self.logits[chosen]).to(indices.device)
        padded = np.zeros((len(chosen), tokens, self.logits.shape[1]), np.float32)
        for position, index in enumerate(chosen):
            logits = self.logits[self.offsets[index] : self.offsets[index + 1]]
            padded[position, : len(logits)] = logits
        return torch.from_numpy(padded).to(indices.device)

    def with_columns(self, columns: Sequence[int] | npt.NDArray[np.int64]) -> TeacherOutputs:
        """These outputs with reordered labels: column i is the old column ``columns[i]``."""
        return replace(self, logits=np.ascontiguousarray(self.logits[:, columns]))


Pooled = Callable[[torch.Tensor, torch.Tensor, npt.NDArray[np.int64]], torch.Tensor]
"""Maps hidden states, attention mask and the texts' indices to ``[texts, width]``."""


def compute_outputs(
    model: PreTrainedModel,
    tokens: TokenRows,
    kind: Kind,
    *,
    batch_size: int,
    progress: Progress,
    pooled: Pooled | None = None,
) -> TeacherOutputs:
    """Run the teacher over the training set, with examples of similar length in one batch.

    ``pooled`` computes the embeddings for an encoder that has no logits. How examples are batched
    and padded changes logits by rounding only (about 1e-6 of their size in fp32). Raises
    TrainingError if the teacher outputs NaN or infinity.
    """
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    sums, squares = np.zeros((2, layers, width))
    logits: npt.NDArray[np.float32] | None = None
    model.eval()
    order = np.argsort(-tokens.lengths, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(tokens), batch_size):
            chunk = order[start : start + batch_size]
            batch = padded_batch(tokens, chunk, model.device)
            output = model(**model_inputs(model, batch), output_hidden_states=True)
            attention_mask = batch["attention_mask"].bool()
            for layer, states in enumerate(output.hidden_states[1:]):
                states = states[attention_mask].double()
                sums[layer] += states.sum(0).cpu().numpy()
                squares[layer] += states.square().sum(0).cpu().numpy()
            if pooled is not None:
                found = pooled(output.last_hidden_state, batch["attention_mask"], chunk)
            else:
                found = head_logits(output, kind)
            values = found.float().cpu().numpy()
            if logits is None:
                count = tokens.offsets[-1] if kind.per_token else len(tokens)
                logits = np.empty((count, values.shape[-1]), np.float32)
            for position, index in enumerate(chunk):
                if kind.per_token:
                    begin, end = tokens.offsets[index], tokens.offsets[index + 1]
                    logits[begin:end] = values[position, : end - begin]
                else:
                    logits[index] = values[position]
            progress("asking the teacher", start + len(chunk), len(tokens))
    assert logits is not None
    if not np.isfinite(logits).all():
        raise TrainingError("the teacher outputs NaN or infinity on the training rows.")
    means = sums / tokens.offsets[-1]
    variance = (squares / tokens.offsets[-1] - means**2).mean(1)
    return TeacherOutputs(logits, variance, tokens.offsets if kind.per_token else None)


_KEY = "sparsebert"
_VERSION = 1


def cache_folder() -> Path:
    """Where the files stand; it need not exist."""
    ours = os.environ.get("SPARSEBERT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparsebert"
    return (Path(ours).expanduser() if ours else base) / "teacher-outputs"


def outputs_key(
    teacher: Checkpoint, tokens: TokenRows, number_type: str, pooling: bytes = b""
) -> str:
    """SHA-256 of all that a teacher's outputs depend on: its model, the tokens, the number type.

    For an embedding model, also of its ``pooling``, in any form that distinguishes it from others.
    """
    digest = hashlib.sha256(f"{_VERSION} {number_type} ".encode())
    digest.update(pooling)
    digest.update(json.dumps(teacher.config.raw, sort_keys=True).encode())
    for name in sorted(teacher.tensors):
        digest.update(f"{name} {teacher.tensors.spec(name)}".encode())
        digest.update(np.ascontiguousarray(teacher.tensors[name]).view(np.uint8).data)
    for array in (tokens.offsets, tokens.ids, tokens.type_ids):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def cached_outputs(
    key: str, kind: Kind, tokens: TokenRows, compute: Callable[[], TeacherOutputs]
) -> TeacherOutputs:
    """The outputs under ``key``; computed and cached if they are not there, or damaged.

    If they cannot be cached (no space, no permission), they are still returned.
    """
    file = cache_folder() / f"{key}.safetensors"
    kept = _read(file, key, kind, tokens)
    if kept is not None:
        return kept
    outputs = compute()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, key, outputs)
    return outputs


def _write(file: Path, key: str, outputs: TeacherOutputs) -> None:
    arrays: dict[str, Array] = {
        "logits": outputs.logits,
        "hidden_variance": outputs.hidden_variance,
    }
    record = {
        "format_version": _VERSION,
        "kind": "teacher-outputs",
        "key": key,
        "sha256": {name: _digest(array) for name, array in arrays.items()},
    }
    specs = [
        TensorSpec("logits", "F32", outputs.logits.shape),
        TensorSpec("hidden_variance", "F64", outputs.hidden_variance.shape),
    ]
    write_tensors(file, specs, arrays.values(), {_KEY: json.dumps(record)})


def _read(file: Path, key: str, kind: Kind, tokens: TokenRows) -> TeacherOutputs | None:
    """The outputs in a file, or None if it is damaged or not the expected one."""
    if not file.is_file():
        return None
    try:
        tensors = TensorFiles([file])
        record = json.loads(tensors.metadata[_KEY])
        logits, variance = tensors["logits"], tensors["hidden_variance"]
        sums = {"logits": _digest(logits), "hidden_variance": _digest(variance)}
        whole = record["key"] == key and record["sha256"] == sums
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None
    count = tokens.offsets[-1] if kind.per_token else len(tokens)
    fits = logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == count
    if not (whole and fits and variance.dtype == np.float64 and variance.ndim == 1):
        return None
    return TeacherOutputs(logits, variance, tokens.offsets if kind.per_token else None)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()
