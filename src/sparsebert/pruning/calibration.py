"""Calibration: run texts through an encoder layer by layer and prune each linear layer on the way.

One layer's weights, statistics and token vectors are in memory at a time. A linear layer sees the
inputs that the layers pruned before it produce; its target is what the dense model outputs for its
own inputs, which are computed alongside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsebert.checkpoint.architecture import POOLER, RESIDUAL_NORM, layer_linears
from sparsebert.checkpoint.families import Head
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.errors import CheckpointError
from sparsebert.pruning.calibration_set import CalibrationSet
from sparsebert.pruning.encoder_arithmetic import (
    Attention,
    Step,
    activation,
    bias,
    distance_embeddings,
    embed,
    layer_norm,
    tensor,
)

if TYPE_CHECKING:
    import torch

_TOKENS = 8192  # tokens whose intermediate vectors are in memory at once


class Linear(NamedTuple):
    """Weight ``[rows, columns]``, bias ``[rows]`` and mask (True: kept) of a linear layer.

    ``bias`` is None for a layer without one.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    mask: torch.Tensor

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.linear(inputs, self.weight, self.bias)


@dataclass
class Statistics:
    """Second moments over all tokens of one linear layer, about the means.

    For a layer without a bias, which could not make up for a mean, they are about zero, and the
    means are given as zero.

    ``inputs`` is ``cov(x, x)`` ``[columns, columns]`` of the inputs x that the pruned model gives
    the layer, ``targets`` is ``cov(y, x)`` ``[rows, columns]`` with the outputs y that it should
    have; ``input_mean`` ``[columns]`` and ``target_mean`` ``[rows]`` are the means.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    input_mean: torch.Tensor
    target_mean: torch.Tensor


class Pair(NamedTuple):
    """The same thing in the dense model and in the model as pruned so far."""

    dense: Any
    pruned: Any


Inputs = Callable[[slice], Pair]
"""The inputs of a linear layer for a part of the tokens, ``[tokens, columns]``."""


class PrunedLayers:
    """The layers from `prune_layers`, looked up one by one in computing order.

    Only those of one encoder layer are kept in memory.
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
    texts: CalibrationSet,
    targets: Collection[str],
    prune_linear: Callable[[Linear, Statistics], Linear],
) -> Iterator[dict[str, Linear]]:
    """Prune ``targets`` (canonical names of weights), and yield the new layers by that name.

    There is one dict for each encoder layer once it is done, and a last one with the targets of the
    pooler and the head. Raises CheckpointError if activations are not finite.
    """
    config = checkpoint.config
    vectors = embed(checkpoint, texts)
    state = Pair(vectors, vectors.clone())
    for stored in range(config.stored_layers):
        passes = [number for number, its in enumerate(config.layer_order) if its == stored]
        kind = _Fitting if len(passes) == 1 else _SharedFitting
        fitting = kind(checkpoint, texts, targets, prune_linear)
        while True:
            found = state if len(passes) == 1 else Pair(*(side.clone() for side in state))
            for number in passes:
                _encoder_layer(fitting, number, found)
            if fitting.is_done():
                break
        state = found
        yield fitting.found
    fitting = _Fitting(checkpoint, texts, targets, prune_linear)
    if not all(name.startswith("encoder.") for name in targets):
        _pooler_and_head(fitting, state)
    yield fitting.found


class _Fitting:
    """Reads linear layers and prunes those that are targets."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        texts: CalibrationSet,
        targets: Collection[str],
        prune_linear: Callable[[Linear, Statistics], Linear],
    ) -> None:
        self.checkpoint = checkpoint
        self.parts = list(texts.parts(_TOKENS))
        self.texts = texts
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

        ``added`` is the residual ``[tokens, rows]`` that the layer's output is added to: the pruned
        layer should give the same sum as the dense one. ``parts`` is for inputs that are not
        tokens.
        """
        layers = {name: self._read(name) for name in names}
        wanted = {name: layers[name] for name in names if self._is_wanted(name)}
        if wanted:
            sums = self._sums_of(wanted)
            for part in parts or [part for part, _ in self.parts]:
                given = inputs(part)
                shift = added.dense[part] - added.pruned[part] if added else None
                sums.add(given, shift)
            self._gathered(sums)
        return [
            Pair(layer, self.found.get(f"{name}.weight", layer)) for name, layer in layers.items()
        ]

    def is_done(self) -> bool:
        """Whether the fitted layers are pruned; if not, their inputs must be computed again."""
        return True

    def _is_wanted(self, name: str) -> bool:
        return f"{name}.weight" in self._targets

    def _sums_of(self, layers: dict[str, Linear]) -> _Sums:
        return _Sums(layers)

    def _gathered(self, sums: _Sums) -> None:
        self._prune_by(sums)

    def _prune_by(self, sums: _Sums) -> None:
        for (name, layer), statistics in zip(sums.layers.items(), sums.statistics(), strict=True):
            if not bool(statistics.inputs.isfinite().all()):
                raise CheckpointError(
                    f"{self.checkpoint.path}: the calibration texts give layer "
                    f"'{name}' inputs that are not finite numbers."
                )
            self.found[f"{name}.weight"] = self._prune(layer, statistics)

    def _read(self, name: str) -> Linear:
        import torch

        weight = tensor(self.checkpoint, f"{name}.weight")
        mask = torch.ones_like(weight, dtype=torch.bool)
        return Linear(weight, bias(self.checkpoint, name), mask)


class _SharedFitting(_Fitting):
    """The same for an encoder layer that token vectors pass through several times.

    Each linear layer is pruned once, on its inputs from all passes. A round of passes prunes only
    layers that read the same inputs, so that the next ones' inputs are those of the pruned model.
    """

    _open: _Sums | None = None  # of the layers whose inputs this round gathers

    def is_done(self) -> bool:
        if self._open is None:
            return True
        self._prune_by(self._open)
        self._open = None
        return False

    def _is_wanted(self, name: str) -> bool:
        if not super()._is_wanted(name) or f"{name}.weight" in self.found:
            return False
        return self._open is None or name in self._open.layers

    def _sums_of(self, layers: dict[str, Linear]) -> _Sums:
        return self._open or _Sums(layers)

    def _gathered(self, sums: _Sums) -> None:
        self._open = sums


class _Sums:
    """Sums over tokens for layers (by name) that share their inputs.

    For layers with a bias, inputs and targets are summed about the means of the first part of the
    tokens: the difference of a second moment and a squared mean far larger than it would consist of
    rounding errors, and need not be positive.
    """

    def __init__(self, layers: dict[str, Linear]) -> None:
        import torch

        first = next(iter(layers.values()))
        columns = first.weight.shape[1]
        self.layers = layers
        self._count = 0
        self._inputs = torch.zeros(columns, columns)
        self._targets = [torch.zeros_like(layer.weight) for layer in layers.values()]
        self._input_sum = torch.zeros(columns)
        self._target_sums = [torch.zeros(len(layer.weight)) for layer in layers.values()]
        self._has_bias = first.bias is not None
        self._input_origin = torch.zeros(columns)
        self._target_origins = [torch.zeros(len(layer.weight)) for layer in layers.values()]

    def add(self, inputs: Pair, shift: torch.Tensor | None) -> None:
        starts = self._has_bias and not self._count
        if starts:
            self._input_origin = inputs.pruned.mean(dim=0)
        x: torch.Tensor = inputs.pruned - self._input_origin
        self._count += len(x)
        self._inputs += x.T @ x
        self._input_sum += x.sum(dim=0)
        for number, layer in enumerate(self.layers.values()):
            y = layer(inputs.dense)
            if shift is not None:
                y += shift
            if starts:
                self._target_origins[number] = y.mean(dim=0)
            y -= self._target_origins[number]
            self._targets[number] += y.T @ x
            self._target_sums[number] += y.sum(dim=0)

    def statistics(self) -> Iterator[Statistics]:
        mean = self._input_sum / self._count * self._has_bias
        inputs = self._inputs / self._count - mean.outer(mean)
        for targets, total, origin in zip(
            self._targets, self._target_sums, self._target_origins, strict=True
        ):
            target_mean = total / self._count * self._has_bias
            cross = targets / self._count - target_mean.outer(mean)
            yield Statistics(inputs, cross, self._input_origin + mean, origin + target_mean)


def _encoder_layer(fitting: _Fitting, number: int, state: Pair) -> None:
    """Prune one encoder layer, counted in computing order; ``state`` becomes its output."""
    checkpoint, config = fitting.checkpoint, fitting.checkpoint.config
    prefix = f"encoder.layer.{config.layer_order[number]}"
    norm_first = config.family.norm_first

    def read(norm: str) -> Inputs:
        """The inputs of a half of the layer: the state, after its LayerNorm if that comes first."""
        if not norm_first or f"{norm}.weight" not in checkpoint.used:
            return _of(state)
        step = layer_norm(checkpoint, norm)
        return lambda part: Pair(*(step(side[part]) for side in state))

    def write(name: str, given: Inputs) -> None:
        """Prune the last linear layer of a half, and add its output to the state."""
        (layer,) = fitting.fit([f"{prefix}.{name}.dense"], given, added=state)
        norm = None if norm_first else layer_norm(checkpoint, f"{prefix}.{name}.LayerNorm")
        again = config.family.residual_norm and name == "attention.output"
        second = layer_norm(checkpoint, f"{prefix}.{RESIDUAL_NORM}") if again else None
        for part, _ in fitting.parts:
            found = given(part)
            for side in range(2):
                summed = layer[side](found[side]) + state[side][part]
                summed = norm(summed) if norm else summed
                state[side][part] = second(state[side][part] + summed) if second else summed

    names = [name for name, _, _ in layer_linears(config) if name.startswith("attention.self.")]
    given = read(f"{prefix}.attention.LayerNorm")
    projections = fitting.fit([f"{prefix}.{name}" for name in names], given)
    own = ("query", "key") if config.family.query_key_norm else ()
    norms = [layer_norm(checkpoint, f"{prefix}.attention.self.{name}_LayerNorm") for name in own]
    attention = Attention(checkpoint, number)
    distances = distance_embeddings(checkpoint)
    context = Pair(state.dense.clone(), state.pruned.clone())
    for part, groups in fitting.parts:
        seen = given(part)
        for side in range(2):
            found = [layer[side](seen[side]) for layer in projections]
            query, key, value = found if len(found) == 3 else found[0].chunk(3, dim=-1)
            if norms:
                query, key = (norm(x) for norm, x in zip(norms, (query, key), strict=True))
            of_distances = []
            if distances is not None:
                of_distances = [layer[side](distances) for layer in projections[:2]]
            context[side][part] = attention(query, key, value, groups, of_distances)
    write("attention.output", _of(context))

    given = read(f"{prefix}.intermediate.LayerNorm")
    names = [name for name, _, _ in layer_linears(config) if name.startswith("intermediate.")]
    first = fitting.fit([f"{prefix}.{name}" for name in names], given)
    act = activation(config.hidden_act)

    def inner(part: slice) -> Pair:
        return Pair(*(activated(side, x) for side, x in enumerate(given(part))))

    def activated(side: int, x: torch.Tensor) -> torch.Tensor:
        found: Sequence[torch.Tensor] = [layer[side](x) for layer in first]
        if not config.family.gated:
            return act(found[0])
        gate, other = found if len(found) == 2 else found[0].chunk(2, dim=-1)
        return act(gate) * other

    write("output", inner)


def _pooler_and_head(fitting: _Fitting, state: Pair) -> None:
    """Prune the linear layers after the encoder that are targets."""
    checkpoint, head = fitting.checkpoint, fitting.checkpoint.config.head_shape
    if checkpoint.config.family.norm_first:
        norm = layer_norm(checkpoint, "encoder.LayerNorm")
        state = Pair(*(norm(side) for side in state))
    if (head is None or head.dense != POOLER) and f"{POOLER}.weight" in checkpoint.used:
        first = _of(_pooled(fitting.texts, state, "cls"))
        fitting.fit([POOLER], first, parts=[slice(None)])
    if head is None:
        return
    parts = None
    if head.pooling is not None:
        state, parts = _pooled(fitting.texts, state, head.pooling), [slice(None)]
    given = _of(state)
    if head.dense is not None:
        (dense,) = fitting.fit([head.dense], given, parts=parts)
        if checkpoint.config.head is Head.MASKED_LM:
            return  # the last layer is the word embeddings
        steps = [activation(head.activation or "tanh")]
        steps += [layer_norm(checkpoint, head.norm)] if head.norm else []
        given = _behind(dense, steps, given)
    fitting.fit([head.last], given, parts=parts)


def _of(pair: Pair) -> Inputs:
    return lambda part: Pair(*(side[part] for side in pair))


def _behind(layer: Pair, steps: Sequence[Step], given: Inputs) -> Inputs:
    """The outputs of a linear layer after ``steps``."""

    def inputs(part: slice) -> Pair:
        found = [one(x) for one, x in zip(layer, given(part), strict=True)]
        for step in steps:
            found = [step(x) for x in found]
        return Pair(*found)

    return inputs


def _pooled(texts: CalibrationSet, state: Pair, pooling: str) -> Pair:
    """One vector per sequence, ``[sequences, hidden]``: its first token's or the mean of all."""
    if pooling == "cls":
        return Pair(*(side[texts.starts] for side in state))
    import torch

    return Pair(
        *(torch.stack([x.mean(0) for x in torch.split(side, texts.lengths)]) for side in state)
    )
