"""Which layers of a sparse model lose what the dense one had.

    python runs/layers.py task-dense task-sparse data/rte --task rte

One linear layer of the sparse model at a time gets the dense weight and bias back, and the split is
answered again. The measure is D, the mean squared difference of the two models' logits: the table
shows by what percentage D falls (negative if the other layers had adapted to this layer's error).
It also has the error of the hidden states after each encoder layer,
100 |sparse - dense|^2 / |dense|^2 over all tokens, and the score with the whole encoder layer
dense. The line above the table has both scores, D and, for classification, the percentage of rows
on which the two models agree, and the mean over the rows of the divergence sum p log(p / q) of
dense's probabilities p from sparse's q. The two models must have the same shape: a model fine-tuned
on the task, and what it became by pruning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import kl_div

from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.architecture import expected_shapes, layer_linears
from sparsebert.errors import CheckpointError, SparsebertError
from sparsebert.evaluation.evaluator import match_labels
from sparsebert.evaluation.predictors import TorchPredictor
from sparsebert.evaluation.scored_rows import example_length, text_limit
from sparsebert.evaluation.scoring import PreparedSplit
from sparsebert.tasks.examples import load_split, validation_splits
from sparsebert.tasks.table import TASK_NAMES, Kind, get_task
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.torch_models import (
    canonical_parameters,
    load_torch_model,
    model_inputs,
    padded_batch,
)

BATCH = 32


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path, help="the dense model, fine-tuned on the task")
    parser.add_argument("sparse", type=Path, help="the sparse model made from it")
    parser.add_argument("data", type=Path, help="the task's data; its validation split is read")
    parser.add_argument("--task", required=True, choices=TASK_NAMES)
    parser.add_argument("--max-rows", type=int, help="use a fixed selection of this many rows")
    asked = parser.parse_args(arguments)
    try:
        comparison = Comparison(asked)
        print(comparison.summary, flush=True)
        print(f"\n{comparison.as_markdown()}")
    except SparsebertError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class Answering(TorchPredictor):
    """A model in torch that keeps its last answers."""

    answers: np.ndarray  # the logits of all rows, concatenated

    def predict(self, *given: Any) -> Any:
        found = super().predict(*given)
        self.answers = np.concatenate([np.ravel(row) for row in found])
        return found


class Comparison:
    """A dense and a sparse model on the rows of one split."""

    def __init__(self, asked: argparse.Namespace) -> None:
        task = get_task(asked.task)
        dense, sparse = open_checkpoint(asked.dense), open_checkpoint(asked.sparse)
        config = sparse.config
        if expected_shapes(dense.config) != expected_shapes(config):
            raise CheckpointError(f"{asked.dense} and {asked.sparse} differ in shape.")
        if dense.config.labels != config.labels:
            raise CheckpointError(
                f"{asked.dense} and {asked.sparse} differ in their labels or label order."
            )
        self.order, _ = match_labels(task, config, str(asked.sparse))
        split = validation_splits(task, asked.data)[0]
        self.split = PreparedSplit.make(
            load_split(task, asked.data, split, max_rows=asked.max_rows),
            load_tokenizer(sparse.transformer),
            example_length(task, config, text_limit(sparse)),
        )
        self.linears = [name for name, _, _ in layer_linears(config)]
        self.layers = config.num_hidden_layers
        self.models = [load_torch_model(each.path) for each in (dense, sparse)]
        self.weights, self.to_write = map(canonical_parameters, self.models)
        self.dense, self.sparse = (Answering(model, BATCH) for model in self.models)
        scores = [self.score(each) for each in (self.dense, self.sparse)]
        self.distance = self.distance_now()
        if not self.distance:
            raise CheckpointError(f"{asked.dense} and {asked.sparse} give the same answers.")
        self.summary = f"{task.title}: dense {scores[0]}, sparse {scores[1]}, D {self.distance:.4g}"
        if task.kind is Kind.CLASSIFICATION:
            self.summary += self.agreement(len(config.labels))

    def as_markdown(self) -> str:
        columns = ["layer", "error after it", *self.linears, "all of it", "score then"]
        errors = [f"{error:.2f}" for error in self.hidden_errors()]
        blank = [""] * len(self.linears)
        rows = [["embeddings", errors[0], *blank, *self.with_dense("embeddings.")]]
        for number in range(self.layers):
            layer = f"encoder.layer.{number}."
            each = [self.with_dense(f"{layer}{name}.")[0] for name in self.linears]
            rows.append([f"{number}", errors[number + 1], *each, *self.with_dense(layer)])
        rows.append(
            ["the rest", "", *blank, *self.with_dense(but=("embeddings.", "encoder.layer."))]
        )
        lines = (columns, ["---"] * len(columns), *rows)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def score(self, model: Answering) -> str:
        values = self.split.score(model, self.order).values
        return " / ".join(f"{value:.1f}" for value in values.values())

    def distance_now(self) -> float:
        return float(np.mean((self.sparse.answers - self.dense.answers) ** 2))

    def agreement(self, labels: int) -> str:
        dense, sparse = (
            torch.from_numpy(each.answers).view(-1, labels).log_softmax(dim=1)
            for each in (self.dense, self.sparse)
        )
        same = (dense.argmax(dim=1) == sparse.argmax(dim=1)).float().mean()
        divergence = kl_div(sparse, dense, reduction="batchmean", log_target=True)
        return f", agreement {100 * float(same):.1f}, divergence {float(divergence):.3f}"

    def with_dense(self, prefix: str = "", but: tuple[str, ...] = ()) -> tuple[str, str]:
        """By what percentage D falls, and the score, if the weights with this prefix are dense."""
        chosen = [n for n in self.to_write if n.startswith(prefix) and not n.startswith(but)]
        kept = {name: self.to_write[name].detach().clone() for name in chosen}
        self.write(self.weights, chosen)
        score = self.score(self.sparse)
        self.write(kept, chosen)
        return f"{100 * (1 - self.distance_now() / self.distance):.1f}", score

    def write(self, values: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
        with torch.no_grad():
            for name in names:
                self.to_write[name].copy_(values[name])

    def hidden_errors(self) -> list[float]:
        """The errors of the embeddings and of each layer, in percent, over all tokens."""
        rows = self.split.rows
        sums = np.zeros((2, self.layers + 1))
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                batch = padded_batch(rows, np.arange(start, min(start + BATCH, len(rows))))
                real = batch["attention_mask"].bool()
                dense, sparse = (
                    each(**model_inputs(each, batch), output_hidden_states=True).hidden_states
                    for each in self.models
                )
                for layer, (wanted, found) in enumerate(zip(dense, sparse, strict=True)):
                    sums[:, layer] += (
                        float((found - wanted)[real].square().sum()),
                        float(wanted[real].square().sum()),
                    )
        return list(100 * sums[0] / sums[1])


if __name__ == "__main__":
    sys.exit(main())
