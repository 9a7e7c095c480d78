"""What a teacher says of every training row: its logits, and how much its hidden states vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sparsebert.errors import TrainingError
from sparsebert.evaluation.predictors import model_inputs, padded_batch
from sparsebert.progress import Progress
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """A teacher's logits on a training set.

    ``logits`` is float32 ``[rows, labels]`` (``[rows, 1]`` for a regression), or ``[tokens, 2]``
    for question answering: start and end of all rows' tokens, end to end as ``offsets`` (int64
    ``[rows + 1]``) says. ``hidden_variance`` is float64 ``[layers]``: of each layer's output, the
    variance over all tokens of the training set, averaged over the features.
    """

    logits: npt.NDArray[np.float32]
    hidden_variance: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64] | None = None

    def batch(self, rows: torch.Tensor, tokens: int) -> torch.Tensor:
        """Logits of some rows (int64 ``[batch]``), on their device.

        float32 ``[batch, labels]``, or ``[batch, tokens, 2]`` with zeros where a row has ended.
        """
        chosen = rows.cpu().numpy()
        if self.offsets is None:
            return torch.from_numpy(self.logits[chosen]).to(rows.device)
        padded = np.zeros((len(chosen), tokens, 2), np.float32)
        for place, row in enumerate(chosen):
            of_row = self.logits[self.offsets[row] : self.offsets[row + 1]]
            padded[place, : len(of_row)] = of_row
        return torch.from_numpy(padded).to(rows.device)

    def with_columns(self, columns: Sequence[int] | npt.NDArray[np.int64]) -> TeacherOutputs:
        """The same with the labels in another order: column i is the old column ``columns[i]``."""
        return replace(self, logits=np.ascontiguousarray(self.logits[:, columns]))


def compute_outputs(
    model: PreTrainedModel,
    rows: TokenRows,
    kind: Kind,
    *,
    batch_size: int,
    progress: Progress,
) -> TeacherOutputs:
    """Run the teacher over the training set, rows of like length together.

    Other company in a batch, and so other padding, changes a logit by rounding only (about 1e-6 of
    its size in fp32). TrainingError if the teacher gives NaN or infinity.
    """
    question = kind is Kind.QUESTION
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    sums, squares = np.zeros((2, layers, width))
    logits: npt.NDArray[np.float32] | None = None
    model.eval()
    order = np.argsort(-rows.lengths, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chunk = order[start : start + batch_size]
            batch = padded_batch(rows, chunk, model.device)
            output = model(**model_inputs(model, batch), output_hidden_states=True)
            real = batch["attention_mask"].bool()
            for layer, states in enumerate(output.hidden_states[1:]):
                states = states[real].double()
                sums[layer] += states.sum(0).cpu().numpy()
                squares[layer] += states.square().sum(0).cpu().numpy()
            if question:
                found = torch.stack((output.start_logits, output.end_logits), dim=-1)
            else:
                found = output.logits
            values = found.float().cpu().numpy()
            if logits is None:
                count = rows.offsets[-1] if question else len(rows)
                logits = np.empty((count, values.shape[-1]), np.float32)
            for place, row in enumerate(chunk):
                if question:
                    begin, end = rows.offsets[row], rows.offsets[row + 1]
                    logits[begin:end] = values[place, : end - begin]
                else:
                    logits[row] = values[place]
            progress("asking the teacher", start + len(chunk), len(rows))
    assert logits is not None
    if not np.isfinite(logits).all():
        raise TrainingError("the teacher gives NaN or infinity on the training rows.")
    means = sums / rows.offsets[-1]
    variance = (squares / rows.offsets[-1] - means**2).mean(1)
    return TeacherOutputs(logits, variance, rows.offsets if question else None)
