"""``/predict``, as in text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from sparsebert.checkpoint import Head
from sparsebert.inference.labelling import apply_function
from sparsebert.serving.asking import cutting, require, rows_for
from sparsebert.serving.batching import EngineCall
from sparsebert.serving.schemas import Prediction, PredictRequest
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import WorkRoute

router = APIRouter(route_class=WorkRoute)

_HEAD = EngineCall("head")


@router.post("/predict", response_model=list[Prediction] | list[list[Prediction]])
async def predict(request: Request, body: PredictRequest) -> Any:
    """Labels with scores, best first: a list for a single text or pair, a list a text for a batch.

    Scores are probabilities, or logits with ``raw_scores``.
    """
    model = service_of(request).model(body.model, "/predict")
    require(model, Head.SEQUENCE, "classify")
    rows = await rows_for(
        request,
        model,
        _HEAD,
        body.inputs,
        cut=cutting(request, body.truncate, body.truncation_direction),
    )
    asked = body.parameters
    function = "none" if body.raw_scores else model.model.score_function
    if asked and asked.function_to_apply:
        function = asked.function_to_apply
    scores = apply_function(np.stack(rows), function)
    labels = model.model.config.labels
    order = np.argsort(-scores, axis=-1, kind="stable")[:, : asked.top_k if asked else None]
    found = [
        [{"score": row[place], "label": labels[place]} for place in places]
        for row, places in zip(scores, order.tolist(), strict=True)
    ]
    # Hugging Face's pipelines, and so its clients, give a list of lists for a single text too.
    return found[0] if body.inputs.single and asked is None else found
