"""Inference for the routes: inputs are checked and counted, then tokenised, batched and run.

`infer` returns one array per input of a request; the other functions turn fields of a request into
its arguments (prompt, truncation, engine call) or check them against the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from fastapi import Request

from sparsebert.checkpoint import Head
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.checkpoint.tokenizer_settings import Side
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.embeddings import shortened
from sparsebert.inference.loaded_model import FITTING
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.sparse import SparseEmbedding, TokenLookup
from sparsebert.inference.texts import Text
from sparsebert.serving.errors import WRONG_HEAD, RequestError
from sparsebert.serving.inputs import PredictInputs, TextInputs
from sparsebert.serving.json_route import stats_of
from sparsebert.serving.served_model import Inferred, ServedModel, Truncation
from sparsebert.serving.service import service_of


async def infer(
    request: Request,
    model: ServedModel,
    call: EngineCall,
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    truncation: Truncation | None = None,
    prompt: str = "",
) -> list[Floats]:
    """Run ``call`` on texts, pairs and lists of token ids; one float32 array for each, in order.

    ``label`` is the field's name in messages, ``truncation`` how a text that is too long is
    truncated (None refuses it), and ``prompt`` is prepended to each text and to the first text of
    each pair.
    Raises RequestError and ClientGone.
    """
    found = await infer_each(
        request, model, [call], inputs, label=label, truncation=truncation, prompt=prompt
    )
    return found.results[0]


async def infer_each(
    request: Request,
    model: ServedModel,
    calls: Sequence[EngineCall],
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    truncation: Truncation | None = None,
    prompt: str = "",
    advice: str = '"truncate": true',
    task: Task | None = None,
) -> Inferred:
    """As `infer`, for several calls on the same inputs, which are tokenised once.

    ``advice`` is the field with which a client asks for truncation. With a ``task``, a multi-vector
    model reads the texts as queries or documents.
    """
    name = field_name(label, single=inputs.single)
    items = checked_items(request, model, inputs, label=label, truncation=truncation, prompt=prompt)

    def tokenize() -> Sequence[Tokens]:
        return model.tokenize(items, name, truncation, advice, task)

    return await model.run(stats_of(request), calls, tokenize, lambda: disconnected(request))


async def look_up(
    request: Request,
    model: ServedModel,
    lookup: TokenLookup,
    inputs: TextInputs,
    *,
    truncation: Truncation | None,
    prompt: str,
) -> list[SparseEmbedding]:
    """Sparse embeddings of texts and lists of token ids from a lookup table, without the engine.

    Raises RequestError.
    """
    name = field_name("inputs", single=inputs.single)
    items = checked_items(request, model, inputs, truncation=truncation, prompt=prompt)

    def embedded() -> list[SparseEmbedding]:
        return model.look_up(lookup, items, name, truncation)

    found: list[SparseEmbedding] = await model.in_tokenizer_pool(embedded)
    stats_of(request).sequences += len(items)
    return found


def checked_items(
    request: Request,
    model: ServedModel,
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    truncation: Truncation | None = None,
    prompt: str = "",
) -> list[Text | list[int]]:
    """The inputs after the prompt, checked against the limits and counted in the statistics.

    Raises RequestError.
    """
    service, stats = service_of(request), stats_of(request)
    service.check_count(len(inputs.items), label)
    name = field_name(label, single=inputs.single)
    items = [_with_prompt(prompt, item) for item in inputs.items]
    for index, item in enumerate(items):
        characters = 0 if isinstance(item, list) else _characters(item)
        if truncation is None:
            service.check_characters(characters, name(index))
        stats.characters += characters
    stats.model = model.name
    stats.items += len(items)
    return items


def field_name(label: str, *, single: bool) -> Callable[[int], str]:
    """What messages call the text at an index: the field itself if it is not a list."""
    return lambda index: label if single else f"{label}[{index}]"


def truncation_of(
    request: Request, truncate: bool | None, side: Side | None = None, tokens: int | None = None
) -> Truncation | None:
    """The truncation that a request asks for; the server's default where ``truncate`` is None.

    ``tokens`` is vLLM's ``truncate_prompt_tokens``: a number, or -1 for the model's maximum.
    """
    if tokens is not None:
        return Truncation(side, None if tokens == -1 else tokens)
    wanted = service_of(request).options.auto_truncate if truncate is None else truncate
    return Truncation(side) if wanted else None


def _with_prompt(prompt: str, item: Text | list[int]) -> Text | list[int]:
    if isinstance(item, str):
        return prompt + item
    return item if isinstance(item, list) else (prompt + item[0], item[1])


def _characters(item: Text) -> int:
    return len(item) if isinstance(item, str) else len(item[0]) + len(item[1])


def prompt_for(
    model: ServedModel, items: Sequence[Text | list[int]], name: str | None, *, default: bool = True
) -> str:
    """The prompt called ``name``; the model's default for None, and no prompt for "".

    RequestError if there is no such prompt, or if it cannot be prepended to these inputs.
    """
    if not name:
        return model.prompts.default if name is None and default else ""
    try:
        prompt = model.prompts.named(name, model.name)
    except InputError as error:
        raise RequestError(422, str(error), param="prompt_name") from None
    if not all(isinstance(item, str) for item in items):
        raise RequestError(422, "prompt_name can only be used with texts.", param="prompt_name")
    return prompt


async def infer_logits(
    request: Request,
    model: ServedModel,
    inputs: TextInputs | PredictInputs,
    *,
    label: str = "inputs",
    truncation: Truncation | None = None,
) -> Floats:
    """A classifier's logits, float32 ``[texts, labels]``. Raises RequestError, ClientGone."""
    call = model.model.logits_call
    rows = await infer(
        request,
        model,
        call,
        inputs,
        label=label,
        truncation=truncation,
        prompt=model.model.score_prompt,
    )
    made: Floats = await model.in_tokenizer_pool(lambda: model.model.logits_of(rows))
    return made


async def embed_tokens(
    request: Request,
    model: ServedModel,
    inputs: TextInputs,
    *,
    task: Task,
    label: str = "inputs",
    truncation: Truncation | None = None,
    prompt: str | None = None,
) -> list[Floats]:
    """The vectors of each text's tokens, as `Model.embed_tokens`: float32 ``[kept, width]``.

    A ``prompt`` of None is the model's own for the task. Raises RequestError, ClientGone.
    """
    embedder, call = model.model.token_vectors, EngineCall("hidden", per_token=True)
    before = model.model.task_prompt(task) if prompt is None else prompt
    (rows,), read = await infer_each(
        request,
        model,
        [call],
        inputs,
        label=label,
        truncation=truncation,
        prompt=before,
        task=task,
    )
    if embedder is None:
        return rows

    def vectors() -> list[Floats]:
        return [
            embedder.vectors(states, tokens, task)
            for states, tokens in zip(rows, read, strict=True)
        ]

    made: list[Floats] = await model.in_tokenizer_pool(vectors)
    return made


async def embed(
    request: Request,
    model: ServedModel,
    inputs: TextInputs | PredictInputs,
    *,
    normalize: bool,
    label: str = "inputs",
    truncation: Truncation | None = None,
    prompt: str = "",
) -> list[Floats]:
    """One embedding per text, as the model's folder says. Raises RequestError, ClientGone."""
    skipped = skipped_tokens(model, inputs, prompt)
    call, finish = embedding_call(model, skipped, normalize=normalize)
    rows = await infer(
        request, model, call, inputs, label=label, truncation=truncation, prompt=prompt
    )
    return await finish(rows)


def skipped_tokens(
    model: ServedModel, inputs: TextInputs | PredictInputs, prompt: str
) -> list[int]:
    """How many leading tokens of each input are not pooled; token ids have no prompt."""
    skipped = model.model.prompt_tokens(prompt)
    return [0 if isinstance(item, list) else skipped for item in inputs.items]


def embedding_call(
    model: ServedModel, skipped: int | Sequence[int], *, normalize: bool
) -> tuple[EngineCall, Callable[[list[Floats]], Awaitable[list[Floats]]]]:
    """The engine call for texts, and a function that turns its rows into embeddings.

    The first ``skipped`` tokens (one number for all texts, or one per text) are not pooled.
    """
    pooler = model.model.pooler
    try:
        call = pooler.call(normalize=normalize, skipped=np.max(skipped, initial=0))
    except CheckpointError as error:
        raise RequestError(424, str(error), code=WRONG_HEAD) from error

    async def finish(rows: list[Floats]) -> list[Floats]:
        if not call.per_token and not pooler.pooling.layers:
            return rows
        made: Floats = await model.in_tokenizer_pool(
            lambda: pooler.embeddings(call, rows, normalize=normalize, skipped=skipped)
        )
        return list(made)

    return call, finish


def check_dimensions(model: ServedModel, dimensions: int | None) -> None:
    """RequestError for more dimensions than the model's embeddings have."""
    width = model.model.embedding_width()
    if dimensions is not None and not 1 <= dimensions <= width:
        raise RequestError(
            422,
            f"dimensions must be from 1 to {width}, the length of {model.name}'s embeddings.",
            param="dimensions",
        )


def truncate_dimensions(
    embeddings: list[Floats], dimensions: int | None, *, normalize: bool
) -> list[Floats]:
    """The first ``dimensions`` of each embedding (Matryoshka), normalised again if ``normalize``.

    None leaves them unchanged.
    """
    if dimensions is None:
        return embeddings
    return list(shortened(np.stack(embeddings), dimensions, normalize=normalize))


def require_head(model: ServedModel, head: Head, verb: str) -> None:
    """RequestError 424, as in TEI, if the model has another head."""
    if model.head is not head:
        raise RequestError(
            424,
            f"{model.name} is {FITTING[model.head][0]} and cannot {verb}: that requires "
            f"{FITTING[head][0]}. It answers {', '.join(model.routes)}.",
            code=WRONG_HEAD,
        )


async def disconnected(request: Request) -> None:
    """Return once the client has disconnected; the body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
