"""How long distillation will take on this machine, from a few steps measured beforehand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsebert.checkpoint import Checkpoint, Head
from sparsebert.inference import Model
from sparsebert.inference.texts import as_texts
from sparsebert.tasks.texts import Text

_BATCH = 32
_SECONDS, _FEWEST_STEPS, _MOST_STEPS = 20.0, 4, 24  # the first step warms up and is not counted


@dataclass(frozen=True)
class Pace:
    """Seconds per training example: of work, as on an idle machine, and by the clock."""

    work: float
    clock: float


def measure_pace(checkpoint: Checkpoint, model: Model, texts: Sequence[Text], length: int) -> Pace:
    """One training example: teacher forward, student forward and backward, and the optimiser.

    ``model`` tokenises the texts, which are cut to ``length`` tokens. Batches are random choices of
    ``texts``, as many as fit into 20 seconds, but from 4 to 24. Work is processor time divided by
    torch's threads, so that other load on the machine does not lead to a worse model.
    """
    import torch

    from sparsebert.tasks.tokens import TokenRows
    from sparsebert.torch_models import model_inputs, padded_batch
    from sparsebert.training.cpu import autocast, choose_attention, resolve_precision
    from sparsebert.training.upstream.run import encoder_model

    random = np.random.RandomState(0)
    student: Any = encoder_model(checkpoint, 0)
    if checkpoint.config.head is Head.MASKED_LM:  # few tokens go through this head
        student = student.base_model
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0)
    precision = resolve_precision("auto")
    busy: list[float] = []
    clock: list[float] = []
    threads = torch.get_num_threads()
    while len(clock) < _FEWEST_STEPS or (sum(clock) < _SECONDS and len(clock) < _MOST_STEPS):
        rows = random.randint(len(texts), size=_BATCH)
        tokens = model.tokenizer.encode(as_texts([texts[row] for row in rows], ""))
        batch_rows = TokenRows.of(
            [each.ids[:length].tolist() for each in tokens],
            [each.type_ids[:length].tolist() for each in tokens],
        )
        choose_attention(student, batch_rows.lengths)
        began, worked = time.perf_counter(), time.process_time()
        with autocast(precision):
            inputs = model_inputs(student, padded_batch(batch_rows, np.arange(_BATCH)))
            with torch.no_grad():
                student(**inputs)
            output = student(**inputs)
            states = output[0]
        states.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        busy.append((time.process_time() - worked) / threads)
        clock.append(time.perf_counter() - began)
    return Pace(*(statistics.fmean(each[1:]) / _BATCH for each in (busy, clock)))
