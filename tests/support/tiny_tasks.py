"""Small task files that the tiny BERTs of `tiny_models` can learn something from."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_FILLERS = string.ascii_lowercase[:10]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def letters(random: np.random.Generator, marker: str) -> str:
    """A text of random letters with ``marker`` among them."""
    words = random.choice(list(_FILLERS), size=random.integers(2, 12)).tolist()
    words.insert(int(random.integers(len(words) + 1)), marker)
    return " ".join(words)


def write_classification(
    folder: Path, train: int = 60, validation: int = 24, seed: int = 0
) -> Path:
    """Columns text and label: a text with an x in it is "yes", one with a y is "no"."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        labels = random.integers(2, size=count)
        write_rows(
            folder / f"{split}.jsonl",
            (
                {"text": letters(random, "yx"[label]), "label": ["no", "yes"][label]}
                for label in labels
            ),
        )
    return folder


def write_regression(folder: Path, train: int = 60, validation: int = 24, seed: int = 0) -> Path:
    """The columns of STS-B; the label counts the shared words."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        rows = []
        for index in range(count):
            shared = int(random.integers(6))
            left = random.permutation(list(_FILLERS))[:5].tolist()
            right = left[:shared] + list("uvwxy")[: 5 - shared]
            rows.append(
                {
                    "sentence1": " ".join(left),
                    "sentence2": " ".join(right),
                    "label": float(shared),
                    "idx": index,
                }
            )
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def write_squad(folder: Path, train: int = 20, validation: int = 8, seed: int = 0) -> Path:
    """The columns of SQuAD; the answer is the digit in the context."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        rows = []
        for index in range(count):
            digit = str(random.integers(10))
            context = letters(random, digit)
            answers = {"text": [digit], "answer_start": [context.index(digit)]}
            rows.append(
                {
                    "id": f"{split}-{index}",
                    "question": "  which digit ?",
                    "context": context,
                    "answers": answers,
                }
            )
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def write_contexts(path: Path, contexts: int = 15, questions: int = 5) -> Path:
    """SQuAD's columns in one file, several questions a context."""
    rows = [
        {
            "id": f"{context}-{question}",
            "question": f"which letter {question} ?",
            "context": f"a b {context}",
            "answers": {"text": ["b"], "answer_start": [2]},
        }
        for question in range(questions)
        for context in range(contexts)
    ]
    return write_rows(path, rows)


def write_squad_v2(folder: Path, train: int = 60, validation: int = 24, seed: int = 0) -> Path:
    """The columns of SQuAD v2: a context without a digit has no answer."""
    write_squad(folder, train, validation, seed)
    for split in ("train", "validation"):
        path = folder / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows[::3]:
            row["context"] = row["context"].replace(row["answers"]["text"][0], "k")
            row["answers"] = {"text": [], "answer_start": []}
        write_rows(path, rows)
    return folder


def write_retrieval(
    folder: Path, train: int = 48, validation: int = 16, seed: int = 0, *, negatives: bool = False
) -> Path:
    """Columns query and document (and negative): the letters of the query are in the document."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        rows = []
        for _ in range(count):
            shared = random.permutation(list(string.ascii_lowercase))[:6].tolist()
            others = random.permutation(list(string.ascii_lowercase))[:6].tolist()
            row = {"query": " ".join(shared[:4]), "document": " ".join(reversed(shared))}
            rows.append({**row, "negative": " ".join(others)} if negatives else row)
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def write_conll(folder: Path, train: int = 60, validation: int = 24, seed: int = 0) -> Path:
    """CoNLL files: an x begins a person of one or two words, a y is a place of one."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        sentences = []
        for _ in range(count):
            words = [(word, "O") for word in letters(random, "z").split()]
            for entity in ([("x", "B-PER"), ("q", "I-PER")], [("x", "B-PER")], [("y", "B-LOC")]):
                if random.integers(2):
                    place = int(
                        random.choice([at for at in range(len(words)) if words[at][1] == "O"])
                    )
                    words[place:place] = entity
            sentences.append("".join(f"{word} {tag}\n" for word, tag in words))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.conll").write_text("\n".join(sentences), encoding="utf-8")
    return folder


def write_label_sets(folder: Path, train: int = 60, validation: int = 24, seed: int = 0) -> Path:
    """Columns text and label, a list: "x", "y" and "z" for each of these letters in the text."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        rows = []
        for _ in range(count):
            words = letters(random, "q").split()
            names = [name for name in "xyz" if random.integers(2)]
            for name in names:
                words.insert(int(random.integers(len(words) + 1)), name)
            rows.append({"text": " ".join(words), "label": names})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder
