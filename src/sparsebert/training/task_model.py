"""A checkpoint with the head of a task: its own head if it fits, otherwise a new one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.architecture import POOLER, WORDS, expected_shapes, last_layer
from sparsebert.checkpoint.config import Head, parse_config
from sparsebert.checkpoint.embedding_kinds import kind_without_dense
from sparsebert.checkpoint.hub_configs import check_in_transformers
from sparsebert.checkpoint.score_function import read_score_prompt
from sparsebert.checkpoint.sparsity import pattern_record
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.patterns import BoolMatrix, Pattern, detect, is_whole
from sparsebert.tasks.labels import are_unnamed, label_order, same_labels
from sparsebert.tasks.table import Kind, Task
from sparsebert.training.options import FinetuneOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_answers(checkpoint: Checkpoint) -> None:
    """TrainingError for a model whose folder would not answer as fine-tuning teaches it.

    It makes sparse embeddings or one vector per token, or it puts a prompt before each text.
    """
    kind = kind_without_dense(checkpoint)
    if kind:
        raise TrainingError(
            f"{checkpoint.source} is {kind}, which sparsebert can prune, pack and run but not "
            "fine-tune: fine-tune it with sentence-transformers, or save its encoder by itself."
        )
    if prompt := read_score_prompt(checkpoint.path):
        raise TrainingError(
            f"{checkpoint.source} is a CrossEncoder that puts {prompt!r} before each text, which "
            "fine-tuning does not do: remove default_prompt_name from its settings, and put the "
            "prompt into the rows."
        )


def keeps_head(checkpoint: Checkpoint, task: Task) -> bool:
    """Whether the checkpoint was fine-tuned on this task, or on one with the same labels.

    For embedding tasks: whether its folder has the modules of an embedding model.
    """
    config = checkpoint.config
    if task.embeds:
        return checkpoint.pooling is not None
    if config.head is not task.head:
        return False
    if config.problem_type not in (None, task.kind.problem_type):
        return False
    if task.kind is Kind.LABEL_SETS and config.problem_type is None:
        return False
    if task.kind is Kind.REGRESSION:
        return config.problem_type == "regression" and len(config.labels) == 1
    return not task.kind.named or same_labels(task, config.labels)


def replaced_head(checkpoint: Checkpoint, task: Task) -> list[str]:
    """A note if the model has a head of the task's kind for other labels, which is replaced.

    Otherwise, fine-tuning on further rows that lack a class would silently discard the trained
    head.
    """
    if checkpoint.config.head is not task.head or task.embeds or keeps_head(checkpoint, task):
        return []
    before, after = (
        ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        for labels in (checkpoint.config.labels, head_labels(checkpoint, task))
    )
    return [f"the model's head for {before} was replaced by a new one for {after}."]


def task_config(checkpoint: Checkpoint, task: Task) -> dict[str, Any]:
    """config.json of the checkpoint with the task's head, labels and problem type."""
    raw = copy.deepcopy(checkpoint.config.raw)
    family = checkpoint.config.family
    check_in_transformers(family, checkpoint.source)
    if task.head not in (Head.ENCODER, *family.heads):
        raise TrainingError(
            f"{checkpoint.source} is a {family.display_name}, for which transformers has no "
            f"{task.head.value} head."
        )
    raw["architectures"] = [family.architecture(task.head)]
    raw["model_type"] = family.model_type
    for key in (
        "_name_or_path",
        "id2label",
        "label2id",
        "num_labels",
        "_num_labels",
        "problem_type",
    ):
        raw.pop(key, None)
    raw.pop("torch_dtype", None)
    raw["dtype"] = "float32"
    names = head_labels(checkpoint, task)
    if not names:
        return raw
    raw["id2label"] = {str(index): name for index, name in enumerate(names)}
    raw["label2id"] = {name: index for index, name in enumerate(names)}
    if task.kind.problem_type is not None:
        raw["problem_type"] = task.kind.problem_type
    return raw


def head_labels(checkpoint: Checkpoint, task: Task) -> tuple[str, ...]:
    """The names of the head's outputs: its own if the head is kept, otherwise the task's.

    Empty for the start and end of a span, and for embeddings.
    """
    if task.embeds:
        return ()
    if task.kind is Kind.REGRESSION:
        return ("LABEL_0",)
    if keeps_head(checkpoint, task) and not are_unnamed(checkpoint.config.labels):
        return checkpoint.config.labels
    return task.labels


def head_order(checkpoint: Checkpoint, task: Task) -> Any:
    """The position of each of the task's labels in the head, int64 ``[labels]``, if it has any."""
    if not task.kind.named:
        return None
    return label_order(task, head_labels(checkpoint, task))[0]


def lasting_masks(
    masks: dict[str, BoolMatrix], checkpoint: Checkpoint, task: Task
) -> dict[str, BoolMatrix]:
    """The masks of the layers that the model keeps.

    A last layer of the head that is replaced loses its mask, and so does a layer that the new head
    does not have.
    """
    config = parse_config(task_config(checkpoint, task), (), checkpoint.path)
    kept = expected_shapes(config)
    if not task.embeds and not keeps_head(checkpoint, task):
        kept.pop(str(last_layer(config)))
    return {name: mask for name, mask in masks.items() if name in kept}


def sparsity_record(
    raw: dict[str, Any],
    checkpoint: Checkpoint,
    masks: dict[str, BoolMatrix],
    options: FinetuneOptions,
) -> dict[str, Any]:
    """``raw`` with a ``sparsity`` record of the layers in ``masks``; unchanged if it needs none.

    A folder that another tool made sparse has no record: its pattern is detected from the masks, if
    they all have the same one. A method that pruned during training records its own pattern. Only
    layers whose masks have the pattern are recorded, and none if no layer has: the only one may
    have been a head that was replaced.
    """
    if not masks and "sparsity" not in raw:
        return raw
    record = dict(raw.get("sparsity") or {"format_version": 1, "method": None, "lineage": []})
    known: Pattern | None
    if options.method == "lock":
        known = checkpoint.config.recorded_pattern
    else:
        known = options.target
        record["method"] = options.method
    patterns = {known} if known else {detect(mask) for mask in masks.values()}
    pattern = patterns.pop() if len(patterns) == 1 else None
    layers = sorted(name for name, mask in masks.items() if pattern and is_whole(mask, pattern))
    record.pop("shared_rows", None)
    record |= pattern_record(pattern if layers else None)
    record["layers"] = layers
    return {**raw, "sparsity": record}


def build_model(
    checkpoint: Checkpoint,
    raw: dict[str, Any],
    *,
    keep_head: bool,
    dropout: float | None,
    seed: int,
) -> PreTrainedModel:
    """transformers' model of config ``raw`` with the checkpoint's weights, in fp32.

    What the checkpoint lacks (such as a pooler that was never saved) is initialised by transformers
    from ``seed``. Without ``keep_head``, so is the head's last layer, because it belongs to a task;
    earlier layers of the head, if any, are kept, because they have learned to read the encoder.
    ``dropout`` overrides every dropout rate in the config.
    """
    import torch
    import transformers

    transformers.set_seed(seed)
    described = parse_config(raw, (), checkpoint.path)
    config = transformers.CONFIG_MAPPING[described.family.model_type].from_dict(raw)
    if dropout is not None:
        for name in config.to_dict():
            if "dropout" in name:
                setattr(config, name, dropout)
    arguments: dict[str, Any] = {}
    if described.head is Head.ENCODER and described.family.pooler:  # embeddings do not use it
        arguments["add_pooling_layer"] = f"{POOLER}.weight" in checkpoint.stored_name
    model: PreTrainedModel = getattr(transformers, raw["architectures"][0])(config, **arguments)
    head = described.head_shape
    fresh = () if head is None or keep_head else (f"{head.last}.weight", head.last_bias)
    words = model.get_input_embeddings().weight
    state = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        known = described.family.canonical(name)
        if known in fresh or (parameter is words and known != WORDS):  # a tied decoder
            continue
        if known not in checkpoint.stored_name:
            if known.startswith(("embeddings.", "encoder.")):
                raise CheckpointError(f"{checkpoint.path} has no tensor '{known}'.")
            continue
        weight = torch.tensor(checkpoint.finite_weight(known))
        if weight.shape != parameter.shape:
            raise CheckpointError(
                f"{checkpoint.path}: tensor '{known}' has shape {list(weight.shape)} instead of "
                f"{list(parameter.shape)}."
            )
        state[name] = weight
    model.load_state_dict(state, strict=False)
    return model
