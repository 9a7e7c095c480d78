"""A transformers model's parameters and modules, found by the canonical names of their tensors."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from sparsebert.errors import TrainingError
from sparsebert.evaluation.predictors import model_family, unwrapped


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model in a tree of modules, whatever is around it.

    DistributedDataParallel, torch.compile, PEFT, a SentenceTransformer or a network of one's own
    may wrap it. Raises TrainingError if there is none, or more than one side by side.
    """
    found: dict[str, PreTrainedModel] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer in found)
        if isinstance(module, PreTrainedModel) and not inside:
            found[name] = module
    if len(found) != 1:
        there = f"holds {len(found)} ({', '.join(found)})" if found else "holds none"
        raise TrainingError(
            f"masks are those of one transformers model, and {type(model).__name__} {there}: hand "
            "over the model itself, each with its own masks."
        )
    return next(iter(found.values()))


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its canonical name; one that is tied stands under each of its names."""
    inner = transformers_model(model)
    family = model_family(inner)
    named = inner.named_parameters(remove_duplicate=False)
    # PEFT moves a layer to which it adds an adapter one step down.
    return {family.canonical(name.replace(".base_layer.", ".")): each for name, each in named}


def encoder_linear(model: nn.Module, name: str) -> nn.Linear:
    """A linear layer of the encoder by its canonical name (without ``.weight``)."""
    encoder = unwrapped(model)
    encoder = getattr(encoder, encoder.base_model_prefix, encoder)
    path = model_family(model).spelled(f"{name}.weight").removesuffix(".weight")
    found = encoder.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found
