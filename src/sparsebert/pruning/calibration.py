"""Calibration: run texts through an encoder layer by layer and prune each linear layer on the way.

One layer's weights, statistics and token vectors are in memory at a time. A linear layer sees the
inputs that the layers pruned before it produce; what it should give is what the dense model gives
on its own inputs, which are carried along beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsebert.checkpoint.config import Head
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.errors import CheckpointError
from sparsebert.pruning.bert_layer import activation, attend, embed, layer_norm, tensor
from sparsebert.pruning.calibration_rows import CalibrationRows

if TYPE_CHECKING:
    import torch

_TOKEN_HEADS = {
    Head.TOKEN: "classifier",
    Head.QUESTION: "qa_outputs",
    Head.MASKED_LM: "cls.predictions.transform.dense",
}
_TOKENS = 8192  # tokens whose intermediate vectors are in memory at once


class Linear(NamedTuple):
    """Weight ``[rows, columns]``, bias ``[rows]`` and mask (True: kept) of a linear layer."""

    weight: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.linear(inputs, self.weight, self.bias)


@dataclass
class Statistics:
    """Second moments over all tokens of one linear layer, about the means.

    ``inputs`` is ``cov(x, x)`` ``[columns, columns]`` of the inputs x that the pruned model gives
    the layer, ``targets`` is ``cov(y, x)`` ``[rows, columns]`` with the outputs y that it should
    have; ``input_mean`` ``[columns]`` and ``target_mean`` ``[rows]`` are the means.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    input_mean: torch.Tensor
    target_mean: torch.Tensor


class Pair(NamedTuple):
    """The same thing in the dense model and in the one that is pruned so far."""

    dense: Any
    pruned: Any


Inputs = Callable[[slice], Pair]
"""The inputs of a linear layer for a part of the tokens, ``[tokens, columns]``."""


class PrunedLayers:
    """The layers that `prune_layers` gives, asked for one by one in computing order.

    Only those of one encoder layer are kept.
    """

    def __init__(self, layers: Iterator[dict[str, Linear]]) -> None:
        self._layers = layers
        self._at_hand: dict[str, Linear] = {}

    def __getitem__(self, name: str) -> Linear:
        while name not in self._at_hand:
            self._at_hand = next(self._layers)
        return self._at_hand[name]


def prune_layers(
    checkpoint: Checkpoint,
    rows: CalibrationRows,
    targets: Collection[str],
    prune_linear: Callable[[Linear, Statistics], Linear],
) -> Iterator[dict[str, Linear]]:
    """Prune ``targets`` (canonical names of weights), giving the new layers by that name.

    One dict for each encoder layer as it is done, and a last one with what was asked for of the
    pooler and the head. Raises CheckpointError if activations are not finite.
    """
    config = checkpoint.config
    vectors = embed(checkpoint, rows)
    state = Pair(vectors, vectors.clone())
    for number in range(config.num_hidden_layers):
        fitting = _Fitting(checkpoint, rows, targets, prune_linear)
        _encoder_layer(fitting, f"encoder.layer.{number}", state)
        yield fitting.found
    fitting = _Fitting(checkpoint, rows, targets, prune_linear)
    if not all(name.startswith("encoder.") for name in targets):
        _pooler_and_head(fitting, state)
    yield fitting.found


class _Fitting:
    """Reads linear layers, and prunes those that are targets."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        rows: CalibrationRows,
        targets: Collection[str],
        prune_linear: Callable[[Linear, Statistics], Linear],
    ) -> None:
        self.checkpoint = checkpoint
        self.parts = list(rows.parts(_TOKENS))
        self.rows = rows
        self.found: dict[str, Linear] = {}
        self._targets = targets
        self._prune = prune_linear

    def fit(
        self,
        names: Sequence[str],
        inputs: Inputs,
        *,
        added: Pair | None = None,
        parts: Sequence[slice] | None = None,
    ) -> list[Pair]:
        """The dense and the pruned form of linear layers that read the same inputs.

        ``added`` is what the layer's output is added to: the residual ``[tokens, rows]``. The
        pruned layer is to give the dense one's sum. ``parts`` is for inputs that are not tokens.
        """
        layers = [self._read(name) for name in names]
        wanted = [place for place, name in enumerate(names) if f"{name}.weight" in self._targets]
        pairs = [Pair(layer, layer) for layer in layers]
        if wanted:
            sums = _Sums([layers[place] for place in wanted])
            for part in parts or [part for part, _ in self.parts]:
                given = inputs(part)
                shift = added.dense[part] - added.pruned[part] if added else None
                sums.add(given, shift)
            for place, statistics in zip(wanted, sums.statistics(), strict=True):
                if not bool(statistics.inputs.isfinite().all()):
                    raise CheckpointError(
                        f"{self.checkpoint.path}: the calibration texts give layer "
                        f"'{names[place]}' inputs that are not finite numbers."
                    )
                pruned = self._prune(layers[place], statistics)
                self.found[f"{names[place]}.weight"] = pruned
                pairs[place] = Pair(layers[place], pruned)
        return pairs

    def _read(self, name: str) -> Linear:
        import torch

        weight = tensor(self.checkpoint, f"{name}.weight")
        bias = tensor(self.checkpoint, f"{name}.bias")
        return Linear(weight, bias, torch.ones_like(weight, dtype=torch.bool))


class _Sums:
    """Sums over tokens for layers that share their inputs."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        import torch

        columns = layers[0].weight.shape[1]
        self._layers = layers
        self._count = 0
        self._inputs = torch.zeros(columns, columns)
        self._targets = [torch.zeros_like(layer.weight) for layer in layers]
        self._input_sum = torch.zeros(columns)
        self._target_sums = [torch.zeros_like(layer.bias) for layer in layers]

    def add(self, inputs: Pair, shift: torch.Tensor | None) -> None:
        x: torch.Tensor = inputs.pruned
        self._count += len(x)
        self._inputs += x.T @ x
        self._input_sum += x.sum(dim=0)
        for layer, targets, total in zip(
            self._layers, self._targets, self._target_sums, strict=True
        ):
            y = layer(inputs.dense)
            if shift is not None:
                y = y + shift
            targets += y.T @ x
            total += y.sum(dim=0)

    def statistics(self) -> Iterator[Statistics]:
        mean = self._input_sum / self._count
        inputs = self._inputs / self._count - mean.outer(mean)
        for targets, total in zip(self._targets, self._target_sums, strict=True):
            target_mean = total / self._count
            cross = targets / self._count - target_mean.outer(mean)
            yield Statistics(inputs, cross, mean, target_mean)


def _encoder_layer(fitting: _Fitting, prefix: str, state: Pair) -> None:
    """Prune one encoder layer; ``state`` becomes its output."""
    checkpoint, config = fitting.checkpoint, fitting.checkpoint.config
    projections = fitting.fit(
        [f"{prefix}.attention.self.{name}" for name in ("query", "key", "value")],
        lambda part: Pair(*(side[part] for side in state)),
    )
    context = Pair(state.dense.clone(), state.pruned.clone())
    for part, groups in fitting.parts:
        for side in range(2):
            query, key, value = (pair[side](state[side][part]) for pair in projections)
            context[side][part] = attend(query, key, value, groups, config.num_attention_heads)
    (output,) = fitting.fit(
        [f"{prefix}.attention.output.dense"],
        lambda part: Pair(*(side[part] for side in context)),
        added=state,
    )
    norm = layer_norm(checkpoint, f"{prefix}.attention.output.LayerNorm")
    for part, _ in fitting.parts:
        for side in range(2):
            state[side][part] = norm(output[side](context[side][part]) + state[side][part])
    (first,) = fitting.fit(
        [f"{prefix}.intermediate.dense"], lambda part: Pair(*(side[part] for side in state))
    )
    act = activation(config.hidden_act)

    def inner(part: slice) -> Pair:
        return Pair(*(act(first[side](state[side][part])) for side in range(2)))

    (second,) = fitting.fit([f"{prefix}.output.dense"], inner, added=state)
    norm = layer_norm(checkpoint, f"{prefix}.output.LayerNorm")
    for part, _ in fitting.parts:
        found = inner(part)
        for side in range(2):
            state[side][part] = norm(second[side](found[side]) + state[side][part])


def _pooler_and_head(fitting: _Fitting, state: Pair) -> None:
    """Prune the linear layers behind the encoder, if any of them are targets."""
    checkpoint = fitting.checkpoint
    everything = [slice(None)]
    if "pooler.dense.weight" in checkpoint.stored_name:
        starts = fitting.rows.starts
        first = Pair(*(side[starts] for side in state))
        (pooler,) = fitting.fit(["pooler.dense"], lambda _: first, parts=everything)
        pooled = Pair(*(layer(x).tanh() for layer, x in zip(pooler, first, strict=True)))
    if checkpoint.config.head is Head.SEQUENCE:
        fitting.fit(["classifier"], lambda _: pooled, parts=everything)
    elif checkpoint.config.head in _TOKEN_HEADS:
        name = _TOKEN_HEADS[checkpoint.config.head]
        fitting.fit([name], lambda part: Pair(*(side[part] for side in state)))
