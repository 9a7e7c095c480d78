"""The JSON of text-embeddings-inference's routes and of ``/answer``: requests and responses.

Beside TEI's own fields every request takes ``model``, the name of the model to ask.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sparsebert.serving.inputs import Ids, Inputs, LowerCase, Pairs


class RequestBody(BaseModel):
    """Fields nobody knows are passed over, and no value is converted into another type."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    model: str | None = Field(None, description="The model to ask; the first if left out.")


Direction = Annotated[Literal["left", "right"], LowerCase]
Truncate = Annotated[
    bool | None,
    Field(description="Cut a text that is too long; the server's own choice if left out."),
]


class CutBody(RequestBody):
    truncate: Truncate = None
    truncation_direction: Direction = "right"


class PromptedBody(CutBody):
    inputs: Inputs
    prompt_name: str | None = Field(
        None,
        description="A sentence-transformers prompt's name; without it the model's default prompt "
        'stands before the texts to embed, and with "" none.',
    )


class EmbedRequest(PromptedBody):
    normalize: bool = True
    dimensions: int | None = Field(
        None, description="Keep this many numbers of each embedding (Matryoshka models)."
    )


class EmbedAllRequest(PromptedBody):
    pass


class PipelineParameters(BaseModel):
    """What `huggingface_hub.InferenceClient.text_classification` may send."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    top_k: int | None = Field(None, ge=1)
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
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class Rank(BaseModel):
    index: int
    score: float
    text: str | None = None


class SimilarityInput(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    truncate: Truncate = None
    truncation_direction: Direction = "right"
    prompt_name: str | None = None


class SimilarityRequest(RequestBody):
    inputs: SimilarityInput
    parameters: SimilarityParameters = SimilarityParameters()


class QuestionInput(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    question: str
    context: str


class AnswerParameters(BaseModel):
    """Names and meaning are those of transformers' question-answering pipeline."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    top_k: int = Field(1, ge=1, le=1000)
    doc_stride: int = Field(128, ge=1, le=100_000)
    max_answer_len: int = Field(30, ge=1, le=1000)
    max_seq_len: int = Field(384, ge=1, le=100_000)
    handle_impossible_answer: Literal[False] = Field(
        False, description="Models here are those of SQuAD v1.1: there is always an answer."
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


class TokenizeRequest(RequestBody):
    inputs: Inputs
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


ModelType = dict[str, dict[str, Any]]
