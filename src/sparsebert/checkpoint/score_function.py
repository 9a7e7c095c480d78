"""The function that turns a sequence classifier's logits into scores; decided only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig, Head
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME, model_settings, read_prompts
from sparsebert.errors import CheckpointError

ScoreFunction = Literal["softmax", "sigmoid", "none"]

# sentence-transformers' CrossEncoder writes the full names of torch's classes.
_ACTIVATIONS: dict[str, ScoreFunction] = {
    "Identity": "none",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


def read_score_function(folder: Path, config: EncoderConfig) -> ScoreFunction:
    """The function that transformers' pipeline and sentence-transformers' CrossEncoder use.

    | folder | function |
    |---|---|
    | ``problem_type`` is regression | none |
    | ``problem_type`` is multi_label_classification | sigmoid |
    | one label | the activation that it names for a CrossEncoder, else sigmoid |
    | several labels, and it names sigmoid but no ``problem_type`` | sigmoid |
    | several labels | softmax |

    Identity, which CrossEncoder writes for every model with several labels, leaves the logit as it
    is for one label only: pipelines turn several labels into probabilities. Raises CheckpointError
    for any other activation.
    """
    single = len(config.labels) == 1
    problem = config.raw.get("problem_type")
    if config.head is not Head.SEQUENCE:
        return "softmax"
    if problem == "regression":
        return "none"
    if problem == "multi_label_classification":
        return "sigmoid"
    if problem is not None and not single:
        return "softmax"
    named = _named_activation(folder, config.raw)
    if named is None or (named == "none" and not single):
        return "sigmoid" if single else "softmax"
    return named


def read_relevance_function(folder: Path, config: EncoderConfig) -> ScoreFunction:
    """The function for rerankers: that of `read_score_function`, unless an activation is named.

    CrossEncoder uses a named one whatever ``problem_type`` says, which pipelines read instead.
    Raises CheckpointError as above.
    """
    usual = read_score_function(folder, config)
    if config.head is not Head.SEQUENCE or len(config.labels) != 1:
        return usual
    return _named_activation(folder, config.raw) or usual


def read_number_function(folder: Path, config: EncoderConfig) -> ScoreFunction:
    """The function whose values a model with one label was trained to predict, if it is a number.

    That of `read_score_function` if the folder names an activation, as a CrossEncoder that was
    trained on scores does, else none: then only its use would tell a regression from a reranker.
    """
    named = _named_activation(folder, config.raw)
    return "none" if named is None else read_score_function(folder, config)


def read_score_prompt(folder: Path) -> str:
    """The text that CrossEncoder puts before each text or pair: its default prompt."""
    return read_prompts(folder, reranker=True).default


def _named_activation(folder: Path, raw: dict[str, Any]) -> ScoreFunction | None:
    """The activation that sentence-transformers 6 would find; older versions wrote it elsewhere."""
    where = folder / MODEL_SETTINGS_NAME
    found = model_settings(folder, reranker=True).get("activation_fn")
    if found is None:
        where = folder / CONFIG_NAME
        section = raw.get("sentence_transformers")
        if isinstance(section, dict) and "activation_fn" in section:
            found = section["activation_fn"]
        else:
            found = raw.get("sbert_ce_default_activation_function")
    if found is None:
        return None
    package, _, name = str(found).rpartition(".")
    if not package.startswith("torch.") or name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{where}: the activation {found!r} for its scores is not supported; use one of "
            f"torch.nn's {', '.join(_ACTIVATIONS)}, or remove it."
        )
    return _ACTIVATIONS[name]
