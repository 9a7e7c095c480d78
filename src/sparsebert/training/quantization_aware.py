"""Fine-tuning through the engine's int8 arithmetic, so that the score seen is the score served.

While the patch is attached to a model, every forward pass computes what the packed int8 model will:
linear layers, attention, embeddings and GELU go through `int8_functions`, the last layer of a head
and LayerNorm stay in float32, whatever autocast says. Parameters stay float32 and keep their names,
so optimiser, masks, checkpoints and the written folder are those of any other run; `pack --dtype
int8` rounds the weights as they were rounded here. Source of the idea: Jacob et al. 2017
(arXiv:1712.05877); for BERT in int8, Zafrir et al. 2019 (arXiv:1910.06188).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import GELUActivation
from transformers.masking_utils import sdpa_mask
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from sparsebert.checkpoint.architecture import RELATIVE_BIAS
from sparsebert.checkpoint.config import ACTIVATIONS
from sparsebert.checkpoint.families import FAMILIES, Head
from sparsebert.errors import TrainingError
from sparsebert.training.int8_functions import (
    Int8Attention,
    Int8Linear,
    Int8Rows,
    QuickGelu,
    SignedRows,
)

_ATTENTION = "sparsebert_int8"  # transformers' name of the attention below
_MOST_INPUTS = (1 << 15) - 1  # of a linear layer: the engine takes no more


class Int8Arithmetic:
    """A model patch: the forward pass computes in the engine's int8 arithmetic."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def attach(self, model: nn.Module) -> None:
        """Let a transformers encoder with any head compute in int8, until `detach`.

        Results differ from the engine's only where float32 rounds otherwise on the way to a whole
        number, and do not depend on padding. Dropout acts where it did. Attention probabilities are
        not among the outputs. What puts other modules into the model (`UsedEmbeddings`) goes first.

        Raises TrainingError for a model that the engine has no int8 network for.
        """
        self.detach()
        checked = _checked(model)
        family = FAMILIES[checked.config.model_type]
        head = family.architectures.get(type(checked).__name__, Head.ENCODER)
        # The last layer of a head stays float32, as `packing.dtypes` has it.
        last = family.heads[head].last if head in family.heads else None
        for name, module in checked.named_modules():
            if isinstance(module, nn.Linear):
                in_floats = name == last and head is not Head.MASKED_LM
                self._replace(module, _linear if in_floats else _int8_linear)
            elif isinstance(module, nn.Embedding):
                if family.canonical(f"{name}.weight") != RELATIVE_BIAS:
                    self._undo.append(module.register_forward_hook(_round_rows).remove)
            elif isinstance(module, GELUActivation):
                self._replace(module, _gelu)
            elif isinstance(module, MPNetSelfAttention):
                self._replace(module, _int8_mpnet_attention)
            elif isinstance(module, DisentangledSelfAttention):
                self._replace(module, _int8_disentangled_attention)
        if checked._supports_sdpa:  # else its attention is its own, and replaced above
            before = checked.config._attn_implementation
            checked.set_attn_implementation(_ATTENTION)
            self._undo.append(partial(checked.set_attn_implementation, before))

    def detach(self) -> None:
        """Take the patch off the model, which computes in floats again."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        # An attribute of the instance goes before the method of its class.
        module.forward = partial(forward, module)
        self._undo.append(partial(delattr, module, "forward"))


def _checked(model: nn.Module) -> PreTrainedModel:
    """The model; TrainingError if the engine could not serve it in int8."""
    family = None
    if isinstance(model, PreTrainedModel):
        family = FAMILIES.get(model.config.model_type)
    if family is None or not isinstance(model, PreTrainedModel):
        raise TrainingError(
            f"there is no int8 arithmetic for {type(model).__name__}: only encoders of the types "
            f"{', '.join(FAMILIES)} have it."
        )
    config: PretrainedConfig = model.config
    activation = getattr(config, family.fields.get("hidden_act", "hidden_act"))
    if activation not in ACTIVATIONS:
        raise TrainingError(
            f"there is no int8 arithmetic for the activation {activation!r}: the engine has "
            f"{', '.join(ACTIVATIONS)}."
        )
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise TrainingError("there is no int8 arithmetic for a decoder: only encoders have it.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features > _MOST_INPUTS:
            raise TrainingError(
                f"'{name}' has {module.in_features} inputs, more than the {_MOST_INPUTS} that "
                "the engine takes in int8: this model cannot be served in int8."
            )
    return model


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
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    bias: Tensor | None = None,
    scale: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers', with a bool mask; scores are over sqrt(size).

    Unless there is a ``scale``.
    """
    # Drawn from torch's own random state, so that a resumed run draws the same.
    seed = int(torch.randint(1 << 62, ())) if dropout else 0
    if attention_mask is not None and attention_mask.shape[-2] > 1:
        # Padding beyond a window's reach sees nobody. What it sees does not matter, but a number
        # it must be.
        attention_mask = attention_mask | ~attention_mask.any(-1, keepdim=True)
    context: Tensor = Int8Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, attention_mask, bias, dropout, seed, scale
    )
    return context.transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _int8_attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _int8_mpnet_attention(
    attention: MPNetSelfAttention,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor]:
    """`MPNetSelfAttention.forward`, whose mask is 0 where allowed."""
    heads = (*hidden_states.shape[:-1], -1, attention.attention_head_size)
    query, key, value = (
        layer(hidden_states).view(heads).transpose(1, 2)
        for layer in (attention.q, attention.k, attention.v)
    )
    allowed = None if attention_mask is None else attention_mask == 0
    share = attention.dropout.p if attention.training else 0.0
    context, _weights = _int8_attention(
        attention, query, key, value, allowed, dropout=share, bias=position_bias
    )
    return (attention.o(context.flatten(2)),)


def _int8_disentangled_attention(
    attention: DisentangledSelfAttention,
    hidden_states: Tensor,
    attention_mask: Tensor,
    output_attentions: bool = False,
    query_states: Tensor | None = None,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, None]:
    """`DisentangledSelfAttention.forward`, whose scores by distance are products in int8 too."""
    assert relative_pos is not None
    assert rel_embeddings is not None
    layers = (attention.query_proj, attention.key_proj, attention.value_proj)
    heads = (*hidden_states.shape[:-1], attention.num_attention_heads, -1)
    query, key, value = (layer(hidden_states).view(heads).transpose(1, 2) for layer in layers)
    terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
    scale = 1 / math.sqrt(attention.attention_head_size * (1 + len(terms)))
    rows = attention.pos_dropout(rel_embeddings)
    span = len(rows) // 2
    chosen = (relative_pos + span).clamp(0, 2 * span - 1)  # of a query from a key
    scores = torch.zeros((), device=rows.device)
    for term, one, layer in (("c2p", query, layers[1]), ("p2c", key, layers[0])):
        if term not in terms:
            continue
        of_rows = layer(rows).view(len(rows), heads[-2], -1).transpose(0, 1)
        with torch.autocast(rows.device.type, enabled=False):
            products = _signed(one) @ _signed(of_rows).transpose(-1, -2)
        index = chosen if term == "c2p" else chosen.transpose(-1, -2)
        found = products.gather(-1, index.expand(*products.shape[:-1], -1))
        scores = scores + (found if term == "c2p" else found.transpose(-1, -2))
    context, _weights = _int8_attention(
        attention,
        query,
        key,
        value,
        attention_mask.bool(),
        dropout=attention.dropout.p if attention.training else 0.0,
        bias=scores * scale,
        scale=scale,
    )
    return context.flatten(2), None


def _signed(rows: Tensor) -> Tensor:
    found: Tensor = SignedRows.apply(rows)  # type: ignore[no-untyped-call]
    return found
