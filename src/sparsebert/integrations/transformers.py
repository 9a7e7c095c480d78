"""transformers' pipelines on our engine: change the import, keep the rest.

    from sparsebert.integrations.transformers import pipeline

    classify = pipeline("text-classification", "packed/")
    classify("a gripping, moving film")

What comes back is transformers' own pipeline with the folder's tokenizer and a `SparsebertModel`,
which may also be passed to ``transformers.pipeline`` itself. transformers 5.3 removed the
question-answering task: importing this module registers it again (`question_answering`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import (
    Head,
    publishing,
    resolve_model,
    source_name,
    transformer_folder,
)
from sparsebert.checkpoint.hub_configs import check_in_transformers
from sparsebert.checkpoint.known_keys import MODEL_KWARGS, KnownKeys
from sparsebert.errors import InputError, MissingExtraError
from sparsebert.inference import Model, load

try:
    import torch
    from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedModel
    from transformers import pipeline as transformers_pipeline
    from transformers.modeling_outputs import (
        BaseModelOutput,
        MaskedLMOutput,
        QuestionAnsweringModelOutput,
        SequenceClassifierOutput,
        TokenClassifierOutput,
    )
    from transformers.models.auto import modeling_auto

    from sparsebert.integrations.question_answering import restore_task
except ImportError as error:
    raise MissingExtraError("sparsebert.integrations.transformers", "train") from error

restore_task()

TASKS = {
    "text-classification": Head.SEQUENCE,
    "sentiment-analysis": Head.SEQUENCE,
    "zero-shot-classification": Head.SEQUENCE,
    "question-answering": Head.QUESTION,
    "token-classification": Head.TOKEN,
    "ner": Head.TOKEN,
    "fill-mask": Head.MASKED_LM,
    "feature-extraction": Head.ENCODER,  # takes a model with any head
}
FROM_HUB = ("revision", "token", "cache_dir", "local_files_only")  # which model is downloaded
# Where transformers keeps the class name for each model_type.
_CLASS_NAMES = {
    Head.ENCODER: modeling_auto.MODEL_MAPPING_NAMES,
    Head.SEQUENCE: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    Head.QUESTION: modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    Head.TOKEN: modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    Head.MASKED_LM: modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
}
_OUTPUTS: dict[Head, Callable[[torch.Tensor], Any]] = {
    Head.ENCODER: lambda values: BaseModelOutput(last_hidden_state=values),
    Head.SEQUENCE: lambda values: SequenceClassifierOutput(logits=values),
    Head.QUESTION: lambda values: QuestionAnsweringModelOutput(
        start_logits=values[..., 0], end_logits=values[..., 1]
    ),
    Head.TOKEN: lambda values: TokenClassifierOutput(logits=values),
    Head.MASKED_LM: lambda values: MaskedLMOutput(logits=values),
}


class SparsebertModel(PreTrainedModel):  # type: ignore[misc]
    """A `sparsebert.Model` that is called like a transformers model, for inference only.

    Its inputs and outputs are those of the transformers model of the same folder: ``input_ids`` and
    masks ``[batch, tokens]``, and a ``ModelOutput`` of float32 tensors. It has no torch parameters,
    and computes on the CPU whatever device it is moved to. Padding is not computed: outputs there
    are 0. Pickling stores only the path of its folder, from which another process loads it again.
    """

    _supports_sdpa = True  # the engine has one attention, whatever the config asks for
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __new__(cls, model: Model, task: str | None = None) -> SparsebertModel:
        """Make a subclass with the name of transformers' own, by which pipelines recognise it."""
        check_in_transformers(model.config.family, model.name)
        head = Head.ENCODER if task == "feature-extraction" else model.config.head
        name = _CLASS_NAMES[head][model.config.family.model_type]
        made: SparsebertModel = super().__new__(_named(name))
        return made

    def __init__(self, model: Model, task: str | None = None) -> None:
        """``task`` is a transformers task, or None for what the model's head is made for.

        Raises InputError for a task that is unknown or needs another head, CheckpointError for a
        model that transformers has no class for (JinaBERT).
        """
        _check_task(model, task)
        raw = {key: value for key, value in model.config.raw.items() if key != "architectures"}
        config = CONFIG_MAPPING[model.config.family.model_type].from_dict(raw)
        config.name_or_path = str(transformer_folder(model.path))
        super().__init__(config)
        self.engine = model
        self._task = task
        self._head = Head.ENCODER if task == "feature-extraction" else model.config.head

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, task: str | None = None, threads: int | None = None
    ) -> SparsebertModel:
        """Load a packed, sparse or dense folder, or a hub id, as `sparsebert.load` does."""
        return SparsebertModel(load(model, threads=threads), task)

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Always float32, the type of the outputs, however the weights are stored."""
        return torch.float32

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        return_dict: bool | None = None,
        position_ids: None = None,
        inputs_embeds: None = None,
        labels: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        query_expansion_positions: torch.Tensor | None = None,
    ) -> Any:
        """The outputs of the head (or, for feature extraction, of the last layer).

        Padding may be on either side and never takes up positions. ``query_expansion_positions`` is
        sentence-transformers' name for the tokens that expand a query (bool ``[batch, tokens]``):
        they are computed, whether or not ``attention_mask`` lets the other tokens attend to them.
        ``position_ids``, ``inputs_embeds``, ``labels``, ``output_attentions`` and
        ``output_hidden_states`` are not supported.

        Raises InputError if one of those is asked for, and for a row without tokens or a mask with
        a gap.
        """
        asked = {
            "position_ids": position_ids is not None,
            "inputs_embeds": inputs_embeds is not None,
            "labels": labels is not None,
            "output_attentions": bool(output_attentions),
            "output_hidden_states": bool(output_hidden_states),
        }
        for name, wanted in asked.items():
            if wanted:
                raise InputError(f"the engine is for inference only: it does not support {name}.")
        ids = input_ids.cpu().numpy()
        inside = _inside(ids, attention_mask)
        keys = None
        if query_expansion_positions is not None:
            keys = inside.sum(axis=1).tolist()
            inside = _expanded(inside, query_expansion_positions)
        rows = [row[keep] for row, keep in zip(ids, inside, strict=True)]
        types = None
        # A family without token types ignores them, as its models in transformers do.
        if token_type_ids is not None and self.engine.config.token_types:
            kinds = token_type_ids.cpu().numpy()
            types = [row[keep] for row, keep in zip(kinds, inside, strict=True)]
        found = self.engine.forward(
            rows, types, keys=keys, batch_size=len(rows), head=self._head is not Head.ENCODER
        )
        if self._head is not Head.SEQUENCE:
            padded = np.zeros((*ids.shape, found[0].shape[1]), np.float32)
            padded[inside] = np.concatenate(found)
            found = padded
        output = _OUTPUTS[self._head](torch.from_numpy(found))
        return output.to_tuple() if return_dict is False else output

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: None = None,
        push_to_hub: bool = False,
        variant: None = None,
        **_: object,
    ) -> None:
        """Copy config and weights as they are, packed or not, into a new or existing folder.

        Only in the main process. Raises InputError for other weights (``state_dict``), another name
        (``variant``) or ``push_to_hub``; how transformers divides its files does not matter here.
        """
        asked = {
            "state_dict": state_dict is not None,
            "variant": variant is not None,
            "push_to_hub": push_to_hub,
        }
        for name, wanted in asked.items():
            if wanted:
                raise InputError(
                    "weights are saved as they are, into a folder: save_pretrained does not "
                    f"support {name}."
                )
        if is_main_process:
            publishing.copy_weights(self.engine.path, Path(save_directory))

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (str(self.engine.path), self._task, self.engine.threads)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine!r})"


def pipeline(
    task: str,
    model: str | Path | Model | SparsebertModel,
    *,
    config: None = None,
    tokenizer: Any = None,
    threads: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """transformers' pipeline for ``task``, with ``model`` running on our engine.

    ``model`` is a packed, sparse or dense folder, a hub id, or a model that is already loaded;
    the other arguments are those of ``transformers.pipeline``, except that the settings of the
    model are always those of its config.json. Raises InputError if the model's head does not fit
    the task, or if ``config`` or ``model_kwargs`` would change the model.
    """
    if config is not None:
        raise InputError(
            "sparsebert reads the settings of a model only from its config.json: leave config out."
        )
    given = model_kwargs or {}
    if isinstance(model, str | Path):
        hub = {key: each[key] for each in (given, options) for key in FROM_HUB if key in each}
        folder = resolve_model(model, **hub) / (given.get("subfolder") or "")
        name, model = source_name(model), load(folder, threads=threads)
        model.name = name
    if isinstance(model, Model):
        model = SparsebertModel(model, task)
    _check_task(model.engine, task)
    check_settings(given, MODEL_KWARGS, "model_kwargs", model.config)
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)
    options.setdefault("device", "cpu")
    return transformers_pipeline(
        task, model=model, tokenizer=tokenizer, model_kwargs=dict(given), **options
    )


def check_settings(given: dict[str, Any], keys: KnownKeys, where: str, config: Any) -> None:
    """Raise InputError if the caller's settings would change the model that ``config`` describes.

    ``keys`` says which settings change no answer, ``where`` is the argument that contains them, and
    ``config`` is transformers' own, which also has the values that config.json leaves out.
    """
    absent = object()
    changed = {key: value for key, value in given.items() if getattr(config, key, absent) != value}
    keys.check(changed, where, InputError)


@cache
def _named(name: str) -> type[SparsebertModel]:
    return type(
        name, (SparsebertModel,), {"__module__": __name__, "__doc__": SparsebertModel.__doc__}
    )


def _load_again(folder: str, task: str | None, threads: int) -> SparsebertModel:
    return SparsebertModel.from_pretrained(folder, task=task, threads=threads)


def _check_task(model: Model, task: str | None) -> None:
    if task is None:
        return
    if task not in TASKS:
        raise InputError(f"task must be one of {', '.join(TASKS)}, not '{task}'.")
    needed = TASKS[task]
    if needed not in (Head.ENCODER, model.config.head):
        raise InputError(
            f"{model.name} is a model of the kind {model.config.head.value}, but {task} needs one "
            f"of the kind {needed.value}."
        )


def _expanded(inside: npt.NDArray[np.bool_], expansion: torch.Tensor) -> npt.NDArray[np.bool_]:
    """The mask with the tokens that expand each text; InputError unless they directly follow it."""
    whole: npt.NDArray[np.bool_] = inside | (expansion.cpu().numpy() != 0)
    for row, (text, all_of_it) in enumerate(zip(inside, whole, strict=True)):
        if not (text[: text.sum()].all() and all_of_it[: all_of_it.sum()].all()):
            raise InputError(
                f"row {row} of query_expansion_positions must directly follow its text, and "
                "padding must be on the right."
            )
    return whole


def _inside(ids: npt.NDArray[Any], mask: torch.Tensor | None) -> npt.NDArray[np.bool_]:
    """The attention mask as bool ``[batch, tokens]``; InputError for one that no text can have."""
    if mask is None:
        return np.ones(ids.shape, bool)
    inside: npt.NDArray[np.bool_] = mask.cpu().numpy() != 0
    if inside.shape != ids.shape:
        raise InputError(
            f"attention_mask has the shape {list(inside.shape)} and input_ids {list(ids.shape)}: "
            "both must be [batch, tokens]."
        )
    starts = inside[:, :1].sum(axis=1) + (inside[:, 1:] & ~inside[:, :-1]).sum(axis=1)
    wrong = np.flatnonzero(starts != 1)
    if wrong.size:
        kind = "masks every token" if starts[wrong[0]] == 0 else "has a gap between tokens"
        raise InputError(f"row {wrong[0]} of attention_mask {kind}.")
    return inside
