"""Fine-tuning with the engine's int8 arithmetic, so that the reported score is the one served.

Inside `int8_arithmetic`, every forward pass computes what the packed int8 model will: linear
layers, attention, embeddings and GELU go through `int8_functions`; the last layer of a head and
LayerNorm stay in float32, even under autocast. Parameters stay float32 and keep their names, so
optimiser, masks, checkpoints and the written folder are those of any other run, and `pack --dtype
int8` rounds the weights just as they were rounded here. The idea is from Jacob et al. 2017
(arXiv:1712.05877), and for BERT in int8 from Zafrir et al. 2019 (arXiv:1910.06188).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from transformers.activations import ACT2FN, GELUActivation
from transformers.masking_utils import sdpa_mask
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    ContextPooler,
    DisentangledSelfAttention,
)
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

_ATTENTION = "sparsebert_int8"  # the name under which transformers knows the attention below
_MOST_INPUTS = (1 << 15) - 1  # of a linear layer: the engine's limit


@contextmanager
def int8_arithmetic(model: nn.Module) -> Iterator[None]:
    """Inside, a transformers encoder with any head computes in int8, as the engine does.

    Results differ from the engine's only if float32 arithmetic rounds differently before a value is
    rounded to an integer, and they do not depend on padding. Dropout stays where it was. Attention
    probabilities are not among the outputs. Patches that replace modules of the model
    (`used_embeddings`) must be entered first.

    Raises TrainingError for a model that the engine cannot run in int8.
    """
    checked = _checked(model)
    family = FAMILIES[checked.config.model_type]
    head = family.architectures.get(type(checked).__name__, Head.ENCODER)
    # The last layer of a head stays in float32, as in `packing.dtypes`.
    last = family.heads[head].last if head in family.heads else None
    with ExitStack() as undo:

        def replace(module: nn.Module, forward: Callable[..., Any]) -> None:
            # An attribute of the instance takes precedence over the method of its class.
            module.forward = partial(forward, module)
            undo.callback(delattr, module, "forward")

        for name, module in checked.named_modules():
            if isinstance(module, nn.Linear):
                of_head = _int8_table if head is Head.MASKED_LM else _linear
                replace(module, of_head if name == last else _int8_linear)
            elif isinstance(module, nn.Embedding):
                if family.canonical(f"{name}.weight") != RELATIVE_BIAS:
                    undo.callback(module.register_forward_hook(_round_rows).remove)
            elif isinstance(module, GELUActivation):
                replace(module, _gelu)
            elif isinstance(module, MPNetSelfAttention):
                replace(module, _int8_mpnet_attention)
            elif isinstance(module, DisentangledSelfAttention):
                replace(module, _int8_disentangled_attention)
            elif isinstance(module, ContextPooler):
                replace(module, _int8_context_pooler)
        if checked._supports_sdpa:  # otherwise its own attention was replaced above
            undo.callback(checked.set_attn_implementation, checked.config._attn_implementation)
            checked.set_attn_implementation(_ATTENTION)
        yield


def _checked(model: nn.Module) -> PreTrainedModel:
    """The model. TrainingError if the engine could not run it in int8."""
    family = None
    if isinstance(model, PreTrainedModel):
        family = FAMILIES.get(model.config.model_type)
    if family is None or not isinstance(model, PreTrainedModel):
        raise TrainingError(
            f"int8 training does not support {type(model).__name__}: the supported model types "
            f"are {', '.join(FAMILIES)}."
        )
    config: PretrainedConfig = model.config
    activation = getattr(config, family.fields.get("hidden_act", "hidden_act"))
    if activation not in ACTIVATIONS:
        raise TrainingError(
            f"int8 training does not support the activation {activation!r}: the engine has "
            f"{', '.join(ACTIVATIONS)}."
        )
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise TrainingError("int8 training does not support decoders, only encoders.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features > _MOST_INPUTS:
            raise TrainingError(
                f"'{name}' has {module.in_features} inputs, but the engine supports at most "
                f"{_MOST_INPUTS} in int8."
            )
    return model


def _int8_linear(linear: nn.Linear, x: Tensor) -> Any:
    return Int8Linear.apply(x, linear.weight, linear.bias, True)  # type: ignore[no-untyped-call]


def _int8_table(decoder: nn.Linear, x: Tensor) -> Any:
    return Int8Linear.apply(x, decoder.weight, decoder.bias, False)  # type: ignore[no-untyped-call]


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x.float(), linear.weight, linear.bias)


def _round_rows(_embedding: nn.Module, _inputs: Any, rows: Tensor) -> Any:
    return Int8Rows.apply(rows)  # type: ignore[no-untyped-call]


def _gelu(_activation: nn.Module, x: Tensor) -> Any:
    return QuickGelu.apply(x)  # type: ignore[no-untyped-call]


def _int8_context_pooler(pooler: ContextPooler, hidden_states: Tensor) -> Any:
    """`ContextPooler.forward`, whose activation is no module of the model."""
    x = pooler.dense(pooler.dropout(hidden_states[:, 0]))
    activation = ACT2FN[pooler.config.pooler_hidden_act]
    return _gelu(activation, x) if isinstance(activation, GELUActivation) else activation(x)


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
    """An attention function for transformers, with a bool mask.

    Scores are multiplied by ``scale``, which defaults to 1 / sqrt(size).
    """
    # The seed is drawn from torch's own random state, so that a resumed run draws the same.
    seed = int(torch.randint(1 << 62, ())) if dropout else 0
    if attention_mask is not None and attention_mask.shape[-2] > 1:
        # With windowed attention, a padding token may be allowed to attend to nothing. Its result
        # does not matter but must be finite, so it attends to everything.
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
    """`MPNetSelfAttention.forward`, whose mask is 0 where attention is allowed."""
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
    """`DisentangledSelfAttention.forward`, with the scores by relative position in int8 too."""
    assert relative_pos is not None
    assert rel_embeddings is not None
    layers = (attention.query_proj, attention.key_proj, attention.value_proj)
    heads = (*hidden_states.shape[:-1], attention.num_attention_heads, -1)
    query, key, value = (layer(hidden_states).view(heads).transpose(1, 2) for layer in layers)
    terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
    scale = 1 / math.sqrt(attention.attention_head_size * (1 + len(terms)))
    rows = attention.pos_dropout(rel_embeddings)
    span = len(rows) // 2
    chosen = (relative_pos + span).clamp(0, 2 * span - 1)  # row of the table for each query and key
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
