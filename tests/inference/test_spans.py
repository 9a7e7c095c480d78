"""The span search against the published algorithm, written out here in plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sparsebert.inference.answering import Span, best_spans, merge_spans, probabilities


def reference(windows, *, n_best, max_answer_length):
    """``postprocess_qa_predictions`` of transformers' question-answering example (Apache-2.0).

    ``windows`` holds (start logits, end logits, offsets) with None where a token is not of the
    context; gives the n-best list of (start, end, score, probability).
    """
    prelim = []
    for start_logits, end_logits, offset_mapping in windows:
        start_indexes = np.argsort(start_logits)[-1 : -n_best - 1 : -1].tolist()
        end_indexes = np.argsort(end_logits)[-1 : -n_best - 1 : -1].tolist()
        for start_index in start_indexes:
            for end_index in end_indexes:
                if offset_mapping[start_index] is None or offset_mapping[end_index] is None:
                    continue
                if end_index < start_index or end_index - start_index + 1 > max_answer_length:
                    continue
                prelim.append(
                    (
                        offset_mapping[start_index][0],
                        offset_mapping[end_index][1],
                        start_logits[start_index] + end_logits[end_index],
                    )
                )
    best = sorted(prelim, key=lambda found: found[2], reverse=True)[:n_best]
    scores = np.array([found[2] for found in best])
    if not best:
        return []
    shares = np.exp(scores - scores.max())
    shares = shares / shares.sum()
    return [(*found, share) for found, share in zip(best, shares, strict=True)]


def random_window(rng, tokens, first_char=0):
    """Logits without ties, a question of a few tokens first, one special token last."""
    question = int(rng.integers(1, max(2, tokens // 3)))
    offsets = np.full((tokens, 2), -1, np.int32)
    position = first_char
    for token in range(question, tokens - 1):
        width = int(rng.integers(1, 6))
        offsets[token] = position, position + width
        position += width + int(rng.integers(0, 2))
    start, end = rng.standard_normal((2, tokens)).astype(np.float32)
    return start, end, offsets


def as_reference(window):
    start, end, offsets = window
    return start, end, [None if a < 0 else (int(a), int(b)) for a, b in offsets]


def triples(spans):
    return [(span.start_char, span.end_char, pytest.approx(span.score)) for span in spans]


class TestAgainstTheReference:
    @pytest.mark.parametrize("seed", range(30))
    def test_one_window(self, seed):
        rng = np.random.default_rng(seed)
        window = random_window(rng, int(rng.integers(4, 80)))
        n_best, length = int(rng.integers(1, 25)), int(rng.integers(1, 35))
        expected = reference([as_reference(window)], n_best=n_best, max_answer_length=length)
        found = best_spans(*window, n_best=n_best, max_answer_length=length)
        assert [(s.start_char, s.end_char) for s in found] == [row[:2] for row in expected]
        assert [s.score for s in found] == pytest.approx([row[2] for row in expected])
        assert probabilities(found) == pytest.approx([row[3] for row in expected])

    @pytest.mark.parametrize("seed", range(20))
    def test_several_windows(self, seed):
        rng = np.random.default_rng(100 + seed)
        windows = [random_window(rng, 40, first_char=200 * place) for place in range(3)]
        expected = reference(map(as_reference, windows), n_best=20, max_answer_length=30)
        found = merge_spans([best_spans(*window) for window in windows])
        assert [(s.start_char, s.end_char) for s in found] == [row[:2] for row in expected]
        assert probabilities(found) == pytest.approx([row[3] for row in expected])

    @pytest.mark.parametrize("seed", range(10))
    def test_unlimited_search_is_exhaustive(self, seed):
        rng = np.random.default_rng(200 + seed)
        start, end, offsets = random_window(rng, 15)
        inside = [token for token in range(15) if offsets[token, 0] >= 0]
        everything = [
            (start[a] + end[b], offsets[a, 0], offsets[b, 1])
            for a, b in itertools.product(inside, inside)
            if 0 <= b - a < 4
        ]
        found = best_spans(start, end, offsets, n_best=1000, max_answer_length=4)
        assert [s.score for s in found] == pytest.approx(
            sorted((row[0] for row in everything), reverse=True)
        )
        assert (found[0].start_char, found[0].end_char) == max(everything)[1:]


class TestByHand:
    # tokens:     [CLS] who [SEP] She  did  it   [SEP]
    OFFSETS = np.array([[-1, -1]] * 3 + [[0, 3], [4, 7], [8, 10]] + [[-1, -1]])

    def test_best_is_first(self):
        start = np.array([9, 9, 9, 3, 2, 0, 9], np.float32)
        end = np.array([9, 9, 9, 0, 1, 2, 9], np.float32)
        spans = best_spans(start, end, self.OFFSETS)
        assert spans[:3] == [Span(0, 10, 5.0), Span(0, 7, 4.0), Span(4, 10, 4.0)]
        assert len(spans) == 6

    def test_answers_are_no_longer_than_asked(self):
        start = np.array([0, 0, 0, 3, 2, 0, 0], np.float32)
        end = np.array([0, 0, 0, 0, 1, 2, 0], np.float32)
        spans = best_spans(start, end, self.OFFSETS, max_answer_length=1)
        assert triples(spans) == [(0, 3, 3), (4, 7, 3), (8, 10, 2)]

    def test_n_best_counts_tokens_outside_the_context_too(self):
        start = np.array([9, 9, 9, 3, 2, 0, 9], np.float32)
        assert best_spans(start, start, self.OFFSETS, n_best=4) == []
        assert len(best_spans(start, start, self.OFFSETS, n_best=5)) == 1

    def test_backward_pairs_are_none(self):
        start = np.array([0, 0, 0, 0, 0, 9, 0], np.float32)
        end = np.array([0, 0, 0, 9, 0, 0, 0], np.float32)
        assert best_spans(start, end, self.OFFSETS, n_best=1) == []

    def test_overlapping_windows_give_a_span_once(self):
        merged = merge_spans(
            [[Span(0, 3, 2.0), Span(4, 7, 1.0)], [Span(4, 7, 3.0), Span(8, 10, 1.5)], []]
        )
        assert merged == [Span(4, 7, 3.0), Span(0, 3, 2.0), Span(8, 10, 1.5)]
        assert merge_spans([[Span(0, 3, 2.0), Span(4, 7, 3.0)]], n_best=1) == [Span(4, 7, 3.0)]
        assert merge_spans([]) == []

    def test_probabilities(self):
        shares = probabilities([Span(0, 1, np.log(3.0)), Span(0, 2, 0.0)])
        assert shares == pytest.approx([0.75, 0.25])
        assert probabilities([Span(0, 1, 1e4), Span(0, 2, -1e4)]) == pytest.approx([1, 0])
        assert len(probabilities([])) == 0
