"""`diagnose`: every check that applies to the given model and data, in one report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sparsebert.checkpoint import open_checkpoint, resolve_model, transformer_folder
from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.diagnosis.answers import check_answers
from sparsebert.diagnosis.documents import check_documents
from sparsebert.diagnosis.examples import check_examples
from sparsebert.diagnosis.labels import check_labels, majority
from sparsebert.diagnosis.lengths import check_lengths, check_tokenizer
from sparsebert.diagnosis.masks import check_masks
from sparsebert.diagnosis.memory import Plan, check_memory
from sparsebert.diagnosis.optimizer_state import OPTIMIZER_NAME, check_checkpoints
from sparsebert.diagnosis.records import TrainingRecord, read_training, unreadable
from sparsebert.diagnosis.report import Check, Report
from sparsebert.diagnosis.seeds import Runs, check_difference, check_seeds
from sparsebert.diagnosis.system import available_memory
from sparsebert.diagnosis.tables import TaskData, read_data
from sparsebert.diagnosis.training_run import Majorities, check_run, check_scores
from sparsebert.diagnosis.weights import check_opening, check_weights
from sparsebert.errors import CheckpointError, DataError, reading
from sparsebert.evaluation.scored_rows import trained_options
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.machine import cpu_flags
from sparsebert.packing import is_packed, open_packed
from sparsebert.progress import Progress, shown
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.own import unread_task
from sparsebert.tasks.table import TASK_NAMES, Kind, Task
from sparsebert.training.checkpoint_folders import checkpoints_in, work_folder_of
from sparsebert.training.defaults import usual_dropout
from sparsebert.training.options import FinetuneOptions


def diagnose(
    model: str | Path | None = None,
    *,
    data: str | Path | None = None,
    task: str | None = None,
    against: str | Path | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    label_columns: str | None = None,
    label_names: str | None = None,
    regression: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check a model, its training and its data for known problems, each with a remedy.

    ``model`` is a model folder (dense, sparse or packed), a hub id, a folder of seeds or a
    training's folder of checkpoints. ``data`` is read as data of ``task``, which defaults to the
    one the model was trained on. ``against`` is another model or folder of seeds to compare scores
    with. Memory is estimated for ``batch_size`` and ``max_length``, which default to those of the
    training, else to the defaults of `finetune`. The columns of ``data``, ``label_names`` and
    ``regression`` are those of `sparsebert.tasks.data_options.DataOptions` and default to the
    training's.

    Problems are reported, not raised. CheckpointError if there is no such folder, DataError if
    there is no such task or data, or if data was given and its task is not known; TrainingError
    for a size that `finetune` would not take.
    """
    sizes = {"batch_size": batch_size, "max_length": max_length}
    FinetuneOptions.from_names({name: size for name, size in sizes.items() if size is not None})
    columns = DataOptions(
        text_column,
        pair_column,
        label_column,
        label_columns,
        label_names=label_names,
        regression=regression,
    )
    return _Doctor(
        model, data, task, against, batch_size, max_length, columns, shown(progress)
    ).report()


@dataclass(frozen=True)
class Subject:
    """What is diagnosed: a model folder, a folder of seeds, or a training's checkpoints.

    ``models`` are the model folders below ``path``: itself, or one for each seed. ``checkpoints``
    are the Trainer's ``checkpoint-N`` folders in it or in ``PATH.training``.
    """

    path: Path
    models: tuple[Path, ...]
    checkpoints: tuple[Path, ...]


def find_subject(model: str | Path) -> Subject:
    """Find out what ``model`` is. CheckpointError if it holds no model and no checkpoints."""
    with reading(model, CheckpointError):
        return _subject(resolve_model(model))


def _subject(path: Path) -> Subject:
    both = (path, work_folder_of(path))
    checkpoints = [each for folder in both for each in checkpoints_in(folder).values()]
    if (path / OPTIMIZER_NAME).is_file():
        checkpoints.insert(0, path)
    if _is_model(path):
        return Subject(path, (path,), tuple(checkpoints))
    seeds = list(seed_folders(path).values())
    for seed in seeds:
        checkpoints += checkpoints_in(work_folder_of(seed)).values()
    if not seeds and not checkpoints:
        raise CheckpointError(
            f"{path} is not a model folder (it has no {CONFIG_NAME}), nor does it hold seeds "
            "(seed-1, seed-2, ...) or training checkpoints."
        )
    return Subject(path, tuple(seeds), tuple(checkpoints))


def _is_model(folder: Path) -> bool:
    try:
        return (transformer_folder(folder) / CONFIG_NAME).is_file()
    except CheckpointError:  # a damaged modules.json: opening the folder says what is wrong
        return True


class _Doctor:
    def __init__(
        self,
        model: str | Path | None,
        data: str | Path | None,
        task: str | None,
        against: str | Path | None,
        batch_size: int | None,
        max_length: int | None,
        columns: DataOptions,
        progress: Progress,
    ) -> None:
        self._data, self._against = data, against
        self._batch_size, self._max_length = batch_size, max_length
        self._columns, self._progress = columns, progress
        self._name = None if model is None else str(model)
        self._subject = None if model is None else find_subject(model)
        self._records: dict[Path, TrainingRecord] = {}
        self._damaged: list[Check] = []
        for folder in self._subject.models if self._subject else ():
            self._read_record(folder)
        self._task = task or self._trained_task()

    def report(self) -> Report:
        """All checks, causes before effects: model, data, training."""
        data = self._read_data()
        checks = [
            *(self._model_checks(self._subject) if self._subject else ()),
            *(self._data_checks(data) if data else ()),
            *self._training_checks(data),
        ]
        return Report(
            self._name,
            None if self._data is None else str(self._data),
            self._task if data else None,
            tuple(checks),
        )

    def _read_record(self, folder: Path) -> None:
        try:
            record = read_training(folder)
        except CheckpointError as error:
            self._damaged.append(unreadable(folder, error))
        else:
            if record is not None:
                self._records[folder] = record

    def _trained_task(self) -> str | None:
        names = {record.word("task") for record in self._records.values()}
        name = names.pop() if len(names) == 1 else None
        return name if name in TASK_NAMES else None

    def _model_checks(self, subject: Subject) -> Iterator[Check]:
        for folder in subject.models:
            for check in self._folder_checks(folder):
                yield self._named(check, folder)
        yield from check_checkpoints(subject.checkpoints, subject.models)
        opened = self._opened()
        if opened is not None:
            yield from check_memory(opened, self._plan(opened), available_memory())

    def _folder_checks(self, folder: Path) -> Iterator[Check]:
        opening = check_opening(folder)
        yield opening
        if not opening.findings:
            yield from check_weights(folder)
            yield check_tokenizer(folder)
            yield from check_masks(folder, self._progress)

    def _named(self, check: Check, folder: Path) -> Check:
        """The check labelled with its seed, if there are several."""
        assert self._subject is not None
        if len(self._subject.models) == 1:
            return check
        return replace(check, group=f"{check.group} of {folder.name}")

    def _opened(self) -> Path | None:
        """The first model that can be opened; all seeds have the same size."""
        models = self._subject.models if self._subject else ()
        return next((folder for folder in models if _config(folder) is not None), None)

    def _plan(self, folder: Path) -> Plan:
        record = self._records.get(folder)
        config = _config(folder)
        assert config is not None
        family = config.family
        asked = record.number("dropout") if record else usual_dropout(config)
        rates = [
            config.raw.get(family.fields.get(name, name), family.defaults.get(name, 0.1))
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        ]
        dropout = (
            asked
            if asked is not None
            else max((rate for rate in rates if isinstance(rate, int | float)), default=0.1)
        )
        batch = record.number("batch_size") if record else None
        return Plan(
            batch_size=self._batch_size or max(int(batch or FinetuneOptions.batch_size), 1),
            max_length=self._length(config),
            dropout=dropout > 0,
            optimizer=(record.word("optimizer") if record else None) or FinetuneOptions.optimizer,
            embeddings=(record.word("embeddings") if record else None)
            or FinetuneOptions.embeddings,
            precision=_precision(record),
        )

    def _length(self, config: EncoderConfig) -> int:
        known = next(
            (record.max_length for record in self._records.values() if record.max_length), None
        )
        task = None if self._task is None else unread_task(self._task)
        usual = Task.max_length if task is None else task.max_length
        length = min(self._max_length or known or usual, config.max_length)
        folder = self._opened()
        if task is None or not task.embeds or self._max_length or folder is None:
            return length
        tokenizer = folder_tokenizer(folder, positions=config.max_length)
        return min(length, tokenizer.max_length) if tokenizer else length

    def _read_data(self) -> TaskData | None:
        if self._data is None:
            return None
        if self._task is None:
            raise DataError(
                f"which task is {self._data} for? The model does not say: name the task (--task)."
            )
        folder = self._opened()
        config = None if folder is None else _config(folder)
        labels = None
        if config is not None and self._records and config.labels:
            labels = () if config.problem_type == "regression" else config.labels
        columns = self._columns
        if folder is not None and folder in self._records:
            columns = trained_options(folder, self._task, columns)
        return read_data(self._task, self._data, labels, columns, folder)

    def _data_checks(self, data: TaskData) -> Iterator[Check]:
        yield data.check
        if data.task is None:
            return
        folder = self._opened()
        config = None if folder is None else _config(folder)
        length = self._length(config) if config else self._max_length or data.task.max_length
        yield from check_labels(data.task, data.splits)
        yield from check_examples(data.task, data.splits)
        yield from check_documents(data.task, data.splits)
        if folder is None:
            yield Check.skip("data", "lengths", "no model was given, and its tokenizer is needed")
        else:
            yield from check_lengths(folder, data.task, data.splits, length, self._progress)
        yield from check_answers(data.task, data.splits, folder, length, self._progress)

    def _training_checks(self, data: TaskData | None) -> Iterator[Check]:
        yield from self._damaged
        majorities = _majorities(data)
        for folder, record in self._records.items():
            config = _config(folder)
            for check in (
                *check_run(record, config.hidden_size if config else None),
                *check_scores(record, majorities),
            ):
                yield self._named(check, folder)
        if self._subject is None:
            return
        if not self._records and not self._damaged:
            yield Check.skip(
                "training", "record", "no training.json: the model was not fine-tuned by sparsebert"
            )
        runs = Runs(
            self._subject.path,
            {folder.name: record for folder, record in self._records.items()},
        )
        if len(runs.records) > 1:
            yield from check_seeds(runs)
        if self._against is not None:
            yield self._difference(runs)

    def _difference(self, runs: Runs) -> Check:
        assert self._against is not None
        other = find_subject(self._against)
        records = {}
        for folder in other.models:
            record = read_training(folder)
            if record is not None:
                records[folder.name] = record
        if not runs.records or not records:
            lacking = other.path if runs.records else runs.path
            return Check.skip("seeds", "difference", f"{lacking} has no training.json")
        return check_difference(runs, Runs(other.path, records))


def _config(folder: Path) -> EncoderConfig | None:
    try:
        return open_packed(folder).config if is_packed(folder) else open_checkpoint(folder).config
    except CheckpointError:
        return None


def _precision(record: TrainingRecord | None) -> str:
    """The precision of the training; without a record, what "auto" means on this CPU."""
    wanted = (record.word("precision") if record else None) or "auto"
    if wanted in ("fp32", "bf16"):
        return wanted
    return "bf16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"


def _majorities(data: TaskData | None) -> Majorities | None:
    if data is None:
        return None
    if data.task is None or data.task.kind is not Kind.CLASSIFICATION:
        return {}
    splits = [*data.splits, *([data.held_out] if data.held_out else [])]
    found = {split.name: majority(data.task, split) for split in splits}
    return {name: each for name, each in found.items() if each is not None}
