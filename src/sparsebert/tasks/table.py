"""The tasks sparsebert knows by name: their columns, labels, metrics and source on the hub.

A `Task` has everything that the rest of the package needs to know, so that adding a benchmark means
adding a row. Columns, label order and metrics are those of GLUE (Wang et al. 2018, as
``nyu-mll/glue`` on the hub) and SQuAD v1.1 (Rajpurkar et al. 2016, ``rajpurkar/squad``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from sparsebert.checkpoint.config import Head
from sparsebert.errors import DataError
from sparsebert.tasks.files import TABLE_TYPES


class Kind(str, Enum):
    """The kind of prediction, which determines head, labels and shape of the logits.

    Other modules dispatch on it with a table by kind: reading a row's answer
    (`sparsebert.tasks.examples`), tokenising and scoring rows (`sparsebert.evaluation.scoring`),
    the loss (`sparsebert.training.objective`) and the distillation loss
    (`sparsebert.training.distillation.losses`).
    """

    CLASSIFICATION = "classification"
    LABEL_SETS = "multi-label"
    REGRESSION = "regression"
    TOKENS = "token-classification"
    QUESTION = "question-answering"
    PAIRS = "pairs"
    RETRIEVAL = "retrieval"

    @property
    def head(self) -> Head:
        """The model head that this kind needs."""
        return _HEADS.get(self, Head.SEQUENCE)

    @property
    def problem_type(self) -> str | None:
        """Its name in config.json (``problem_type``); None if transformers has no name for it."""
        return {
            Kind.CLASSIFICATION: "single_label_classification",
            Kind.LABEL_SETS: "multi_label_classification",
            Kind.REGRESSION: "regression",
        }.get(self)

    @property
    def named(self) -> bool:
        """Whether answers come from a set of names, those of the head's outputs."""
        return self in (Kind.CLASSIFICATION, Kind.LABEL_SETS, Kind.TOKENS)

    @property
    def per_token(self) -> bool:
        """Whether a row's logits are ``[tokens, outputs]`` rather than ``[outputs]``."""
        return self in (Kind.TOKENS, Kind.QUESTION)


EMBEDDING_KINDS = (Kind.PAIRS, Kind.RETRIEVAL)
"""Tasks for embedding models, which have no head and read each text by itself."""
_HEADS = {
    Kind.TOKENS: Head.TOKEN,
    Kind.QUESTION: Head.QUESTION,
    **dict.fromkeys(EMBEDDING_KINDS, Head.ENCODER),
}


@dataclass(frozen=True)
class Task:
    """One task.

    ``text_columns`` holds one column, or two for pairs (SQuAD: question and context; retrieval:
    query and relevant document, with irrelevant ones in ``negative_columns``). For named entities,
    the one column has the words. ``labels`` are the names in the order of their integer ids; empty
    for a kind without names.

    ``metrics`` are names of `sparsebert.evaluation.metrics`, in the order in which results show
    them; ``main_metric`` is the one that early stopping watches (on the first validation split).
    ``label_range`` bounds a regression's labels. ``positive`` is the label for which ``f1`` is
    computed; None for the mean over the classes. ``positions`` allows integers in the data to stand
    for labels by their index; ``numbers`` are the labels they stand for if the data names them.
    ``flag_columns`` replace ``label_column`` by one column of zeros and ones per label.
    ``threshold`` is the probability from which a label counts, for several labels per row, or, if
    questions may be ``unanswerable``, by how much "no answer" must exceed the best answer (a
    difference of logits).

    ``file_types`` are the endings of files that can be read (`sparsebert.tasks.files`).
    ``glue_columns`` pairs columns with their names in the benchmark's own files. ``quoted_texts``
    says that texts in those files are enclosed in quotes that are part of the text.
    """

    name: str
    title: str
    kind: Kind
    text_columns: tuple[str, ...]
    metrics: tuple[str, ...]
    main_metric: str
    labels: tuple[str, ...] = ()
    negative_columns: tuple[str, ...] = ()
    label_column: str = "label"
    flag_columns: tuple[str, ...] = ()
    label_range: tuple[float, float] | None = None
    hub_id: str | None = None
    hub_config: str | None = None
    validation_splits: tuple[str, ...] = ("validation",)
    max_length: int = 128
    positive: str | None = None
    positions: bool = True
    numbers: tuple[str, ...] = ()
    threshold: float | None = None
    unanswerable: bool = False
    file_types: tuple[str, ...] = TABLE_TYPES
    glue_columns: tuple[tuple[str, str], ...] = ()
    quoted_texts: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the task needs: texts and, if it has them, labels."""
        label = (self.label_column,) if self.label_column else ()
        return (*self.text_columns, *self.negative_columns, *label, *self.flag_columns)

    @property
    def head(self) -> Head:
        """The model head that this task needs."""
        return self.kind.head

    @property
    def embeds(self) -> bool:
        """Whether the task is for embedding models."""
        return self.kind in EMBEDDING_KINDS


_GLUE = "nyu-mll/glue"
_PAIR = ("sentence1", "sentence2")
_ENTAILS = ("entailment", "not_entailment")


def _classification(
    name: str,
    title: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    validation_splits: tuple[str, ...] = ("validation",),
    glue_columns: tuple[tuple[str, str], ...] = (),
    quoted_texts: bool = False,
) -> Task:
    return Task(
        name=name,
        title=title,
        kind=Kind.CLASSIFICATION,
        text_columns=columns,
        labels=labels,
        metrics=metrics,
        main_metric=metrics[0],
        hub_id=_GLUE,
        hub_config=name,
        validation_splits=validation_splits,
        positive=labels[1] if "f1" in metrics else None,
        glue_columns=glue_columns,
        quoted_texts=quoted_texts,
    )


_SST2 = _classification("sst2", "SST-2", ("sentence",), ("negative", "positive"))
_COLA = _classification(
    "cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), metrics=("matthews",)
)
_MRPC = _classification(
    "mrpc",
    "MRPC",
    _PAIR,
    ("not_equivalent", "equivalent"),
    metrics=("accuracy", "f1"),
    glue_columns=(
        ("sentence1", "#1 String"),
        ("sentence2", "#2 String"),
        ("label", "Quality"),
    ),
)
_QQP = _classification(
    "qqp",
    "QQP",
    ("question1", "question2"),
    ("not_duplicate", "duplicate"),
    metrics=("accuracy", "f1"),
    glue_columns=(("label", "is_duplicate"),),
    quoted_texts=True,
)
_MNLI = _classification(
    "mnli",
    "MNLI-m/mm",
    ("premise", "hypothesis"),
    ("entailment", "neutral", "contradiction"),
    validation_splits=("validation_matched", "validation_mismatched"),
    glue_columns=(
        ("premise", "sentence1"),
        ("hypothesis", "sentence2"),
        ("label", "gold_label"),
    ),
)
_QNLI = _classification("qnli", "QNLI", ("question", "sentence"), _ENTAILS)
_RTE = _classification("rte", "RTE", _PAIR, _ENTAILS)
_STSB = Task(
    name="stsb",
    title="STS-B",
    kind=Kind.REGRESSION,
    text_columns=_PAIR,
    metrics=("pearson", "spearman"),
    main_metric="pearson",
    label_range=(0.0, 5.0),
    glue_columns=(("label", "score"),),
    hub_id=_GLUE,
    hub_config="stsb",
)
_SQUAD = Task(
    name="squad",
    title="SQuAD v1.1",
    kind=Kind.QUESTION,
    text_columns=("question", "context"),
    metrics=("exact_match", "f1"),
    main_metric="f1",
    label_column="answers",
    hub_id="rajpurkar/squad",
    max_length=384,
)
_SQUAD_V2 = replace(
    _SQUAD,
    name="squad_v2",
    title="SQuAD v2",
    hub_id="rajpurkar/squad_v2",
    threshold=0.0,
    unanswerable=True,
)
_ALL = (_MNLI, _QQP, _QNLI, _SST2, _COLA, _STSB, _MRPC, _RTE, _SQUAD, _SQUAD_V2)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
CUSTOM = "custom"
NER = "ner"
PAIRS = "pairs"
RETRIEVAL = "retrieval"
EMBEDDING_LENGTH = 512  # most tokens per text in training an embedding model
OWN_TASKS: tuple[str, ...] = (CUSTOM, NER, PAIRS, RETRIEVAL)
"""Tasks whose columns and labels come from the user's data (`sparsebert.tasks.own`)."""
TASK_NAMES: tuple[str, ...] = (*TASKS, *OWN_TASKS)


def task_name(name: str) -> str:
    """The entry of `TASK_NAMES` for a name (``SST-2`` gives ``sst2``). DataError if unknown."""
    plain = {each.replace("-", "").replace("_", ""): each for each in TASK_NAMES}
    key = name.lower().replace("-", "").replace("_", "")
    if key not in plain:
        raise DataError(f"'{name}' is not a task; the tasks are {', '.join(TASK_NAMES)}.")
    return plain[key]


def is_own(name: str) -> bool:
    """Whether the task of this name is defined by the user's data. DataError if unknown."""
    return task_name(name) in OWN_TASKS


def get_task(name: str) -> Task:
    """The task of this name (``SST-2``, ``sst2`` or ``SST2``). DataError if unknown.

    `OWN_TASKS` are not in the table, as their data defines them: see `sparsebert.tasks.own`.
    """
    key = task_name(name)
    if key not in TASKS:
        raise DataError(f"the task {key} is defined by its data, and no data was given.")
    return TASKS[key]
