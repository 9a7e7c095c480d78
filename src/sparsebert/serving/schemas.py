"""The JSON of text-embeddings-inference's routes and of ``/answer``: requests and responses.

Besides TEI's own fields, every request takes ``model``, the name of the model to use.
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
    """A JSON object: null means that a field was not given, and values are not converted.

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
    """A JSON object whose unknown fields are refused, except ``harmless`` ones.

    They might change the answer, as they do at another server.
    """

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
            raise wrong("", f"has a field that is not supported here; supported fields: {known}.")
        return given


class NoParameters(Parameters):
    """For routes without parameters, whose clients may still send an empty object."""


class RequestBody(Parameters):
    # Of Hugging Face's API (whether to wait for a model, ...), and who asks.
    harmless: ClassVar[tuple[str, ...]] = ("options", "user")

    model: str | None = Field(
        None,
        description="The model to use; by default, the first that can answer. A server with a "
        "single model accepts any name.",
    )


Direction = Annotated[Literal["left", "right"], LowerCase]
Truncate = Annotated[
    bool | None,
    Field(description="Truncate texts that are too long; by default, as set on the server."),
]
SideToCut = Annotated[
    Direction | None,
    Field(description="The side on which texts are truncated; by default, the model's own."),
]


Count = Annotated[int, Field(ge=1), Whole]
TopN = Annotated[Count | None, Field(description="The maximum number of results; by default, all.")]
Thousand = Annotated[int, Field(ge=1, le=1000), Whole]
TruncatePromptTokens = Annotated[
    Annotated[int, Field(ge=-1), Whole] | None,
    Field(
        description="As in vLLM: truncate texts to this many tokens; -1 is the model's maximum.",
    ),
]


class CutBody(RequestBody):
    truncate: Truncate = None
    truncation_direction: SideToCut = None


class PromptedBody(CutBody):
    inputs: Inputs
    prompt_name: str | None = Field(
        None,
        description="The name of a sentence-transformers prompt to put before the texts; by "
        'default, the model\'s default prompt. "" means none.',
    )
    parameters: NoParameters = NoParameters()


class EmbedRequest(PromptedBody):
    normalize: bool = True
    encoding_format: Literal["float"] = "float"
    dimensions: Count | None = Field(
        None, description="Truncate each embedding to this many numbers (Matryoshka models)."
    )


class EmbedAllRequest(PromptedBody):
    task: Task = Field(
        "document",
        description="What the texts are, for a multi-vector model (ColBERT), which treats queries "
        "and documents differently and has a prompt for each.",
    )


class EmbedSparseRequest(PromptedBody):
    task: Task | None = Field(
        None,
        description="What the texts are. Selects the prompt and, if the model has separate routes "
        "for queries and documents, the route.",
    )


class SparseValue(BaseModel):
    """A token id of the model's vocabulary, and its weight."""

    index: int
    value: float


class HybridEmbedding(BaseModel):
    """A text's three embeddings from one pass; ``tokens`` has one vector per token."""

    dense: list[float]
    sparse: list[SparseValue]
    tokens: list[list[float]]


class PipelineParameters(Parameters):
    """What `huggingface_hub.InferenceClient.text_classification` may send."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class PredictRequest(CutBody):
    inputs: Pairs
    raw_scores: bool = Field(False, description="Return logits instead of probabilities.")
    parameters: PipelineParameters | None = Field(
        None,
        description="Options of Hugging Face's pipelines; with them, the answer to a single text "
        "is a list of one list, as theirs is.",
    )


class Prediction(BaseModel):
    score: float
    label: str


class RerankRequest(CutBody):
    query: Filled
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False
    top_n: TopN = None


class Rank(BaseModel):
    index: int
    score: float
    text: str | None = None


class SimilarityInput(Parameters):
    source_sentence: Filled
    sentences: FilledList


class SimilarityParameters(Parameters):
    truncate: Truncate = None
    truncation_direction: SideToCut = None
    prompt_name: str | None = None


class SimilarityRequest(CutBody):
    """``truncate`` and ``truncation_direction`` may also be in ``parameters``, as in TEI."""

    inputs: SimilarityInput
    parameters: SimilarityParameters = SimilarityParameters()


class QuestionInput(Parameters):
    question: Filled
    context: Filled


class AnswerParameters(Parameters):
    """Names and meanings are those of transformers' question-answering pipeline."""

    top_k: Thousand = 1
    doc_stride: Annotated[int, Field(ge=1, le=100_000), Whole] = 128
    max_answer_len: Thousand = 30
    max_seq_len: Annotated[int, Field(ge=32, le=100_000), Whole] = 384
    align_to_words: Never = Field(
        False, description="Not supported: answers begin and end at token boundaries."
    )
    handle_impossible_answer: bool = Field(
        False,
        description="Whether the answer may be that there is none, an empty text. By default as in "
        "the model's training: true after SQuAD v2.",
    )


class AnswerRequest(RequestBody):
    inputs: QuestionInput
    parameters: AnswerParameters = AnswerParameters.model_validate({})


class AnswerSpan(BaseModel):
    """Characters ``[start, end)`` of the context; the score is a softmax over the n-best spans."""

    answer: str
    score: float
    start: int
    end: int


class TagParameters(Parameters):
    """Names and meanings are those of transformers' token-classification pipeline."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: list[str] = Field(["O"], description="Labels to leave out.")


class TagRequest(CutBody):
    inputs: Strings
    parameters: TagParameters = TagParameters.model_validate({})


class TaggedEntity(BaseModel):
    """Characters ``[start, end)`` of the text, with the entity's type or the token's label."""

    entity_group: str | None = None
    entity: str | None = None
    score: float
    word: str
    start: int
    end: int


class FillParameters(Parameters):
    """Names and meanings are those of transformers' fill-mask pipeline."""

    top_k: Thousand = 5


class FillRequest(CutBody):
    inputs: Strings
    parameters: FillParameters = FillParameters.model_validate({})


class FilledToken(BaseModel):
    """A token, its probability, its text, and the whole text with it in place of the mask."""

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
