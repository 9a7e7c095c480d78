"""The options of a fine-tuning run, checked before anything is loaded.

The one place where each of them has its name, its default and its limits: `finetune`, the command
line and recipes all read them here. Importing this costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sparsebert.errors import PatternError, TrainingError

if TYPE_CHECKING:
    from sparsebert.patterns import Pattern

# Name of an optimiser to what TrainingArguments calls it, and its arguments there.
OPTIMIZERS: dict[str, dict[str, str]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"},
    "adafactor": {"optim": "adafactor"},
}
PRECISIONS = ("auto", "fp32", "bf16")
EMBEDDINGS = ("train", "used", "frozen")
METHODS = ("lock", "gradual", "snip-momentum")
QUANTIZATIONS = ("int8",)

DISTILLING = (
    "temperature",
    "task_weight",
    "logits_weight",
    "hidden_weight",
    "attention_weight",
)
UNLABELLED = ("unlabelled", "unlabelled_rows")
_WORDS = {int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class FinetuneOptions:
    """What `finetune` was asked for, where it can under the names of TrainingArguments.

    What is None is chosen (`sparsebert.training.defaults`). ``max_length``, in tokens, is the
    task's (128; 384 for SQuAD). ``epochs`` are 3, and on few rows as many up to 20 as make 300
    steps. ``learning_rate`` is 5e-5, and 1e-4 for models narrower than BERT-base (768). ``dropout``
    overrides the model's rates for this run: 0 for sparse and for narrow models, the model's own
    for others; the usual 0.1 costs a seventh of the time on a CPU (MiniLM, STS-B, bf16).

    ``max_rows`` trains on a fixed selection that is the same for every seed. ``max_grad_norm`` 0
    turns clipping off. With ``early_stopping`` above 0 the validation split is scored
    after each epoch, training ends after that many epochs without a better main metric, and the
    best epoch's model is kept: it is then chosen on the very split it is scored on, which flatters
    the score.

    ``precision``: "bf16" computes matrix products in bfloat16 while training (weights, optimiser
    and loss stay fp32, and so does scoring); "auto" does so where the processor multiplies
    bfloat16 natively. ``embeddings``: train all word embeddings, only the "used" ones that occur in
    the training rows, or none ("frozen").

    ``method``: "lock" keeps the zeros the model has; "gradual" and "snip-momentum" prune it to
    ``pattern`` while it trains, which ``shared_rows`` adjacent rows share. ``quantize`` "int8"
    trains with the rounding of the int8 engine.

    ``teacher``, a model fine-tuned on the task, makes the loss a sum of up to four terms:
    ``task_weight`` the labels', ``logits_weight`` the teacher's logits' (softened by
    ``temperature``), ``hidden_weight`` its hidden states', ``attention_weight`` its attention's.

    ``unlabelled`` are texts of the same kind without labels, a file or folder
    (`sparsebert.tasks.texts`), of which ``unlabelled_rows`` keeps a fixed selection: training rows
    like the others, to which the teacher alone knows an answer. Where a task has few rows a student
    learns from them what its teacher does on texts that it was not taught with.
    """

    seed: int = 1
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    max_length: int | None = None
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    max_rows: int | None = None
    optimizer: str = "adamw"
    gradient_accumulation: int = 1
    max_grad_norm: float = 1.0
    early_stopping: int = 0
    dropout: float | None = None
    precision: str = "auto"
    embeddings: str = "train"
    method: str = "lock"
    pattern: str = "1:2"
    shared_rows: int = 1
    teacher: str | None = None
    temperature: float = 2.0
    task_weight: float = 0.0
    logits_weight: float = 1.0
    hidden_weight: float = 0.0
    attention_weight: float = 0.0
    quantize: str | None = None
    unlabelled: str | None = None
    unlabelled_rows: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.optimizer not in OPTIMIZERS:
            raise TrainingError(
                f"'{self.optimizer}' is not an optimizer: choose {', '.join(OPTIMIZERS)}."
            )
        for name, choices in (
            ("precision", PRECISIONS),
            ("embeddings", EMBEDDINGS),
            ("method", METHODS),
            ("quantize", QUANTIZATIONS),
        ):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise TrainingError(f"{name} is {' or '.join(choices)}, not '{value}'.")
        for name, least in (
            ("batch_size", 1),
            ("gradient_accumulation", 1),
            ("max_length", 8),
            ("max_rows", 1),
            ("unlabelled_rows", 1),
            ("seed", 0),
            ("early_stopping", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TrainingError(f"{name} must be a whole number from {least}, not {value}.")
        for name in ("epochs", "learning_rate", "temperature"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise TrainingError(f"{name} must be greater than 0, not {value}.")
        for name in ("weight_decay", "max_grad_norm", *DISTILLING[1:]):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} must not be negative, and is {value}.")
        for name in ("warmup_ratio", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise TrainingError(f"{name} must be at least 0 and below 1, not {value}.")
        self._check_together()

    def _check_together(self) -> None:
        """What only makes sense beside something else is refused without it, not ignored."""
        if self.method == "lock":
            self._need_default(
                ("pattern", "shared_rows"), "without a method that prunes while it trains"
            )
        else:
            try:
                _ = self.target
            except PatternError as fault:
                raise TrainingError(str(fault)) from fault
            if self.early_stopping:
                raise TrainingError(
                    f"early_stopping cannot be combined with method '{self.method}': the best "
                    "epoch may be one before the pattern is whole."
                )
        if self.teacher is None:
            self._need_default((*DISTILLING, *UNLABELLED), "without a teacher: name one")
        elif not any(getattr(self, name) for name in DISTILLING[1:]):
            raise TrainingError(
                "task_weight, logits_weight, hidden_weight and attention_weight are all 0: there "
                "is nothing to learn from."
            )
        if self.unlabelled is None:
            self._need_default(UNLABELLED, "without unlabelled texts")
        elif self.task_weight:
            raise TrainingError(
                f"task_weight is {self.task_weight}, and unlabelled texts have no labels to learn "
                "from: leave it at 0, or leave them out."
            )

    @property
    def target(self) -> Pattern:
        """What a method that prunes while it trains prunes to; PatternError if it is none."""
        from sparsebert.patterns import Pattern

        return Pattern.parse(self.pattern, self.shared_rows)

    def _need_default(self, names: tuple[str, ...], where: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(type(self), name):
                raise TrainingError(f"{name} is {getattr(self, name)} but has no meaning {where}.")

    def as_dict(self) -> dict[str, Any]:
        """All options, ready for JSON."""
        return asdict(self)

    def meaningful(self) -> dict[str, Any]:
        """The options that say something: set ones, without those that go with others unset."""
        unused = {*(() if self.teacher else DISTILLING)}
        if self.method == "lock":
            unused.add("pattern")
        if self.shared_rows == 1:
            unused.add("shared_rows")
        return {
            name: value
            for name, value in self.as_dict().items()
            if value is not None and name not in unused
        }


def options_from(given: Mapping[str, Any]) -> FinetuneOptions:
    """`FinetuneOptions` of some named values, a Path as its text.

    TrainingError for a name that is none of them.
    """
    for name in given:
        if name not in OPTION_TYPES:
            raise TrainingError(
                f"'{name}' is not an option of fine-tuning; there are {', '.join(OPTION_TYPES)}."
            )
    plain: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value for name, value in given.items()
    }
    return FinetuneOptions(**plain)


def check_types(options: Any) -> None:
    """TrainingError for an option (a dataclass's field) whose value is of another type."""
    optional = {each.name for each in fields(options) if each.default is None}
    for name, kind in _types(type(options)).items():
        value = getattr(options, name)
        if value is None and name in optional:
            continue
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool):
            raise TrainingError(f"{name} must be {_WORDS[kind]}, not {value!r}.")


def _types(options: type) -> dict[str, type]:
    return {name: _one_type(hint) for name, hint in get_type_hints(options).items()}


def _one_type(hint: Any) -> type:
    """``int`` for ``int`` and for ``int | None``."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    found: type = kinds[0] if isinstance(hint, UnionType) else hint
    return found


OPTION_TYPES = _types(FinetuneOptions)
