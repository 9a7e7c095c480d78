"""Extractive answers end to end, over windows of a long context."""

from __future__ import annotations

import numpy as np
import pytest
from test_spans import reference

from sentences import SENTENCES, long_text
from sparsebert import load
from sparsebert.errors import InputError
from sparsebert.inference.answering import best_answers
from sparsebert.inference.sequences import LocatedTokens, Tokens

QUESTION = "Who asked the witness?"


@pytest.fixture(scope="module")
def folder(tiny_bert):
    return tiny_bert("question-answering", max_position_embeddings=130)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def by_transformers(folder, question, context, *, max_length, stride, n_best, longest):
    """The published way: transformers' tokenizer and model, and the reference n-best search."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    found = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = net(
            found["input_ids"],
            attention_mask=found["attention_mask"],
            token_type_ids=found["token_type_ids"],
        )
    windows = []
    for number in range(len(found["input_ids"])):
        used = int(found["attention_mask"][number].sum())
        places = [
            tuple(map(int, place)) if part == 1 else None
            for place, part in zip(
                found["offset_mapping"][number], found.sequence_ids(number), strict=True
            )
        ][:used]
        windows.append(
            (out.start_logits[number, :used].numpy(), out.end_logits[number, :used].numpy(), places)
        )
    return reference(windows, n_best=n_best, max_answer_length=longest), len(windows)


class TestAgainstTransformers:
    @pytest.mark.parametrize(("max_length", "stride", "longest"), [(130, 30, 30), (40, 10, 7)])
    @pytest.mark.parametrize("words", [5, 60, 200])
    def test_best_answer(self, folder, model, words, max_length, stride, longest):
        context = long_text(words)
        options = {"n_best": 20, "max_length": max_length, "stride": stride, "longest": longest}
        expected, windows = by_transformers(folder, QUESTION, context, **options)
        assert (windows > 1) == (words > 60 or (words == 60 and max_length == 40))
        found = model.answer(
            QUESTION,
            context,
            max_length=max_length,
            doc_stride=stride,
            max_answer_length=longest,
        )
        start, end, _, share = expected[0]
        assert (found["start"], found["end"]) == (start, end)
        assert found["text"] == context[start:end]
        # A span seen in two windows stands twice in the reference's list and once in ours.
        seen = dict.fromkeys(row[:2] for row in expected)
        if len(seen) == len(expected):
            assert found["score"] == pytest.approx(share, abs=1e-4)

    def test_list_of_answers(self, folder, model):
        context = " ".join(SENTENCES[:4])
        expected, _ = by_transformers(
            folder, QUESTION, context, max_length=130, stride=30, n_best=20, longest=30
        )
        found = model.answer(QUESTION, context, top_k=5, doc_stride=30)
        assert [(each["start"], each["end"]) for each in found] == [row[:2] for row in expected[:5]]
        assert [each["score"] for each in found] == pytest.approx(
            [row[3] for row in expected[:5]], abs=1e-4
        )


class TestShapes:
    def test_single(self, model):
        found = model.answer(QUESTION, SENTENCES[17])
        assert set(found) == {"text", "start", "end", "score"}
        assert SENTENCES[17][found["start"] : found["end"]] == found["text"]
        assert 0 < found["score"] <= 1

    def test_lists(self, model):
        contexts = [long_text(150), SENTENCES[3], SENTENCES[5]]
        questions = [QUESTION, "What did she plant?", "How did they vote?"]
        alone = [model.answer(*pair) for pair in zip(questions, contexts, strict=True)]
        assert model.answer(questions, contexts, batch_size=2) == [
            {**answer, "score": pytest.approx(answer["score"], abs=1e-5)} for answer in alone
        ]
        assert len(model.answer(QUESTION, contexts)) == 3
        assert len(model.answer(questions, contexts[0])) == 3
        ranked = model.answer(questions, contexts, top_k=2)
        assert [len(each) for each in ranked] == [2, 2, 2]
        assert model.answer([], []) == []

    def test_characters_are_those_of_the_text_given(self, model):
        context = "Ⅻ — naïve 中文 👍 The judge asked the witness."
        for found in model.answer(QUESTION, context, top_k=10, n_best=100):
            assert context[found["start"] : found["end"]] == found["text"] != ""

    def test_default_window_is_no_longer_than_the_model(self, model):
        assert model.max_length == 130
        assert model.answer(QUESTION, long_text(400))["text"]

    def test_an_answer_even_where_the_best_do_not_pair(self):
        # The likeliest starts all stand behind the likeliest ends.
        count = 50
        tokens = Tokens(np.zeros(count, np.int32), np.zeros(count, np.int32))
        offsets = np.array([(place, place + 1) for place in range(count)], np.int32)
        ramp = np.arange(count, dtype=np.float32)
        logits = np.stack([ramp, ramp[::-1]], axis=1)
        found = best_answers(
            "x" * count,
            [LocatedTokens(tokens, offsets)],
            [logits],
            top_k=1,
            n_best=10,
            max_answer_length=5,
        )
        # every single token scores 49, any longer span less
        assert found[0]["end"] - found[0]["start"] == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("question", "context", "said"),
        [
            ("", "text", "the question is empty"),
            ("Who?", "  ", "the context is empty"),
            ("Who?", "\x00", "the context is empty"),
            ("\u200b\x00", "text", "the question is empty"),
            (["Who?", ""], "text", r"question\[1\] is empty"),
            ("Who?", ["text", 3], r"context\[1\] must be a string"),
            (["Who?"], ["a", "b"], "1 questions and 2 contexts"),
            (5, "text", "question must be a string or a list of strings"),
            (b"Who?", "text", "question must be a string"),
            (long_text(200), "text", "leaves no room"),
        ],
    )
    def test_texts(self, model, question, context, said):
        with pytest.raises(InputError, match=said):
            model.answer(question, context)

    @pytest.mark.parametrize(
        "option", ["top_k", "doc_stride", "max_answer_length", "n_best", "max_length", "batch_size"]
    )
    @pytest.mark.parametrize("value", [0, -3, 1.5, "5"])
    def test_counts(self, model, option, value):
        with pytest.raises(InputError, match=f"{option} must be an integer of at least 1"):
            model.answer(QUESTION, SENTENCES[0], **{option: value})

    @pytest.mark.parametrize("value", [float("nan"), float("-inf"), "5"])
    def test_thresholds(self, model, value):
        with pytest.raises(InputError, match="null_threshold must be a number, or infinity"):
            model.answer(QUESTION, SENTENCES[0], null_threshold=value)
