"""The inputs and outputs of transformers' own network, and the network in a form to be traced.

The names are those of transformers and optimum, whose classes expect them in an exported file.
"""

from __future__ import annotations

from typing import Any

from sparsebert.checkpoint import EncoderConfig, Head

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def input_names(config: EncoderConfig) -> tuple[str, ...]:
    """Names of the inputs, int64 ``[batch, tokens]`` each.

    A model with a single token type (RoBERTa) has no token_type_ids: its tokenizer makes none.
    """
    types = config.token_types and config.type_vocab_size > 1
    return _INPUTS if types else _INPUTS[:2]


def output_names(config: EncoderConfig) -> tuple[str, ...]:
    """Names of the outputs, float32.

    "logits" of a sequence classifier are ``[batch, labels]``; others ``[batch, tokens, ...]``.
    """
    if config.head is Head.ENCODER:
        return ("last_hidden_state",)
    return ("start_logits", "end_logits") if config.head is Head.QUESTION else ("logits",)


def traceable(network: Any, config: EncoderConfig) -> Any:
    """The network as a module that takes `input_names` by position and returns `output_names`.

    Tracing exporters pass inputs by position, and transformers' networks have others in between.
    """
    import torch

    inputs, outputs = input_names(config), output_names(config)

    class ByPosition(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *given: Any) -> Any:
            found = self.network(**dict(zip(inputs, given, strict=True)))
            return tuple(found[name] for name in outputs)

    return ByPosition().eval()


def example_inputs(config: EncoderConfig) -> tuple[Any, ...]:
    """Two sequences, one of them padded, for tracing: a tensor for each of `input_names`."""
    import torch

    ids = torch.full((2, min(8, config.max_length)), config.vocab_size - 1)
    mask = torch.ones_like(ids)
    ids[1, -3:], mask[1, -3:] = config.pad_token_id, 0
    return (ids, mask, torch.zeros_like(ids))[: len(input_names(config))]
