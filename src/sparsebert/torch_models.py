"""transformers' models on torch: loading one, its inputs, its parameters by canonical name.

Importing this costs next to nothing: torch and transformers are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.families import FAMILIES, Family
from sparsebert.checkpoint.hub_configs import check_transformers_reads
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.extras import need_extra
from sparsebert.progress import Progress, silent
from sparsebert.tasks.tokens import TokenRows

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


def load_torch_model(folder: Path, **options: Any) -> PreTrainedModel:
    """A folder as transformers' own model with its head, for inference, in fp32 on the CPU.

    ``options`` go to ``from_pretrained``. Raises CheckpointError for a damaged folder and for one
    that transformers cannot read.
    """
    need_extra("running a model on torch", "torch", "transformers")
    import torch
    import transformers

    checkpoint = open_checkpoint(folder)
    check_transformers_reads(checkpoint.transformer)
    config = checkpoint.config
    model_class = getattr(transformers, config.family.architecture(config.head))
    options = {"dtype": torch.float32, "use_safetensors": True, **options}
    with quiet_transformers():
        model: PreTrainedModel = model_class.from_pretrained(checkpoint.transformer, **options)
    return model.eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Log only errors and draw no bars inside; the settings are restored afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def padded_batch(tokens: TokenRows, chosen: Any, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """The ``chosen`` token sequences padded to the longest, int64 ``[batch, tokens]`` each.

    ``input_ids``, ``token_type_ids`` and ``attention_mask``, by name.
    """
    import torch

    longest = int(tokens.lengths[chosen].max())
    ids = np.zeros((len(chosen), longest), np.int64)
    type_ids, mask = np.zeros_like(ids), np.zeros_like(ids)
    for position, index in enumerate(chosen):
        row_ids, row_types = tokens.row(index)
        ids[position, : len(row_ids)] = row_ids
        type_ids[position, : len(row_ids)] = row_types
        mask[position, : len(row_ids)] = 1
    batch = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": mask}
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def model_inputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs that a model takes from a padded batch: types only if its family has them."""
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if model_family(model).token_types else []
    return {name: batch[name] for name in names}


def run_in_batches(
    model: Any,
    tokens: TokenRows,
    batch_size: int,
    rows_of: Callable[[Any, dict[str, torch.Tensor], npt.NDArray[np.int64]], npt.NDArray[Any]],
    progress: Progress = silent,
    label: str = "",
) -> list[Any]:
    """What ``rows_of`` gives for each token sequence, in their order.

    The model runs without dropout on batches of sequences of similar length. ``rows_of`` maps its
    output, the padded batch and the sequences' indices (int64 ``[batch]``) to an array
    ``[batch, ...]``. ``label`` is shown with the progress.
    """
    import torch

    found: list[Any] = [None] * len(tokens)
    order = np.argsort(-tokens.lengths, kind="stable")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(tokens), batch_size):
                chunk = order[start : start + batch_size]
                batch = padded_batch(tokens, chunk, model.device)
                rows = rows_of(model(**model_inputs(model, batch)), batch, chunk)
                for index, row in zip(chunk, rows, strict=True):
                    found[index] = row
                progress(label, start + len(chunk), len(tokens))
    finally:
        model.train(was_training)
    return found


def model_family(model: Any) -> Family:
    """The family of a transformers model. Raises CheckpointError for an unsupported type."""
    model_type = unwrapped(model).config.model_type
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"models of type {model_type!r} are not supported; supported are {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]


def unwrapped(model: Any) -> Any:
    """The model itself, without torch's wrapper for distributed training."""
    return getattr(model, "module", model)


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model in a tree of modules, whatever wraps it.

    That may be DistributedDataParallel, torch.compile, PEFT, a SentenceTransformer or a custom
    network. Raises TrainingError if there is none, or more than one side by side.
    """
    from transformers import PreTrainedModel

    found: dict[str, PreTrainedModel] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer in found)
        if isinstance(module, PreTrainedModel) and not inside:
            found[name] = module
    if len(found) != 1:
        number = f"{len(found)} ({', '.join(found)})" if found else "none"
        raise TrainingError(
            f"masks belong to one transformers model, but {type(model).__name__} contains "
            f"{number}: pass a single model, with its own masks."
        )
    return next(iter(found.values()))


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its canonical name; a tied one appears under each of its names."""
    inner = transformers_model(model)
    family = model_family(inner)
    named = inner.named_parameters(remove_duplicate=False)
    # PEFT nests a layer to which it adds an adapter one level deeper.
    return {family.canonical(name.replace(".base_layer.", ".")): each for name, each in named}


def encoder_linear(model: nn.Module, name: str) -> nn.Linear:
    """A linear layer of the encoder by its canonical name (without ``.weight``)."""
    from torch import nn

    encoder = unwrapped(model)
    encoder = getattr(encoder, encoder.base_model_prefix, encoder)
    path = model_family(model).spelled(f"{name}.weight").removesuffix(".weight")
    found = encoder.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found
