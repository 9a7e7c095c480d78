"""A transformers model's parameters and modules, found by the canonical names of their tensors."""

from __future__ import annotations

from torch import nn

from sparsebert.evaluation.predictors import model_family, unwrapped


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its canonical name; one that is tied stands under each of its names."""
    family = model_family(model)
    named = unwrapped(model).named_parameters(remove_duplicate=False)
    return {family.canonical(name): parameter for name, parameter in named}


def encoder_linear(model: nn.Module, name: str) -> nn.Linear:
    """A linear layer of the encoder by its canonical name (without ``.weight``)."""
    encoder = unwrapped(model)
    encoder = getattr(encoder, encoder.base_model_prefix, encoder)
    path = model_family(model).spelled(f"{name}.weight").removesuffix(".weight")
    found = encoder.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found
