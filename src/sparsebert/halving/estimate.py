"""How long distillation will take here: a few steps measured, before it starts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from sparsebert.checkpoint import Checkpoint
from sparsebert.inference import Model
from sparsebert.inference.texts import as_texts
from sparsebert.tasks.texts import Text

_BATCH = 32
_STEPS = 4  # the first warms up


def seconds_a_row(
    checkpoint: Checkpoint, model: Model, texts: Sequence[Text], length: int
) -> float:
    """Seconds of one training example: teacher forward, student forward and backward.

    ``model`` reads the texts, cut to ``length`` tokens. An optimiser's step is left out, which
    takes a tenth for small models. Measured on random choices of ``texts``, median of three.
    """
    import torch

    from sparsebert.tasks.tokens import TokenRows
    from sparsebert.torch_models import model_inputs, padded_batch
    from sparsebert.training.cpu import autocast, choose_attention, resolve_precision
    from sparsebert.training.upstream.run import encoder_model

    random = np.random.RandomState(0)
    times = []
    student = encoder_model(checkpoint, 0)
    precision = resolve_precision("auto")
    for _ in range(_STEPS):
        rows = random.randint(len(texts), size=_BATCH)
        tokens = model.tokenizer.encode(as_texts([texts[row] for row in rows], ""))
        batch_rows = TokenRows.of(
            [each.ids[:length].tolist() for each in tokens],
            [each.type_ids[:length].tolist() for each in tokens],
        )
        choose_attention(student, batch_rows.lengths)
        began = time.perf_counter()
        with autocast(precision):
            inputs = model_inputs(student, padded_batch(batch_rows, np.arange(_BATCH)))
            with torch.no_grad():
                student(**inputs)
            output = student(**inputs)
            states = output[0]
        states.float().square().mean().backward()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) / _BATCH
