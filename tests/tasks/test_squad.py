"""SQuAD: windows over long contexts, where answers lie in them, and the n-best search."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from sparsebert.errors import DataError
from sparsebert.evaluation.scoring import best_texts
from sparsebert.inference.tokenizing import folder_tokenizer, usual_stride
from sparsebert.tasks.examples import Examples, load_split
from sparsebert.tasks.squad import Answers
from sparsebert.tasks.table import get_task
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.tasks.windows import Windows, answer_tokens, cut_windows
from tiny_models import TinyBert
from tiny_tasks import write_rows, write_squad, write_squad_v2

SQUAD = get_task("squad")


def one_question(question: str, context: str, answer: str, start: int | None = None) -> Examples:
    start = context.index(answer) if start is None else start
    answers = [Answers((answer,), (start,))]
    labels = np.zeros(0, np.int64)
    return Examples(SQUAD, "train", "here", [question], [context], labels, ["0"], answers)


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: TinyBert) -> Any:
    return load_tokenizer(tiny_bert("question-answering"))


class TestWindows:
    def test_a_short_context_is_one_window_that_holds_the_answer(self, tokenizer: Any) -> None:
        examples = one_question("  which digit ?", "a b 7 c d", "7")
        windows = cut_windows(tokenizer, examples, 32)
        assert len(windows) == 1
        ids, type_ids = windows.rows.row(0)
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
        split = tokens.index("[SEP]") + 1
        assert tokens[0] == "[CLS]"
        assert tokens[split:] == ["a", "b", "7", "c", "d", "[SEP]"]
        assert type_ids.tolist() == [0] * split + [1] * 6
        first, last = windows.answer[0]
        assert (tokens[first], first) == ("7", last)
        offsets = windows.window_offsets(0)
        assert offsets[:split].max() == -1
        assert offsets[split:-1].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]

    def test_windows_cover_the_context_and_overlap_by_the_stride(self, tokenizer: Any) -> None:
        letters = [chr(ord("a") + place % 26) for place in range(60)]
        context = " ".join(letters)
        examples = one_question("x ?", context, "d", start=2 * 29)
        windows = cut_windows(tokenizer, examples, 24, doc_stride=6)
        room = 24 - 3 - 2
        starts = []
        for window in range(len(windows)):
            offsets = windows.window_offsets(window)
            held = offsets[offsets[:, 0] >= 0][:, 0] // 2
            assert held.tolist() == list(range(held[0], held[-1] + 1))
            starts.append(int(held[0]))
            assert len(held) == room or window == len(windows) - 1
            first, last = windows.answer[window]
            assert (first, last) == (0, 0) if 29 not in held else first == last > 0
            if first:
                assert offsets[first].tolist() == [58, 59]
        assert starts == list(range(0, 60 - 6, room - 6))
        assert windows.question.tolist() == [0] * len(windows)
        assert int((windows.answer[:, 0] > 0).sum()) >= 1

    def test_a_question_that_would_leave_no_room_is_cut_at_a_word(self, tokenizer: Any) -> None:
        question = " ".join(["qqqqq"] * 30)  # each word is several pieces
        windows = cut_windows(tokenizer, one_question(question, "a b c 4", "4"), 32)
        ids, _ = windows.rows.row(0)
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
        asked = tokenizer.convert_tokens_to_string(tokens[1 : tokens.index("[SEP]")])
        assert len(ids) <= 32
        assert set(asked.split()) == {"qqqqq"}
        assert tokens[tokens.index("[SEP]") + 1 :] == ["a", "b", "c", "4", "[SEP]"]

    @pytest.mark.parametrize("max_length", [24, 48, 60])
    def test_they_are_those_of_served_answers(
        self, tokenizer: Any, tiny_bert: TinyBert, max_length: int
    ) -> None:
        question, context = "  who asked ?", " ".join(f"{word} 7" for word in "abcdefgh" * 12)
        windows = cut_windows(tokenizer, one_question(question, context, "b"), max_length)
        served = folder_tokenizer(tiny_bert("question-answering"), positions=64, type_vocab_size=2)
        assert served is not None
        stride = usual_stride(max_length)
        wanted = list(served.windows(question, context, max_length=max_length, doc_stride=stride))
        assert len(windows) == len(wanted) > 2
        for index, window in enumerate(wanted):
            ids, type_ids = windows.rows.row(index)
            assert ids.tolist() == window.tokens.ids.tolist()
            assert type_ids.tolist() == window.tokens.type_ids.tolist()
            assert windows.window_offsets(index).tolist() == window.offsets.tolist()

    def test_which_question_each_window_is_of(self, tokenizer: Any, tmp_path: Path) -> None:
        examples = load_split(SQUAD, write_squad(tmp_path, train=300), "train")
        windows = cut_windows(tokenizer, examples, 16, doc_stride=4)
        assert len(windows) > 300
        assert sorted(set(windows.question.tolist())) == list(range(300))
        for window in range(len(windows)):
            first, last = windows.answer[window]
            question = int(windows.question[window])
            if first:
                offsets = windows.window_offsets(window)
                context = (examples.pairs or [])[question]
                found = context[offsets[first, 0] : offsets[last, 1]]
                assert found == examples.answers[question].texts[0]

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (0, 5, (2, 2)),  # one token
            (0, 11, (2, 3)),  # two
            (7, 8, (3, 3)),  # inside a token
            (6, 20, (3, 5)),
            (0, 21, (0, 0)),  # ends after the window
        ],
    )
    def test_answer_tokens(self, start: int, end: int, expected: tuple[int, int]) -> None:
        offsets = np.array([[-1, -1], [-1, -1], [0, 5], [6, 11], [12, 15], [16, 20], [-1, -1]])
        assert answer_tokens(offsets, start, end) == expected

    def test_an_answer_before_the_window_is_not_in_it(self) -> None:
        offsets = np.array([[-1, -1], [6, 11], [12, 15]])
        assert answer_tokens(offsets, 0, 8) == (0, 0)
        assert answer_tokens(np.full((3, 2), -1), 0, 1) == (0, 0)


class TestData:
    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            ({"text": [], "answer_start": []}, "row 2: it has no answer: .*squad_v2"),
            ({"text": ["4"], "answer_start": [3]}, "the answer '4' is not at character 3"),
            ({"text": ["4"], "answer_start": [-1]}, "is not at character -1"),
            ({"text": ["4", "a"], "answer_start": [4]}, "must be lists of the same length"),
        ],
    )
    def test_answers_are_held_against_their_context(
        self, tmp_path: Path, answers: Any, message: str
    ) -> None:
        good = {"text": ["4"], "answer_start": [4]}
        rows = [
            {"id": str(row), "question": "q", "context": "a b 4", "answers": each}
            for row, each in enumerate((good, answers))
        ]
        write_rows(tmp_path / "train.jsonl", rows)
        with pytest.raises(DataError, match="row 2.*" + message.removeprefix("row 2")):
            load_split(SQUAD, tmp_path, "train")

    @pytest.mark.parametrize("indent", [None, 2])
    def test_as_its_authors_publish_it(self, tmp_path: Path, indent: int | None) -> None:
        """``train-v2.0.json`` and ``dev-v2.0.json``: the same examples as of a row a question."""
        write_squad_v2(tmp_path / "rows")
        for split, name in (("train", "train"), ("validation", "dev")):
            lines = (tmp_path / "rows" / f"{split}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            paragraphs = [
                {
                    "context": row["context"],
                    "qas": [
                        {
                            "question": row["question"],
                            "id": row["id"],
                            "is_impossible": not row["answers"]["text"],
                            "answers": [
                                {"text": text, "answer_start": start}
                                for text, start in zip(*row["answers"].values(), strict=True)
                            ],
                        }
                    ],
                }
                for row in rows
            ]
            articles = [
                {"title": "A", "paragraphs": paragraphs[:5]},
                {"title": "B", "paragraphs": paragraphs[5:]},
            ]
            path = tmp_path / "published" / f"{name}-v2.0.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"version": "v2.0", "data": articles}, indent=indent))
        task = get_task("squad_v2")
        for split in ("train", "validation"):
            ours, theirs = (
                load_split(task, tmp_path / name, split) for name in ("rows", "published")
            )
            for field in ("texts", "pairs", "answers", "ids"):
                assert getattr(ours, field) == getattr(theirs, field)
        articles[1]["paragraphs"] = [{"context": "c"}]
        path.write_text(json.dumps({"data": articles}))
        with pytest.raises(DataError, match="article 2: it does not have SQuAD's layout"):
            load_split(task, path, "validation")

    def test_a_flat_answer_column_is_refused(self, tmp_path: Path) -> None:
        row = {"id": "0", "question": "q", "context": "a b 4", "answers": "4"}
        write_rows(tmp_path / "train.jsonl", [row])
        with pytest.raises(DataError, match="must hold lists 'text' and 'answer_start'"):
            load_split(SQUAD, tmp_path, "train")

    def test_an_id_twice_is_refused(self, tmp_path: Path) -> None:
        answers = {"text": ["4"], "answer_start": [4]}
        row = {"id": "x", "question": "q", "context": "a b 4", "answers": answers}
        write_rows(tmp_path / "train.jsonl", [row, row])
        with pytest.raises(DataError, match="row 2: 'x' is also the id of row 1"):
            load_split(SQUAD, tmp_path, "train")


def reference_answers(examples: Examples, windows: Windows, logits: list[Any]) -> list[str]:
    """transformers' ``postprocess_qa_predictions`` as its example script has it, in its own terms.

    examples/pytorch/question-answering/utils_qa.py, without the branch for SQuAD v2 and without the
    files it writes.
    """
    features_per_example = collections.defaultdict(list)
    for index, example in enumerate(windows.question):
        features_per_example[int(example)].append(index)
    texts = []
    for example in range(len(examples)):
        prelim_predictions = []
        for feature in features_per_example[example]:
            start_logits, end_logits = logits[feature][:, 0], logits[feature][:, 1]
            offset_mapping = [
                None if start < 0 else (int(start), int(end))
                for start, end in windows.window_offsets(feature)
            ]
            start_indexes = np.argsort(start_logits)[-1 : -20 - 1 : -1].tolist()
            end_indexes = np.argsort(end_logits)[-1 : -20 - 1 : -1].tolist()
            for start_index in start_indexes:
                for end_index in end_indexes:
                    if (
                        start_index >= len(offset_mapping)
                        or end_index >= len(offset_mapping)
                        or offset_mapping[start_index] is None
                        or offset_mapping[end_index] is None
                    ):
                        continue
                    if end_index < start_index or end_index - start_index + 1 > 30:
                        continue
                    prelim_predictions.append(
                        {
                            "offsets": (
                                offset_mapping[start_index][0],
                                offset_mapping[end_index][1],
                            ),
                            "score": start_logits[start_index] + end_logits[end_index],
                        }
                    )
        predictions = sorted(prelim_predictions, key=lambda x: x["score"], reverse=True)[:20]
        context = (examples.pairs or [])[example]
        offsets = predictions[0]["offsets"] if predictions else (0, 0)
        texts.append(context[offsets[0] : offsets[1]])
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_the_search_agrees_with_the_reference_implementation(
    tokenizer: Any, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    contexts = [" ".join(random.choice(list("abcdefgh"), size=size)) for size in (5, 40, 90, 120)]
    labels = np.zeros(0, np.int64)
    answers = [Answers((context[:1],), (0,)) for context in contexts]
    examples = Examples(SQUAD, "v", "", ["who ?"] * 4, contexts, labels, list("0123"), answers)
    windows = cut_windows(tokenizer, examples, 48, doc_stride=12)
    assert len(windows) > 6
    logits = [
        random.normal(size=(int(length), 2)).astype(np.float32) for length in windows.rows.lengths
    ]
    found, _ = best_texts(examples, windows, logits)
    assert found == reference_answers(examples, windows, logits)


def test_no_possible_span_is_an_empty_answer(tokenizer: Any) -> None:
    examples = one_question("x ?", " ".join("ab" * 22), "a")
    windows = cut_windows(tokenizer, examples, 64)
    held = np.flatnonzero(windows.window_offsets(0)[:, 0] >= 0)
    assert (len(windows), len(held)) == (1, 44)
    logits = np.zeros((len(windows.window_offsets(0)), 2), np.float32)
    logits[held[-20:], 0] = 10  # the twenty likeliest starts come after the twenty likeliest ends
    logits[held[:20], 1] = 10
    assert best_texts(examples, windows, [logits])[0] == [""]
    assert reference_answers(examples, windows, [logits]) == [""]
