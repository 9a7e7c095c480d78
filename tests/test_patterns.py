"""What N:M means, held against the plainest loops; and the compressed form, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.compressed import (
    Compressed,
    check_compressed,
    compress,
    compressed_mask,
    compressed_shapes,
    decompress,
    panel_columns,
)
from sparsebert.errors import PatternError
from sparsebert.patterns import (
    KNOWN_PATTERNS,
    ONE_OF_TWO,
    Pattern,
    count_broken_groups,
    count_kept,
    detect,
    grouped,
    is_whole,
    mask_from_scores,
    mask_from_zeros,
    pack_mask,
    unpack_mask,
)

PATTERNS = [Pattern(1, 2), Pattern(2, 4), Pattern(4, 8), Pattern(1, 3), Pattern(3, 5)]
PATTERNS += [Pattern(1, 4), Pattern(1, 64), Pattern(63, 64), Pattern(7, 37)]
patterns = st.sampled_from(PATTERNS)


def reference_mask(scores: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Sort each group by falling score, then by place, and keep the first n."""
    mask = np.zeros(scores.shape, dtype=bool)
    for row in range(scores.shape[0]):
        for start in range(0, scores.shape[1], pattern.m):
            places = range(start, start + pattern.m)
            best = sorted(places, key=lambda place: (-scores[row, place], place))
            mask[row, best[: pattern.n]] = True
    return mask


@st.composite
def matrices(draw: st.DrawFn, tied: bool = True) -> tuple[np.ndarray, Pattern]:
    """A matrix whose columns the pattern divides, of small integers so that ties are common."""
    pattern = draw(patterns)
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    shape = (rows, groups * pattern.m)
    if tied:
        return random.integers(-2, 3, shape).astype(np.float32), pattern
    return random.standard_normal(shape).astype(np.float32), pattern


@given(matrices())
def test_masks_are_those_of_plain_sorting(case: tuple[np.ndarray, Pattern]) -> None:
    scores, pattern = case
    mask = mask_from_scores(scores, pattern)
    assert mask.dtype == bool
    assert np.array_equal(mask, reference_mask(scores, pattern))
    assert is_whole(mask, pattern)


@given(matrices())
def test_counts_are_those_of_plain_loops(case: tuple[np.ndarray, Pattern]) -> None:
    weight, pattern = case
    expected = [
        [
            np.count_nonzero(row[start : start + pattern.m])
            for start in range(0, len(row), pattern.m)
        ]
        for row in weight
    ]
    assert count_kept(weight, pattern).tolist() == expected
    broken = sum(count > pattern.n for row in expected for count in row)
    assert count_broken_groups(weight, pattern) == broken
    assert is_whole(weight != 0, pattern) == all(c == pattern.n for row in expected for c in row)


@given(matrices())
def test_a_mask_from_zeros_holds_every_non_zero_and_is_whole(
    case: tuple[np.ndarray, Pattern],
) -> None:
    weight, pattern = case
    pruned = np.where(reference_mask(np.abs(weight), pattern), weight, 0)
    mask = mask_from_zeros(pruned, pattern)
    assert is_whole(mask, pattern)
    assert not np.any(pruned[~mask])


def test_ties_of_one_two_keep_exactly_the_left() -> None:
    scores = np.array([[1, 1, 0, 0, 2, 1, 1, 2]], dtype=np.float32)
    kept = mask_from_scores(scores, ONE_OF_TWO)
    assert kept.tolist() == [[True, False, True, False, True, False, False, True]]


def test_minus_zero_and_zero_tie() -> None:
    assert mask_from_scores(np.array([[-0.0, 0.0]]), ONE_OF_TWO).tolist() == [[True, False]]
    assert mask_from_zeros(np.array([[-0.0, 5.0]]), ONE_OF_TWO).tolist() == [[False, True]]


def test_infinite_scores_are_kept() -> None:
    scores = np.array([[1, np.inf, np.inf, 0]], dtype=np.float32)
    assert mask_from_scores(scores, Pattern(2, 4)).tolist() == [[False, True, True, False]]


def test_a_broken_matrix_gives_no_mask() -> None:
    with pytest.raises(PatternError, match="2 groups have more non-zeros than 1:2 allows"):
        mask_from_zeros(np.array([[1.0, 2, 3, 4, 0, 1]]), ONE_OF_TWO)


@pytest.mark.parametrize("columns", [0, 1, 3, 7, 33])
def test_odd_input_dimensions_are_refused(columns: int) -> None:
    with pytest.raises(PatternError, match=f"input dimension of {columns} cannot be cut"):
        grouped(np.zeros((2, columns)), ONE_OF_TWO)
    assert not is_whole(np.zeros((2, columns), dtype=bool), ONE_OF_TWO)


def test_only_matrices_have_patterns() -> None:
    with pytest.raises(PatternError, match=r"not to shape \[4\]"):
        grouped(np.zeros(4), ONE_OF_TWO)
    assert detect(np.zeros(4)) is None


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("1:2", Pattern(1, 2)), (" 2 : 4 ", Pattern(2, 4)), ("63:64", Pattern(63, 64))],
)
def test_patterns_are_read(text: str, pattern: Pattern) -> None:
    assert Pattern.parse(text) == pattern
    assert Pattern.parse(str(pattern)) == pattern
    assert pattern.density == pattern.n / pattern.m


@pytest.mark.parametrize("text", ["", "1", "2:1", "2:2", "0:2", "1:65", "-1:2", "1:2:3", "a:b"])
def test_anything_else_is_no_pattern(text: str) -> None:
    with pytest.raises(PatternError, match="pattern"):
        Pattern.parse(text)


class TestDetect:
    def test_the_tightest_known_pattern_is_named(self) -> None:
        random = np.random.default_rng(0)
        dense = random.standard_normal((8, 48)).astype(np.float32)
        for pattern in KNOWN_PATTERNS:
            pruned = np.where(mask_from_scores(np.abs(dense), pattern), dense, 0)
            assert detect(pruned) == pattern
        assert detect(dense) is None

    def test_a_pair_may_hold_two_zeros(self) -> None:
        weight = np.array([[0, 0, 3, 0], [0, 1, 0, 2.0]])
        assert detect(weight) == ONE_OF_TWO

    def test_one_revived_weight_makes_it_dense(self) -> None:
        weight = np.zeros((4, 10), dtype=np.float32)
        weight[:, ::2] = 1
        assert detect(weight) == ONE_OF_TWO
        weight[3, 9] = 1e-30
        assert detect(weight) is None

    @pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 5)])
    def test_nothing_but_zeros_is_dense(self, shape: tuple[int, int]) -> None:
        assert detect(np.zeros(shape)) is None

    def test_a_pattern_that_does_not_divide_is_not_considered(self) -> None:
        assert detect(np.array([[1.0, 0, 0, 0, 0]])) is None

    @given(matrices())
    def test_it_agrees_with_counting(self, case: tuple[np.ndarray, Pattern]) -> None:
        weight, _ = case
        expected = None
        for pattern in KNOWN_PATTERNS:
            fits = weight.any() and weight.shape[1] % pattern.m == 0
            if fits and count_broken_groups(weight, pattern) == 0:
                expected = pattern
                break
        assert detect(weight) == expected


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 99))
def test_mask_bits_come_back(rows: int, columns: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    bits = pack_mask(mask)
    assert bits.shape == (rows, -(-columns // 8))
    assert bits[0, 0] & 1 == mask[0, 0]  # column 0 is the lowest bit
    assert np.array_equal(unpack_mask(bits, columns), mask)


@pytest.mark.parametrize(
    "bits",
    [np.zeros((2, 3), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2), np.int8)],
    ids=["too wide", "flat", "signed"],
)
def test_mask_bits_of_another_shape_are_refused(bits: np.ndarray) -> None:
    with pytest.raises(PatternError, match="do not describe rows of 16"):
        unpack_mask(bits, 16)


class TestCompressed:
    @settings(deadline=None)
    @given(matrices(), st.sampled_from([np.float32, np.float16, np.uint16]))
    def test_it_comes_back_exactly(self, case: tuple[np.ndarray, Pattern], dtype: type) -> None:
        weight, pattern = case
        mask = reference_mask(np.abs(weight), pattern)
        pruned = np.where(mask, np.abs(weight), 0).astype(dtype)
        packed = compress(pruned, pattern, mask)
        check_compressed(packed)
        back = decompress(packed)
        assert back.dtype == dtype
        assert back.tobytes() == pruned.tobytes()
        assert np.array_equal(compressed_mask(packed), mask)

    @pytest.mark.parametrize("columns", [2, 62, 64, 66, 126, 128, 130, 384])
    @pytest.mark.parametrize("rows", [1, 3])
    def test_one_two_layout(self, rows: int, columns: int) -> None:
        """Values and bits where the docstring says, read one by one."""
        weight = np.random.default_rng(columns).standard_normal((rows, columns)).astype(np.float32)
        mask = reference_mask(np.abs(weight), ONE_OF_TWO)
        packed = compress(np.where(mask, weight, 0), ONE_OF_TWO)
        panels = -(-columns // 64)
        assert packed.values.shape == (panels, rows, 32)
        assert packed.bits.shape == (panels, rows)
        assert packed.bits.dtype == np.uint32
        for row in range(rows):
            for pair in range(panels * 32):
                panel, place = divmod(pair, 32)
                bit = int(packed.bits[panel, row]) >> place & 1
                value = packed.values[panel, row, place]
                if 2 * pair < columns:
                    assert bit == mask[row, 2 * pair + 1]
                    assert value == weight[row, 2 * pair + bit]
                else:
                    assert bit == 0
                    assert value == 0

    def test_one_three_layout(self) -> None:
        assert panel_columns(Pattern(1, 3)) == 63
        weight = np.zeros((1, 66), dtype=np.float32)
        weight[0, 1::3] = np.arange(1, 23)
        packed = compress(weight, Pattern(1, 3))
        assert packed.values.shape == (2, 1, 21)
        assert packed.values[1, 0].tolist() == [22.0] + [0.0] * 20
        assert int(packed.bits[0, 0]) == sum(1 << column for column in range(1, 63, 3))
        assert int(packed.bits[1, 0]) == 1 << 1

    def test_a_given_mask_keeps_its_zeros(self) -> None:
        """A kept weight that happens to be 0.0 stays kept."""
        mask = np.array([[False, True, True, False]])
        packed = compress(np.array([[0.0, 0, 3, 0]]), ONE_OF_TWO, mask)
        assert np.array_equal(compressed_mask(packed), mask)
        assert int(packed.bits[0, 0]) == 0b01

    def test_minus_zero_among_the_kept_survives(self) -> None:
        weight = np.array([[0.0, -0.0]], dtype=np.float32)
        back = decompress(compress(weight, ONE_OF_TWO, np.array([[False, True]])))
        assert np.signbit(back).tolist() == [[False, True]]

    def test_weights_outside_the_mask_are_refused(self) -> None:
        with pytest.raises(PatternError, match="outside the mask"):
            compress(np.array([[1.0, 2]]), ONE_OF_TWO, np.array([[True, False]]))

    @pytest.mark.parametrize(
        "mask", [[[True, True]], [[False, False]], [[True, False, True, False]]]
    )
    def test_a_mask_that_is_not_whole_is_refused(self, mask: list[list[bool]]) -> None:
        with pytest.raises(PatternError, match="not a complete 1:2"):
            compress(np.zeros((1, 2)), ONE_OF_TWO, np.array(mask))

    @pytest.mark.parametrize(
        "pattern", [ONE_OF_TWO, Pattern(2, 4), Pattern(1, 4), Pattern(1, 3), Pattern(5, 6)]
    )
    def test_any_single_change_of_a_bit_is_valid_or_refused(self, pattern: Pattern) -> None:
        """Flip each bit: either it is another whole mask, or it is refused; never read outside."""
        columns = 12
        weight = np.ones((1, columns), dtype=np.float32)
        mask = reference_mask(weight, pattern)
        packed = compress(np.where(mask, weight, 0), pattern, mask)
        for place in range(8 * packed.bits.itemsize):
            bits = packed.bits ^ packed.bits.dtype.type(1 << place)
            changed = Compressed(pattern, columns, packed.values, bits)
            if pattern == ONE_OF_TWO and place < columns // 2:
                assert is_whole(compressed_mask(changed), pattern)
            else:
                with pytest.raises(PatternError, match="bits"):
                    decompress(changed)

    @pytest.mark.parametrize(
        "pattern", [Pattern(2, 4), Pattern(1, 4), Pattern(4, 8), Pattern(2, 3)]
    )
    def test_a_bit_that_moves_to_another_group_is_refused(self, pattern: Pattern) -> None:
        """As many are kept as before, but not of each group; in a full panel and in the last."""
        width = panel_columns(pattern)
        columns = width + 3 * pattern.m
        mask = reference_mask(np.ones((2, columns)), pattern)
        packed = compress(mask.astype(np.float32), pattern, mask)
        for panel, groups in ((0, width // pattern.m), (1, 3)):
            for group in range(groups - 1):
                bits = packed.bits.copy()
                first = group * pattern.m
                bits[panel, 1] ^= np.uint64(1 << first)
                bits[panel, 1] ^= np.uint64(1 << (first + 2 * pattern.m - 1))
                with pytest.raises(PatternError, match="do not form a complete"):
                    check_compressed(Compressed(pattern, columns, packed.values, bits))

    @pytest.mark.parametrize("change", ["columns", "values", "bits", "dtype", "filling"])
    def test_shapes_that_compress_does_not_write_are_refused(self, change: str) -> None:
        packed = compress(np.array([[1.0, 0, 0, 2]] * 3), ONE_OF_TWO)
        values, bits, columns = packed.values.copy(), packed.bits, 4
        if change == "columns":
            columns = 66
        elif change == "values":
            values = values[..., :-1]
        elif change == "bits":
            bits = bits[:, :-1]
        elif change == "dtype":
            bits = bits.astype(np.uint64)
        else:
            values[0, 0, 2] = 7
        with pytest.raises(PatternError):
            check_compressed(Compressed(ONE_OF_TWO, columns, values, bits))

    def test_shapes_are_known_before_the_values(self) -> None:
        weight = np.zeros((5, 130), dtype=np.float32)
        weight[:, ::2] = 1
        packed = compress(weight, ONE_OF_TWO)
        values, bits, dtype = compressed_shapes(ONE_OF_TWO, 5, 130)
        assert packed.values.shape == values
        assert packed.bits.shape == bits
        assert packed.bits.dtype == dtype
