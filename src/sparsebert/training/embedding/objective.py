"""The losses of embedding models: cosines of pairs, retrieval, and a teacher's embeddings.

``pairs``: the squared error of a pair's cosine (sentence-transformers' ``CosineSimilarityLoss``).

``retrieval``: a query's own document should be the nearest of all documents in the batch. With s_ij
the cosine of query i and document j, and a scale t (the reciprocal of a temperature), the loss is

    -log( exp(t s_ii) / sum_j exp(t s_ij) )

(``MultipleNegativesRankingLoss``; van den Oord et al. 2018, Henderson et al. 2017). The documents
are those of all rows, including negatives, each once; a document that is right for the query in
another row of the training data is left out.

A teacher's embeddings are learned by the squared distance of vectors scaled to length 1, which is
2 - 2 cosine, averaged over an example's texts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from sparsebert.checkpoint.pooling import Pooling
from sparsebert.evaluation.torch_embedding import TorchPooler
from sparsebert.tasks.table import Kind
from sparsebert.torch_models import model_inputs
from sparsebert.training.distillation.objective import DistillationObjective, Noise
from sparsebert.training.distillation.teacher import Teacher
from sparsebert.training.options import FinetuneOptions

Batch = dict[str, torch.Tensor]


class EmbeddingObjective:
    """The loss of a kind of task. ``similarity`` is "cosine" or "dot", ``scale`` is t above."""

    def __init__(
        self, kind: Kind, pooler: TorchPooler, *, scale: float = 20.0, similarity: str = "cosine"
    ) -> None:
        self._kind = kind
        self._pooler = pooler
        self._scale = scale
        self._unit = similarity == "cosine"

    def loss(self, model: PreTrainedModel, batch: Batch, examples_in_step: int) -> torch.Tensor:
        """See `Objective`; the batch is that of `EmbeddingExamples`."""
        return self.of(model(**model_inputs(model, batch)), batch, examples_in_step)

    def of(self, outputs: Any, batch: Batch, examples_in_step: int) -> torch.Tensor:
        """The loss computed from the encoder's outputs."""
        vectors = self.embeddings(outputs, batch)
        with torch.autocast(vectors.device.type, enabled=False):  # cosines need full precision
            if self._kind is Kind.PAIRS:
                left, right = (vectors[places] for places in batch["pairs"].unbind(dim=1))
                cosines = functional.cosine_similarity(left, right, dim=-1)
                return (cosines - batch["labels"]).square().sum() / examples_in_step
            if self._unit:
                vectors = functional.normalize(vectors, dim=-1)
            queries = vectors[batch["pairs"][:, 0]]
            near = self._scale * queries @ vectors[batch["documents"]].T
            near = near.masked_fill(batch["passed_over"], -torch.inf)
            apart = functional.cross_entropy(near, batch["wanted"], reduction="sum")
        return apart / examples_in_step

    def embeddings(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """float32 ``[texts, width]``, pooled as the folder says."""
        return self._pooler(
            outputs.last_hidden_state, batch["attention_mask"], batch["prompt_tokens"]
        )


class EmbeddingDistillation(DistillationObjective):
    """Distillation of embeddings, hidden states and attention, averaged over an example's texts.

    The teacher's outputs are its embeddings of all distinct texts.
    """

    def __init__(
        self,
        kind: Kind,
        teacher: Teacher,
        options: FinetuneOptions,
        task: EmbeddingObjective,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(kind, teacher, options, task, noise)
        self._embedding = task
        self._teacher_pooler = TorchPooler(teacher.checkpoint.pooling or Pooling())

    def _answers_loss(self, outputs: Any, batch: Batch, answers: Any | None) -> torch.Tensor:
        """Squared distances of unit vectors, ``[texts]``."""
        if answers is None:
            teacher = self._outputs.batch(batch["texts"], 0).to(batch["attention_mask"].device)
        else:
            teacher = self._teacher_pooler(
                answers.last_hidden_state, batch["attention_mask"], batch["prompt_tokens"]
            )
        student = functional.normalize(self._embedding.embeddings(outputs, batch), dim=-1)
        return (student - functional.normalize(teacher, dim=-1)).square().sum(dim=-1)
