"""Embeddings on torch: a transformers encoder with the pooling of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.checkpoint import open_checkpoint, transformer_folder
from sparsebert.checkpoint.hub_configs import check_transformers_reads
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.checkpoint.vector_layers import LAYER_NORM_EPSILON, VectorLayer
from sparsebert.evaluation.embedding_scores import Embeddings
from sparsebert.extras import need_extra
from sparsebert.tasks.embedding_texts import TextReader
from sparsebert.torch_models import quiet_transformers, run_in_batches

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class TorchEmbedder:
    """An `Embed` with a transformers encoder; ``model`` may be one that is being trained."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, reader: TextReader, batch_size: int) -> None:
        self._model, self._reader, self._batch_size = model, reader, batch_size
        self._pooler = TorchPooler(reader.pooling)

    @classmethod
    def load(
        cls, folder: Path, *, batch_size: int = 32, max_length: int | None = None
    ) -> TorchEmbedder:
        """A dense or sparse folder's encoder in fp32, as any user of transformers would load it.

        ``max_length`` is in tokens and defaults to the folder's own limit; longer texts are
        truncated.
        """
        need_extra("embedding on torch", "torch", "transformers")
        import torch
        from transformers import AutoModel

        check_transformers_reads(transformer_folder(folder))
        reader = TextReader(folder, open_checkpoint(folder).config, max_length=max_length)
        with quiet_transformers():
            model = AutoModel.from_pretrained(
                str(transformer_folder(folder)), dtype=torch.float32
            ).eval()
        return cls(model, reader, batch_size)

    def __call__(self, texts: Sequence[str], *, prompt: str | None = None) -> Embeddings:
        """See `Embed`."""
        import torch

        read = self._reader.read(texts, prompt)

        def vectors(output: Any, batch: dict[str, torch.Tensor], chunk: Any) -> Any:
            hidden = output.last_hidden_state
            before = torch.from_numpy(read.prompt_tokens[chunk]).to(hidden.device)
            return self._pooler(hidden, batch["attention_mask"], before).cpu().numpy()

        found = run_in_batches(self._model, read.rows, self._batch_size, vectors)
        width = self._reader.pooling.width(self._model.config.hidden_size)
        return np.stack(found) if found else np.zeros((0, width), np.float32)


class TorchPooler:
    """Pools token vectors to embeddings on torch, with gradients.

    Layers after the pooling use the folder's weights, which are not trained.
    """

    def __init__(self, pooling: Pooling) -> None:
        import torch

        pooling.check()
        self._pooling = pooling
        self._layers = [
            (layer, {name: torch.tensor(value) for name, value in layer.weights().items()})
            for layer in pooling.layers
        ]

    def __call__(
        self, hidden: torch.Tensor, mask: torch.Tensor, prompt_tokens: torch.Tensor
    ) -> torch.Tensor:
        """float32 ``[texts, width]``; ``hidden`` is ``[texts, tokens, hidden]``, padded right.

        ``mask`` is 0 at padding. If the folder excludes prompts from pooling, the first
        ``prompt_tokens`` (int64 ``[texts]``) of each text are left out, unless there are no others.
        """
        import torch
        from torch.nn import functional

        with torch.autocast(hidden.device.type, enabled=False):
            if not self._pooling.include_prompt:
                mask = pooled_tokens(mask, prompt_tokens)
            vectors = pool(hidden.float(), mask, self._pooling.modes)
            for layer, weights in self._layers:
                vectors = _applied(layer, weights, vectors)
            return functional.normalize(vectors, dim=-1) if self._pooling.normalize else vectors


def pooled_tokens(mask: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
    """``mask`` ``[texts, tokens]`` without each text's first ``skipped``, unless none remain."""
    import torch

    first = torch.where(skipped < mask.sum(dim=1), skipped, 0)
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask * (places[None, :] >= first[:, None])


def pool(hidden: torch.Tensor, mask: torch.Tensor, modes: Sequence[str]) -> torch.Tensor:
    """Pool ``hidden`` ``[texts, tokens, hidden]`` to ``[texts, features]`` where the mask is 1.

    ``modes`` are those of `sparsebert.checkpoint.pooling.Pooling`, concatenated; padding is on the
    right.
    """
    import torch

    mask = mask.long()
    inside = mask.unsqueeze(-1).bool()
    counts = mask.sum(dim=1, keepdim=True)
    rows = torch.arange(len(hidden), device=hidden.device)

    def pooled(mode: str) -> torch.Tensor:
        if mode == "cls":
            return hidden[rows, mask.argmax(dim=1)]
        if mode == "lasttoken":
            return hidden[rows, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
        if mode == "max":
            return hidden.masked_fill(~inside, -float("inf")).amax(dim=1)
        kept = hidden.masked_fill(~inside, 0)
        if mode == "weightedmean":
            places = torch.arange(1, hidden.shape[1] + 1, device=hidden.device).to(hidden.dtype)
            total = (places * mask).sum(dim=1, keepdim=True)
            return (kept * places[None, :, None]).sum(dim=1) / total
        lengths = counts.to(hidden.dtype)
        return kept.sum(dim=1) / (lengths.sqrt() if mode == "mean_sqrt_len" else lengths)

    return torch.cat([pooled(mode) for mode in modes], dim=-1)


def _applied(
    layer: VectorLayer, weights: dict[str, torch.Tensor], vectors: torch.Tensor
) -> torch.Tensor:
    import torch
    from torch.nn import functional

    if layer.kind == "normalize":
        return functional.normalize(vectors, dim=-1)
    if layer.kind == "truncate":
        return vectors[..., : layer.outputs]
    own = {name: value.to(vectors.device) for name, value in weights.items()}
    weight, bias = own["weight"], own.get("bias")
    if layer.kind == "norm":
        return functional.layer_norm(vectors, weight.shape, weight, bias, eps=LAYER_NORM_EPSILON)
    activations: dict[str, Any] = {
        "identity": lambda x: x,
        "tanh": torch.tanh,
        "relu": functional.relu,
        "gelu": functional.gelu,
        "sigmoid": torch.sigmoid,
        "silu": functional.silu,
    }
    found: torch.Tensor = activations[layer.activation](functional.linear(vectors, weight, bias))
    if layer.residual:
        found = found + (vectors @ own["residual"].T if "residual" in own else vectors)
    return found
