"""The texts that a model is halved on: gathered, checked, divided, labelled by the model itself.

If the user's data has no labels, the dense model's own answers take their place: a student that
learns from its teacher's outputs does not read them, and a score against them is the agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Head
from sparsebert.errors import DataError
from sparsebert.halving.subject import Goal, Subject
from sparsebert.inference import Model
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.files import file_type, split_files
from sparsebert.tasks.labels import are_unnamed
from sparsebert.tasks.reading import read_table
from sparsebert.tasks.texts import Text, read_texts, single_texts

SHIPPED = Path(__file__).with_name("calibration.txt")
"""English sentences written for this purpose, for users who have no texts of their own."""

FEW = 50
_UNKNOWN_NOTED, _UNKNOWN_REFUSED = 0.05, 0.5
_UNKNOWN = ("[UNK]", "<unk>")
_SAMPLE = 500  # texts whose tokens are counted
_HELD_OUT, _MOST_HELD_OUT = 0.1, 1000  # share of the texts, and number
_SEED = 20_240_504


@dataclass(frozen=True)
class Gathered:
    """Distinct texts (or pairs) in their original order, and notes on them.

    ``duplicates`` is the number of texts that were left out.
    """

    texts: list[Text]
    notes: list[str]
    own: bool
    """Whether they are the user's rather than those that come with the package."""
    duplicates: int = 0

    @property
    def examples(self) -> int:
        """How many can be learned from: those of the package are only for calibration."""
        return len(self.texts) if self.own else 0


def gather(subject: Subject) -> Gathered:
    """Read the subject's texts and those of its data, else those that come with the package.

    Labelled data is learned from anyway: its texts are read only if there are no others.

    Raises DataError for files without texts and for single texts among pairs.
    """
    sources: list[tuple[Path, bool]] = [(path, False) for path in subject.texts]
    if subject.data is not None and not (sources and subject.labelled):
        sources.append((subject.data, True))
    if not sources:
        note = (
            f"no texts were given: calibrated on {len(read_texts(SHIPPED))} English sentences that "
            "come with sparsebert. With a thousand texts of the kind that the model reads, it "
            "would also be distilled."
        )
        return Gathered(read_texts(SHIPPED), [note], own=False)
    task = subject.task
    read: list[Text] = []
    for path, of_data in sources:
        columns = subject.columns if of_data or _has_columns(path, subject.columns) else None
        read += read_texts(path, task if of_data else None, columns)
    if subject.goal is Goal.EMBEDDING:  # which reads each text by itself
        read = list(single_texts(read))
    texts = list(dict.fromkeys(read))
    if len({isinstance(text, str) for text in texts}) > 1:
        raise DataError(
            "some of the texts are pairs and some are not: use only texts of the kind that the "
            "model reads."
        )
    if subject.goal is Goal.LABELS and not isinstance(texts[0], str):
        raise DataError(f"{subject.title} labels single texts, but these are pairs.")
    notes = []
    if len(texts) < len(read):
        notes.append(
            f"{len(read) - len(texts):,} of {len(read):,} texts are duplicates and were left out."
        )
    if len(texts) < FEW:
        notes.append(
            f"there are only {len(texts)} texts: use at least {FEW}, better a thousand, of the "
            "kind that the model will read."
        )
    return Gathered(texts, notes, own=True, duplicates=len(read) - len(texts))


def _has_columns(source: Path, columns: DataOptions) -> bool:
    """Whether a table of texts has the columns that the options name."""
    names = columns.text_columns
    if names is None or not (source.is_dir() or file_type(source)):
        return False
    tables = split_files(source, "train")
    return bool(tables) and set(names) <= set(read_table(tables[0]).table.column_names)


def divide_texts(gathered: Gathered, *, choose: bool) -> tuple[list[Text], list[Text], list[Text]]:
    """Texts to learn from, those to choose between rounds on, and those to report on.

    The latter two are a fixed tenth each, at most 1,000; if there is no choice to make, they are
    the same. The package's own texts, or fewer than three texts, serve all three purposes.
    """
    texts = gathered.texts
    if not gathered.own or len(texts) < 3:
        return texts, texts, texts
    # The legacy generator: numpy promises that its streams never change.
    order = np.random.RandomState(_SEED).permutation(len(texts))
    held = min(max(round(len(texts) * _HELD_OUT), 1), _MOST_HELD_OUT)
    parts = [order[2 * held :], order[held : 2 * held], order[:held]]
    if not choose:
        parts = [order[held:], order[:held], order[:held]]
    learn, choice, report = ([texts[row] for row in np.sort(part)] for part in parts)
    return learn, choice, report


def check_vocabulary(model: Model, texts: Sequence[Text]) -> str | None:
    """A note if many tokens are unknown to the model; DataError if most are."""
    backend = model.tokenizer.backend
    unknown = next((id for name in _UNKNOWN if (id := backend.token_to_id(name)) is not None), None)
    if unknown is None:  # a tokenizer of bytes, which has tokens for everything
        return None
    sample = single_texts(texts[:: max(len(texts) // _SAMPLE, 1)])
    found = backend.encode_batch(sample, add_special_tokens=False)
    ids = np.concatenate([each.ids for each in found])
    share = float(np.mean(ids == unknown))
    if share < _UNKNOWN_NOTED:
        return None
    about = f"{share:.0%} of the texts' tokens are unknown to {model.name}"
    if share >= _UNKNOWN_REFUSED:
        raise DataError(f"{about}: they are in another language or script than it reads.")
    return f"{about}: check that they are in its language."


def write_texts(path: Path, texts: Sequence[Text], *, questions: bool) -> None:
    """Write a table with the column text; pairs have text1 and text2, or question and context."""
    columns = _columns(texts)
    if questions:
        columns = dict(zip(("question", "context"), columns.values(), strict=True))
    _write(path, columns)


def write_labelled(
    folder: Path,
    model: Model,
    parts: Mapping[str, Sequence[Text]],
    *,
    null_threshold: float | None = None,
) -> None:
    """Write data for a custom task, one file per split, with the model's answers as labels.

    ``null_threshold`` is that of `Model.answer`. Each class gets a training row, because a
    student's head only has the classes in its data: a class that the model gives to no text goes to
    the text where it is likeliest. That label is not learned. DataError if there are fewer texts
    than classes.
    """
    names = model.config.labels
    if are_unnamed(names):  # data always has numbers for such classes
        names = tuple(str(number) for number in range(len(names)))
    for split, texts in parts.items():
        if model.config.head is Head.QUESTION:
            _write(folder / f"{split}.parquet", _answered(model, texts, split, null_threshold))
            continue
        logits = model.logits(list(texts))
        columns = _columns(texts)
        if logits.shape[1] == 1:
            columns["score"] = [float(value) for value in logits[:, 0]]
        else:
            best = logits.argmax(axis=1)
            if split == "train":
                best = with_every_class(best, logits)
            columns["label"] = [names[label] for label in best]
        _write(folder / f"{split}.parquet", columns)


def with_every_class(
    best: npt.NDArray[np.int64], logits: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.int64]:
    """The classes of some texts, where a class that no text has goes to its likeliest text.

    A text that is the only one of its class keeps it.
    """
    found: npt.NDArray[np.int64] = best.copy()
    for label in range(logits.shape[1]):
        if label in found:
            continue
        free = np.bincount(found, minlength=logits.shape[1])[found] > 1
        if not free.any():
            raise DataError(
                f"there are {len(best)} texts to learn from, but the model has {logits.shape[1]} "
                "labels: use more texts."
            )
        found[np.where(free, logits[:, label], -np.inf).argmax()] = label
    return found


def _answered(
    model: Model, texts: Sequence[Text], split: str, null_threshold: float | None
) -> dict[str, list[Any]]:
    asked = [text for text in texts if not isinstance(text, str)]
    questions, contexts = [question for question, _ in asked], [context for _, context in asked]
    answers = model.answer(questions, contexts, null_threshold=null_threshold)
    return {
        "id": [f"{split}-{row}" for row in range(len(asked))],
        "question": questions,
        "context": contexts,
        "answers": [
            {"text": [found["text"]], "answer_start": [found["start"]]}
            if found["text"]
            else {"text": [], "answer_start": []}
            for found in answers
        ],
    }


def _columns(texts: Sequence[Text]) -> dict[str, list[Any]]:
    if all(isinstance(text, str) for text in texts):
        return {"text": list(texts)}
    return {"text1": [text[0] for text in texts], "text2": [text[1] for text in texts]}


def _write(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), path, compression="zstd")
