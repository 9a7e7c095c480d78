"""The options of a fine-tuning run: name, type, default, limits and help of each, declared once.

`finetune`, the command line and recipes all read them from here. Importing this module is cheap.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from sparsebert.errors import PatternError, TrainingError
from sparsebert.options import Options, declarations, dependents, option
from sparsebert.tasks.data_options import DataKeywords

if TYPE_CHECKING:
    from sparsebert.patterns import Pattern

# Optimisers by name, as arguments of TrainingArguments.
OPTIMIZERS: dict[str, dict[str, str]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"},
    "adafactor": {"optim": "adafactor"},
}
OPTIMIZER_STATES = {"adamw": 2, "sgd": 1, "adafactor": 0}  # floats that each keeps per weight
PRECISIONS = ("auto", "fp32", "bf16")
EMBEDDINGS = ("train", "used", "frozen")
METHODS = ("lock", "gradual", "snip-momentum")
QUANTIZATIONS = ("int8",)

_WEIGHTS = ("task_weight", "logits_weight", "hidden_weight", "attention_weight")


@dataclass(frozen=True)
class FinetuneOptions(Options):
    """How `finetune` trains.

    If these options are None, they are chosen for the model and the data
    (`sparsebert.training.defaults`):

    - ``max_length``, in tokens: 128; 256 for named entities, 384 for SQuAD; for pairs and retrieval
      the folder's own, 512 at most;
    - ``epochs``: 3; with few rows, as many as it takes to make 300 steps, up to 20;
    - ``learning_rate``: 5e-5; 1e-4 for models narrower than BERT-base (768);
    - ``dropout``, which overrides the model's own rates for this run: 0 for sparse and for narrow
      models, else the model's own. The usual 0.1 costs a seventh of the time on a CPU (MiniLM,
      STS-B, bf16);
    - ``scale``, by which the loss of retrieval multiplies cosines
      (`sparsebert.training.embedding.objective`): 20; 1 for models that compare by scalar product.

    ``max_rows`` trains on a fixed selection of rows, the same for every seed. ``max_grad_norm`` 0
    turns clipping off. With ``early_stopping`` above 0, the validation split is scored after each
    epoch, training ends after that many epochs without a better main metric, and the model of the
    best epoch is kept. That epoch is then chosen on the very split that it is scored on, which
    flatters the score.

    ``precision`` "bf16" computes matrix products in bfloat16 while training (weights, optimiser,
    loss and scoring stay in fp32); "auto" does so if the processor multiplies bfloat16 natively.
    ``embeddings`` says which word embeddings train: all ("train"), those that occur in the training
    rows ("used"), or none ("frozen").

    ``method`` "lock" keeps the zeros that the model has; "gradual" and "snip-momentum" prune it
    while it trains, to ``pattern``, which ``shared_rows`` adjacent rows share. ``quantize`` "int8"
    trains with the rounding of the int8 engine.

    ``teacher`` is a model that was fine-tuned on the task, or an encoder that is fine-tuned on it
    first. With it, the loss is the sum of up to four terms: ``task_weight`` weighs that of the
    labels, ``logits_weight`` that of the teacher's logits (softened by ``temperature``),
    ``hidden_weight`` that of its hidden states, and ``attention_weight`` that of its attention.

    With ``token_noise``, each step replaces tokens by random ones, for teacher and student alike,
    with a probability that is drawn for each text from 0 to this number
    (`sparsebert.training.distillation.noise`). It is for few rows and many epochs.

    ``unlabelled`` is a file or folder of texts of the same kind without labels
    (`sparsebert.tasks.texts`), of which ``unlabelled_rows`` keeps a fixed selection. They are
    training examples whose only targets are the teacher's outputs. If a task has few rows, they
    show the student how the teacher answers texts that it was not trained on.

    Raises TrainingError for a value that has the wrong type or is out of range, and for options
    that make no sense together.
    """

    error = TrainingError
    purpose = "fine-tuning"

    seed: int = option(1, least=0, help="Fixes the new head, the order of rows and the dropout.")
    epochs: float | None = option(
        None,
        above=0,
        help="Passes over the training rows, above 0.",
        shown_default="3; with few rows up to 20, to make 300 steps",
    )
    learning_rate: float | None = option(
        None,
        above=0,
        help="Peak learning rate, above 0; it rises and falls linearly.",
        shown_default="5e-5; 1e-4 for models narrower than BERT-base",
    )
    batch_size: int = option(32, least=1, help="Rows per batch; halved when memory runs out.")
    max_length: int | None = option(
        None,
        least=8,
        help="Maximum tokens per row, in training and from then on.",
        shown_default="128, 384 for squad, 256 for ner; for pairs and retrieval the model's own, "
        "at most 512",
    )
    warmup_ratio: float = option(
        0.06,
        least=0,
        below=1,
        help="Share of the steps over which the learning rate rises, 0 to below 1.",
    )
    weight_decay: float = option(
        0.01, least=0, help="Weight decay, except on biases and layer norms."
    )
    max_rows: int | None = option(
        None,
        least=1,
        help="Train on a fixed selection of this many rows, the same for every seed.",
        shown_default="all",
    )
    optimizer: str = option(
        "adamw",
        choices=OPTIMIZERS,
        metavar="NAME",
        help="adamw, sgd (momentum 0.9) or adafactor.",
    )
    gradient_accumulation: int = option(1, least=1, help="Batches per optimiser step.")
    max_grad_norm: float = option(
        1.0, least=0, help="Clip gradients to this norm; 0 turns clipping off."
    )
    early_stopping: int = option(
        0,
        least=0,
        help="Stop after this many epochs without a better score and keep the best epoch; 0 turns "
        "it off. The epoch is chosen on the validation split itself, which flatters the score.",
    )
    dropout: float | None = option(
        None,
        least=0,
        below=1,
        help="Dropout in training, 0 to below 1. Small and pruned models do better, and train "
        "faster, with 0.",
        shown_default="0 for sparse or small models, else the model's own",
    )
    precision: str = option(
        "auto",
        choices=PRECISIONS,
        metavar="NAME",
        help="fp32, or bf16: matrix products in bfloat16, weights and scoring in fp32. auto is "
        "bf16 if the processor has instructions for it.",
    )
    embeddings: str = option(
        "train",
        choices=EMBEDDINGS,
        metavar="NAME",
        help="Word embeddings to train: all (train), only those of words in the training rows "
        "(used: faster, and the others lose nothing) or none (frozen).",
    )
    method: str = option(
        "lock",
        choices=METHODS,
        metavar="NAME",
        help="lock keeps the model's zeros; gradual and snip-momentum start from a dense model and "
        "prune it step by step as it trains.",
        without="without a method that prunes while it trains",
    )
    pattern: str = option(
        "1:2",
        metavar="N:M",
        help="For gradual and snip-momentum: keep N of every M adjacent weights.",
        needs="method",
    )
    shared_rows: int = option(
        1,
        metavar="ROWS",
        help="Make every ROWS adjacent outputs keep the same inputs (1:2 only; a multiple of 16): "
        "faster on CPUs that gain nothing from zeros that differ from row to row, at some cost in "
        "accuracy.",
        shown_default="1: not shared",
        needs="method",
    )
    scale: float | None = option(
        None,
        above=0,
        help="With --task retrieval: factor on the cosines before the softmax over a batch's "
        "documents; the reciprocal of a temperature.",
        shown_default="20; 1 for a model that compares by scalar product",
    )
    teacher: str | None = option(
        None,
        metavar="MODEL",
        help="Dense model to learn from: the student is trained to answer as it does. May be a "
        "folder of seeds; a plain encoder is fine-tuned first, into OUT.teacher.",
        without="without a teacher: name one",
    )
    temperature: float = option(
        2.0,
        above=0,
        help="With a teacher: softens both models' answers; above 0.",
        needs="teacher",
    )
    task_weight: float = option(
        0.0, least=0, help="With a teacher: weight of the true labels in the loss.", needs="teacher"
    )
    logits_weight: float = option(
        1.0, least=0, help="With a teacher: weight of its answers in the loss.", needs="teacher"
    )
    hidden_weight: float = option(
        0.0,
        least=0,
        help="With a teacher: weight of its hidden states in the loss.",
        needs="teacher",
    )
    attention_weight: float = option(
        0.0, least=0, help="With a teacher: weight of its attention in the loss.", needs="teacher"
    )
    token_noise: float = option(
        0.0,
        least=0,
        below=1,
        help="With a teacher: in each step, replace a text's tokens by random ones, with a "
        "probability of up to this, so that hardly any text is read twice.",
        needs="teacher",
    )
    quantize: str | None = option(
        None,
        choices=QUANTIZATIONS,
        metavar="int8",
        help="Train and score with the int8 engine's rounding, so that packing with --dtype int8 "
        "costs nothing.",
    )
    unlabelled: str | None = option(
        None,
        metavar="TEXTS",
        help="With a teacher: more texts of the same kind, without labels, for it to answer: a "
        ".txt file with one text per line, a table (parquet, csv, jsonl) or a folder with a train "
        "file.",
        needs="teacher",
        without="without unlabelled texts",
    )
    unlabelled_rows: int | None = option(
        None,
        least=1,
        help="Use a fixed selection of this many unlabelled texts.",
        shown_default="all",
        needs="unlabelled",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method != "lock":
            try:
                _ = self.target
            except PatternError as fault:
                raise TrainingError(str(fault)) from fault
            if self.early_stopping:
                raise TrainingError(
                    f"early_stopping cannot be combined with method '{self.method}': the best "
                    "epoch may come before the pattern is complete."
                )
        if self.teacher is not None and not any(getattr(self, name) for name in _WEIGHTS):
            raise TrainingError(
                "task_weight, logits_weight, hidden_weight and attention_weight are all 0: there "
                "is nothing to learn from."
            )
        if self.unlabelled is not None and self.task_weight:
            raise TrainingError(
                f"task_weight is {self.task_weight}, but unlabelled texts have no labels: leave "
                "task_weight at 0, or leave the texts out."
            )
        if self.token_noise and self.task_weight:
            raise TrainingError(
                f"task_weight is {self.task_weight}, but with token_noise the texts are not those "
                "that were labelled: set one of them to 0."
            )

    def wrong_choice(self, name: str, value: str, choices: Collection[str]) -> str:
        """The message for a value that is not one of the choices."""
        if name == "optimizer":
            return f"'{value}' is not a known optimizer: choose from {', '.join(choices)}."
        return f"{name} must be {' or '.join(choices)}, not '{value}'."

    @property
    def target(self) -> Pattern:
        """The pattern to prune to while training. Raises PatternError if it is invalid."""
        from sparsebert.patterns import Pattern

        return Pattern.parse(self.pattern, self.shared_rows)

    def meaningful(self) -> dict[str, Any]:
        """The options that are set and take effect, without those whose condition is not met."""
        needs = {name: each.needs for name, each in declarations(type(self)).items()}
        unused = {name for name, needed in needs.items() if needed and self.is_default(needed)}
        if self.shared_rows == 1:
            unused.add("shared_rows")
        return {
            name: value
            for name, value in self.as_dict().items()
            if value is not None and name not in unused
        }


NEED_TEACHER = dependents(FinetuneOptions, "teacher")


class FinetuneKeywords(TypedDict, total=False):
    """`FinetuneOptions` as keyword arguments, for type checkers and editors.

    ``seed`` is not among them: `finetune` declares it itself, and `finetune_seeds` has no such
    argument.
    """

    epochs: float | None
    learning_rate: float | None
    batch_size: int
    max_length: int | None
    warmup_ratio: float
    weight_decay: float
    max_rows: int | None
    optimizer: str
    gradient_accumulation: int
    max_grad_norm: float
    early_stopping: int
    dropout: float | None
    precision: str
    embeddings: str
    method: str
    pattern: str
    shared_rows: int
    scale: float | None
    teacher: str | Path | None
    temperature: float
    task_weight: float
    logits_weight: float
    hidden_weight: float
    attention_weight: float
    token_noise: float
    quantize: str | None
    unlabelled: str | Path | None
    unlabelled_rows: int | None


class TrainingKeywords(FinetuneKeywords, DataKeywords, total=False):
    """The ``**options`` of `finetune`: options of training and of the data."""
