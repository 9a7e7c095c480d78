"""The JSON of text-embeddings-inference's routes and of ``/answer``: requests and responses.

Beside TEI's own fields every request takes ``model``, the name of the model to ask.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparsebert.checkpoint.multi_vector import Task
from sparsebert.serving.inputs import (
    Filled,
    FilledList,
    Ids,
    Inputs,
    LowerCase,
    Never,
    Pairs,
    Strings,
    Texts,
    Whole,
    wrong,
)


def _allow_nulls(schema: dict[str, Any]) -> None:
    for name, field in schema.get("properties", {}).items():
        if name in schema.get("required", ()):
            continue
        described = {key: field.pop(key) for key in ("title", "description") if key in field}
        default = {"default": field.pop("default")} if "default" in field else {}
        choices = field["anyOf"] if set(field) == {"anyOf"} else [field]
        if {"type": "null"} not in choices:
            choices = [*choices, {"type": "null"}]
        schema["properties"][name] = {"anyOf": choices, **described, **default}


class Fields(BaseModel):
    """A JSON object: null is a field that was not given, and no value is converted.

    Unknown fields are ignored.
    """

    model_config = ConfigDict(
        strict=True, extra="ignore", hide_input_in_errors=True, json_schema_extra=_allow_nulls
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None}


class Parameters(Fields):
    """A JSON object whose unknown fields are refused, but for ``harmless`` ones."""

    model_config = ConfigDict(extra="forbid")
    harmless: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _all_known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = {name: item for name, item in value.items() if item is not None}
        for name in cls.harmless:
            given.pop(name, None)
        if set(given) - set(cls.model_fields):
            known = ", ".join(cls.model_fields) or "none"
            raise wrong("", f"has a field that is not supported here; supported are: {known}.")
        return given


class NoParameters(Parameters):
    """For routes whose clients may send ``parameters`` of another task."""


class RequestBody(Fields):
    model: str | None = Field(
        None,
        description="The model to ask; if left out the first that can do it. Where one model is "
        "served, it answers to any name.",
    )


Direction = Annotated[Literal["left", "right"], LowerCase]
Truncate = Annotated[
    bool | None,
    Field(description="Cut a text that is too long; the server's own choice if left out."),
]
SideToCut = Annotated[
    Direction | None,
    Field(description="The end at which it is cut; the model's own choice if left out."),
]


Count = Annotated[int, Field(ge=1), Whole]
Thousand = Annotated[int, Field(ge=1, le=1000), Whole]
TruncatePromptTokens = Annotated[
    Annotated[int, Field(ge=-1), Whole] | None,
    Field(
        description="As in vLLM: cut texts to this many tokens; -1 is as many as the model takes.",
    ),
]


class CutBody(RequestBody):
    truncate: Truncate = None
    truncation_direction: SideToCut = None


class PromptedBody(CutBody):
    inputs: Inputs
    prompt_name: str | None = Field(
        None,
        description="A sentence-transformers prompt's name; without it the model's default prompt "
        'stands before the texts to embed, and with "" none.',
    )
    parameters: NoParameters = NoParameters()


class EmbedRequest(PromptedBody):
    normalize: bool = True
    dimensions: Count | None = Field(
        None, description="Keep this many numbers of each embedding (Matryoshka models)."
    )


class EmbedAllRequest(PromptedBody):
    task: Task = Field(
        "document",
        description="What the texts are to a multi-vector model (ColBERT), which reads and expands "
        "queries otherwise than documents, behind prompts of their own.",
    )


class EmbedSparseRequest(PromptedBody):
    task: Task | None = Field(
        None,
        description="What the texts are: of a model with routes for queries and documents, the "
        "route that they take; of others, the prompt that is put before them.",
    )


class SparseValue(BaseModel):
    """A token id of the model's vocabulary, and its weight."""

    index: int
    value: float


class HybridEmbedding(BaseModel):
    """A text's three embeddings of one pass; ``tokens`` has a vector for each token."""

    dense: list[float]
    sparse: list[SparseValue]
    tokens: list[list[float]]


class PipelineParameters(Parameters):
    """What `huggingface_hub.InferenceClient.text_classification` may send."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class PredictRequest(CutBody):
    inputs: Pairs
    raw_scores: bool = Field(False, description="The logits, instead of probabilities.")
    parameters: PipelineParameters | None = Field(
        None,
        description="The form of Hugging Face's pipelines; with it the answer to a single text is "
        "a list of one list, as theirs is.",
    )


class Prediction(BaseModel):
    score: float
    label: str


class RerankRequest(CutBody):
    query: Filled
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False


class Rank(BaseModel):
    index: int
    score: float
    text: str | None = None


class SimilarityInput(Fields):
    source_sentence: Filled
    sentences: FilledList


class SimilarityParameters(Parameters):
    truncate: Truncate = None
    truncation_direction: SideToCut = None
    prompt_name: str | None = None


class SimilarityRequest(CutBody):
    """``truncate`` and ``truncation_direction`` may stand in ``parameters`` too, as in TEI."""

    inputs: SimilarityInput
    parameters: SimilarityParameters = SimilarityParameters()


class QuestionInput(Fields):
    question: Filled
    context: Filled


class AnswerParameters(Parameters):
    """Names and meaning are those of transformers' question-answering pipeline."""

    top_k: Thousand = 1
    doc_stride: Annotated[int, Field(ge=1, le=100_000), Whole] = 128
    max_answer_len: Thousand = 30
    max_seq_len: Annotated[int, Field(ge=32, le=100_000), Whole] = 384
    align_to_words: Never = Field(
        False, description="An answer begins and ends where a token does."
    )
    handle_impossible_answer: bool = Field(
        False,
        description="Whether the answer may be that there is none, an empty text. What is not "
        "given is as in the model's training: true after SQuAD v2.",
    )


class AnswerRequest(RequestBody):
    inputs: QuestionInput
    parameters: AnswerParameters = AnswerParameters.model_validate({})


class AnswerSpan(BaseModel):
    """Characters ``[start, end)`` of the context, and their share of the n-best list."""

    answer: str
    score: float
    start: int
    end: int


class TagParameters(Parameters):
    """Names and meaning are those of transformers' token-classification pipeline."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: list[str] = Field(["O"], description="Labels that are left out.")


class TagRequest(CutBody):
    inputs: Strings
    parameters: TagParameters = TagParameters.model_validate({})


class TaggedEntity(BaseModel):
    """Characters ``[start, end)`` of the text, with the entity's kind, or its token's label."""

    entity_group: str | None = None
    entity: str | None = None
    score: float
    word: str
    start: int
    end: int


class FillParameters(Parameters):
    """Names and meaning are those of transformers' fill-mask pipeline."""

    top_k: Thousand = 5


class FillRequest(CutBody):
    inputs: Strings
    parameters: FillParameters = FillParameters.model_validate({})


class FilledToken(BaseModel):
    """A token, its probability, its text, and the whole text with it in the mask's place."""

    score: float
    token: int
    token_str: str
    sequence: str


class TokenizeRequest(RequestBody):
    inputs: Strings
    add_special_tokens: bool = True
    prompt_name: str | None = None


class SimpleToken(BaseModel):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeRequest(RequestBody):
    ids: Ids
    skip_special_tokens: bool = True


class ErrorResponse(BaseModel):
    error: str
    error_type: str
