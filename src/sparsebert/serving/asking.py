"""What the routes ask models for: rows for texts, counted, checked and cut as a request says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from fastapi import Request

from sparsebert.checkpoint import Head
from sparsebert.inference.texts import Text
from sparsebert.inference.tokenizer_class import Side
from sparsebert.serving.batching import EngineCall, Floats
from sparsebert.serving.errors import WRONG_HEAD, RequestError
from sparsebert.serving.inputs import PredictInputs, TextInputs
from sparsebert.serving.served_model import Cut, ServedModel
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import work_of

_KINDS = {
    Head.ENCODER: "an encoder without a head",
    Head.SEQUENCE: "a sequence-classification model",
    Head.QUESTION: "a question-answering model",
    Head.TOKEN: "a token-classification model",
    Head.MASKED_LM: "a masked-lm model",
}


async def rows_for(
    request: Request,
    model: ServedModel,
    call: EngineCall,
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    cut: Cut | None = None,
    prompt: str = "",
) -> list[Floats]:
    """What ``call`` gives for texts, pairs and lists of token ids, in order.

    ``label`` is what messages call the field, ``cut`` how a text that is too long is cut (it is
    refused without), and ``prompt`` a text that is put before each text and the first of each pair.
    Raises RequestError.
    """
    (rows,) = await rows_of_each(
        request, model, [call], inputs, label=label, cut=cut, prompt=prompt
    )
    return rows


async def rows_of_each(
    request: Request,
    model: ServedModel,
    calls: Sequence[EngineCall],
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    cut: Cut | None = None,
    prompt: str = "",
    advice: str = '"truncate": true',
) -> list[list[Floats]]:
    """As `rows_for`, for several calls about the same texts, which are tokenised once.

    ``advice`` is what to send for texts to be cut.
    """
    service, work = service_of(request), work_of(request)
    service.check_count(len(inputs.items), label)
    name = naming(label, single=inputs.single)
    items = [_behind(prompt, item) for item in inputs.items]
    for place, item in enumerate(items):
        characters = 0 if isinstance(item, list) else _characters(item)
        if cut is None:
            service.check_characters(characters, name(place))
        work.characters += characters
    work.model = model.name
    work.items += len(items)
    return await model.run(
        work,
        calls,
        lambda: model.sequences(items, name, cut, advice),
        lambda: disconnected(request),
    )


def naming(label: str, *, single: bool) -> Callable[[int], str]:
    """What messages call the text at a place: the field itself where the client gave no list."""
    return lambda place: label if single else f"{label}[{place}]"


def cutting(
    request: Request, truncate: bool | None, side: Side | None = None, tokens: int | None = None
) -> Cut | None:
    """How a request wants its texts cut; the server's own choice where ``truncate`` is None.

    ``tokens`` is vLLM's ``truncate_prompt_tokens``: a number, or -1 for as many as the model takes.
    """
    if tokens is not None:
        return Cut(side, None if tokens == -1 else tokens)
    wanted = service_of(request).options.auto_truncate if truncate is None else truncate
    return Cut(side) if wanted else None


def _behind(prompt: str, item: Text | list[int]) -> Text | list[int]:
    if isinstance(item, str):
        return prompt + item
    return item if isinstance(item, list) else (prompt + item[0], item[1])


def _characters(item: Text) -> int:
    return len(item) if isinstance(item, str) else len(item[0]) + len(item[1])


def prompt_for(
    model: ServedModel, items: Sequence[Text | list[int]], name: str | None, *, default: bool = True
) -> str:
    """The model's prompt of that name; without one its default, and none for the name "".

    RequestError if it has no such prompt, or cannot put it before these.
    """
    if not name:
        return model.prompts.default if name is None and default else ""
    if name not in model.prompts.texts:
        known = ", ".join(model.prompts.texts) or "none"
        raise RequestError(
            422,
            f"{model.name} has no prompt of that name; it has {known}.",
            param="prompt_name",
        )
    if not all(isinstance(item, str) for item in items):
        raise RequestError(422, "prompt_name goes with texts only.", param="prompt_name")
    prompt = model.prompts.texts[name]
    if prompt and not model.model.pooling.include_prompt:
        raise RequestError(
            424, f"{model.name} pools without the tokens of a prompt, which is not supported."
        )
    return prompt


def pooled(model: ServedModel, *, normalize: bool) -> EngineCall:
    """The call for one vector a text, pooled as the model's folder says."""
    return EngineCall("pooled", pooling=model.model.pooling.mode, normalize=normalize)


def check_dimensions(model: ServedModel, dimensions: int | None) -> None:
    """RequestError for more numbers than the model's embeddings have."""
    width = model.model.config.hidden_size
    if dimensions is not None and not 1 <= dimensions <= width:
        raise RequestError(
            422,
            f"dimensions must be from 1 to {width}, the length of {model.name}'s embeddings.",
            param="dimensions",
        )


def shortened(rows: list[Floats], dimensions: int | None, *, normalize: bool) -> list[Floats]:
    """The first ``dimensions`` numbers of each vector, scaled to length 1 again if ``normalize``.

    As models trained with Matryoshka losses are meant to be cut; None leaves them as they are.
    """
    if dimensions is None:
        return rows
    short = np.stack(rows)[:, :dimensions]
    if normalize:
        short = short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), np.float32(1e-12))
    return list(np.ascontiguousarray(short))


def require(model: ServedModel, head: Head, verb: str) -> None:
    """RequestError 424, TEI's status for it, if the model's head cannot do what is asked."""
    if model.head is not head:
        raise RequestError(
            424,
            f"{model.name} is {_KINDS[model.head]} and cannot {verb}: that takes {_KINDS[head]}. "
            f"It answers {', '.join(model.routes)}.",
            code=WRONG_HEAD,
        )


async def disconnected(request: Request) -> None:
    """Ends when the client has gone; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
