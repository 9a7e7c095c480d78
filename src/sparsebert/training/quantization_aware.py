"""Fine-tuning through the engine's int8 arithmetic, so that the score seen is the score served.

While it holds a model, every forward pass computes what the packed int8 model will: linear layers,
attention, embeddings and GELU go through `int8_functions`, the last layer of a head and LayerNorm
stay in float32, whatever autocast says. Parameters stay float32 and keep their names, so optimiser,
masks, checkpoints and the written folder are those of any other run; `pack --dtype int8` rounds the
weights as they were rounded here. Source of the idea: Jacob et al. 2017 (arXiv:1712.05877); for
BERT in int8, Zafrir et al. 2019 (arXiv:1910.06188).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertPreTrainedModel, BertSelfAttention

from sparsebert.checkpoint.config import ACTIVATIONS
from sparsebert.errors import TrainingError
from sparsebert.training.int8_functions import Int8Attention, Int8Linear, Int8Rows, QuickGelu

# The last layers of heads stay float32, as `packing.dtypes` has it.
_LAST_LAYERS = ("classifier", "qa_outputs")
_ACTIVATIONS = ("intermediate_act_fn", "transform_act_fn")
_MOST_INPUTS = ((1 << 31) - 1) // (255 * 128)  # of a linear layer: its sums are int32


class Int8Arithmetic:
    """The engine's int8 arithmetic and, once attached, its hold on a model's forward pass."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def attach(self, model: nn.Module) -> None:
        """Let a transformers BERT with any head compute in int8, until `detach`.

        Results differ from the engine's only where float32 rounds otherwise on the way to a whole
        number, and do not depend on padding. Dropout acts where it did. Attention probabilities are
        not among the outputs. What puts other modules into the model (`UsedEmbeddings`) goes first.

        Raises TrainingError for a model that the engine has no int8 network for.
        """
        self.detach()
        config = _int8_config(model)
        for name, module in model.named_modules():
            last = name.rpartition(".")[2]
            if isinstance(module, nn.Linear):
                forward = _linear if last in _LAST_LAYERS else _int8_linear
                self._replace(module, forward)
            elif isinstance(module, BertSelfAttention):
                self._replace(module, _int8_attention)
            elif isinstance(module, nn.Embedding):
                self._undo.append(module.register_forward_hook(_round_rows).remove)
            elif last in _ACTIVATIONS and config.hidden_act == "gelu":
                self._replace(module, _gelu)

    def detach(self) -> None:
        """Let go of the model, which computes in floats again."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        # An attribute of the instance goes before the method of its class.
        module.forward = partial(forward, module)
        self._undo.append(partial(delattr, module, "forward"))


def _int8_config(model: nn.Module) -> BertConfig:
    """The model's config; TrainingError if the engine could not serve it in int8."""
    if not isinstance(model, BertPreTrainedModel):
        raise TrainingError(
            f"there is no int8 arithmetic for {type(model).__name__}: only BERT has it."
        )
    config: BertConfig = model.config
    if config.hidden_act not in ACTIVATIONS:
        raise TrainingError(
            f"there is no int8 arithmetic for the activation {config.hidden_act!r}: the engine has "
            f"{', '.join(ACTIVATIONS)}."
        )
    if config.is_decoder or config.add_cross_attention:
        raise TrainingError("there is no int8 arithmetic for a decoder: only encoders have it.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features > _MOST_INPUTS:
            raise TrainingError(
                f"'{name}' has {module.in_features} inputs, more than the {_MOST_INPUTS} whose "
                "int8 products fit an int32 sum: this model cannot be served in int8."
            )
    return config


def _int8_linear(linear: nn.Linear, x: Tensor) -> Any:
    return Int8Linear.apply(x, linear.weight, linear.bias)  # type: ignore[no-untyped-call]


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x.float(), linear.weight, linear.bias)


def _round_rows(_embedding: nn.Module, _inputs: Any, rows: Tensor) -> Any:
    return Int8Rows.apply(rows)  # type: ignore[no-untyped-call]


def _gelu(_activation: nn.Module, x: Tensor) -> Any:
    return QuickGelu.apply(x)  # type: ignore[no-untyped-call]


def _int8_attention(
    attention: BertSelfAttention,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """`BertSelfAttention.forward`, whose mask is bool or, for eager attention, 0 where allowed."""
    heads = (*hidden_states.shape[:-1], -1, attention.attention_head_size)
    query, key, value = (
        layer(hidden_states).view(heads).transpose(1, 2)
        for layer in (attention.query, attention.key, attention.value)
    )
    if attention_mask is not None and attention_mask.dtype is not torch.bool:
        attention_mask = attention_mask == 0
    share = attention.dropout.p if attention.training else 0.0
    # Drawn from torch's own random state, so that a resumed run draws the same.
    seed = int(torch.randint(1 << 62, ())) if share else 0
    context: Tensor = Int8Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, attention_mask, share, seed
    )
    return context.transpose(1, 2).flatten(2), None
