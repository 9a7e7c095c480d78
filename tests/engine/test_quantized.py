"""int8 matrices: rounding, each layout place by place, and what damaged ones are refused for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.errors import PatternError
from sparsebert.patterns import ONE_OF_TWO, Pattern, mask_from_scores
from sparsebert.quantized import (
    LAYOUTS,
    Quantized,
    QuantizedDense,
    QuantizedPairs,
    QuantizedPanels,
    QuantizedSharedPairs,
    QuantizedTable,
    check_quantized,
    dequantize,
    linear_layout,
    quantize,
    quantize_rows,
)

SHAPES = [(1, 2), (15, 6), (16, 8), (17, 10), (33, 64), (36, 52), (52, 36), (100, 132)]


def pruned(
    rows: int, columns: int, pattern: Pattern | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Random weights and their mask; in one row they are all zero."""
    weight = np.random.default_rng(rows * columns).standard_normal((rows, columns))
    weight = weight.astype(np.float32)
    weight[rows // 2] = 0
    if pattern is None:
        return weight, None
    mask = mask_from_scores(np.abs(weight), pattern)
    return weight * mask, mask


def quantized(rows: int, columns: int, pattern: str | None, table: bool = False) -> Quantized:
    kind = None if pattern is None else Pattern.parse(pattern)
    weight, mask = pruned(rows, columns, kind)
    return quantize(weight, QuantizedTable if table else linear_layout(kind), kind, mask)


class TestRows:
    def test_each_row_has_its_own_scale(self) -> None:
        weight = np.array([[127, -63.4, 0.6], [0, 0, 0], [-2, 1, 0.5]], np.float32)
        values, scales = quantize_rows(weight)
        assert values.tolist() == [[127, -63, 1], [0, 0, 0], [-127, 64, 32]]
        assert scales.tolist() == [1, 0, np.float32(2) / np.float32(127)]
        assert not np.signbit(scales).any()
        assert (values.dtype, scales.dtype) == (np.int8, np.float32)

    def test_no_value_is_further_off_than_half_a_step(self) -> None:
        weight = np.random.default_rng(0).standard_normal((2500, 7)).astype(np.float32)
        values, scales = quantize_rows(weight)
        error = np.abs(values * scales[:, None].astype(np.float64) - weight)
        assert np.all(error <= 0.5001 * scales[:, None])
        assert np.all(np.abs(values).max(1) == 127)

    @pytest.mark.parametrize("size", [1e-45, 5e-44, 1e-40, 1e-38, 3.4e38])
    @pytest.mark.parametrize("small_pairs", [False, True])
    def test_the_ends_of_float32(self, size: float, small_pairs: bool) -> None:
        """Scales that underflow give zeros, and never -128."""
        weight = np.array([[size, -size, size / 2, 0]], np.float32)
        values, scales = quantize_rows(weight, small_pairs)
        assert np.all(np.abs(values.astype(int)) <= 127)
        assert np.isfinite(scales).all()
        assert values.any() == bool(scales[0] > 0)


class TestSmallPairs:
    """Neighbouring bytes of a layer's weights, times 255, add up in 16 bits."""

    def test_the_scale_is_the_largest_sum_of_neighbours(self) -> None:
        weight = np.array([[3, 0, 0, 1, 0, -3, -1, 0], [0, -2, 3, 0, 1, 0, 0, 1]], np.float32)
        values, scales = quantize_rows(weight, small_pairs=True)
        assert scales.tolist() == [np.float32(3) / 127 + np.float32(1) / 127, np.float32(3) / 127]
        assert values[0].tolist() == [95, 0, 0, 32, 0, -95, -32, 0]
        assert values[1].tolist() == [0, -85, 127, 0, 42, 0, 0, 42]

    @pytest.mark.parametrize("columns", [1, 2, 6, 7, 8, 130])
    @pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", "2:4", "1:4", None])
    def test_neighbours_in_every_layout(self, pattern: str | None, columns: int) -> None:
        kind = None if pattern is None else Pattern.parse(pattern)
        columns = columns if kind is None else -(-columns // kind.m) * kind.m
        rng = np.random.default_rng(columns)
        weight = rng.choice(np.array([1, 0.999, -1, 0.5, 0.003], np.float32), (50, columns))
        mask = None if kind is None else mask_from_scores(rng.random(weight.shape), kind)
        weight = weight if mask is None else weight * mask
        packed = quantize(weight, linear_layout(kind), kind, mask)
        # As dense or 1:2 tiles the kernels read 0 2 4 6 1 3 5 7, or one of each pair, by twos.
        integers = np.pad(packed.row_major().astype(int), ((0, 0), (0, -columns % 8)))
        fours = integers.reshape(len(weight), -1, 2, 2)
        sums = fours[:, :, 0, :, None] + fours[:, :, 1, None, :]
        assert np.abs(sums).max() <= 128
        assert np.abs(integers).max() <= 127

    def test_no_value_is_further_off_than_half_a_step(self) -> None:
        weight = np.random.default_rng(0).standard_normal((2500, 7)).astype(np.float32)
        values, scales = quantize_rows(weight, small_pairs=True)
        error = np.abs(values * scales[:, None].astype(np.float64) - weight)
        assert np.all(error <= 0.5001 * scales[:, None])

    def test_tables_use_all_of_the_range(self) -> None:
        weight = np.array([[1, 0, 1, 0]], np.float32)
        assert quantize(weight, QuantizedTable).values.tolist() == [[127, 0, 127, 0]]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_pairs_place_by_place(rows: int, columns: int) -> None:
    weight, mask = pruned(rows, columns, ONE_OF_TWO)
    assert mask is not None
    integers, scales = quantize_rows(weight, small_pairs=True)
    packed = quantize(weight, QuantizedPairs, ONE_OF_TWO, mask)
    tiles, groups = -(-rows // 16), -(-columns // 8)
    assert packed.values.shape == (tiles, groups, 16, 4)
    assert packed.bits is not None
    assert (packed.bits.shape, packed.bits.dtype) == ((tiles, groups), np.uint64)
    assert np.array_equal(packed.scales, scales)
    for row in range(tiles * 16):
        for pair in range(groups * 4):
            tile, group = row // 16, pair // 4
            bit = int(packed.bits[tile, group]) >> (4 * (row % 16) + pair % 4) & 1
            value = packed.values[tile, group, row % 16, pair % 4]
            if row < rows and 2 * pair < columns:
                assert bit == mask[row, 2 * pair + 1]
                assert value == integers[row, 2 * pair + bit]
            else:
                assert (bit, value) == (0, 0)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_shared_pairs_place_by_place(rows: int, columns: int) -> None:
    pattern = Pattern(1, 2, 32)
    weight, mask = pruned(rows, columns, pattern)
    assert mask is not None
    integers, _ = quantize_rows(weight, small_pairs=True)
    packed = quantize(weight, QuantizedSharedPairs, pattern, mask)
    tiles, fours = -(-rows // 16), 2 * -(-columns // 16)
    assert packed.values.shape == (tiles, fours, 16, 4)
    assert packed.bits is not None
    assert (packed.bits.shape, packed.bits.dtype) == ((-(-rows // 32), fours // 2), np.uint8)
    for row in range(tiles * 16):
        for pair in range(fours * 4):
            value = packed.values[row // 16, pair // 4, row % 16, pair % 4]
            if row < rows and 2 * pair < columns:
                bit = packed.bits[row // 32, pair // 8] >> pair % 8 & 1
                assert bit == mask[row, 2 * pair + 1]
                assert value == integers[row, 2 * pair + bit]
            else:
                assert value == 0


@pytest.mark.parametrize(("rows", "columns"), [*SHAPES, (3, 1), (16, 7), (5, 13), (20, 12)])
def test_dense_tiles_place_by_place(rows: int, columns: int) -> None:
    weight, _ = pruned(rows, columns, None)
    integers, _ = quantize_rows(weight, small_pairs=True)
    packed = quantize(weight, QuantizedDense)
    tiles, groups = -(-rows // 16), -(-columns // 8)
    assert packed.values.shape == (tiles, 2 * groups, 16, 4)
    for row in range(tiles * 16):
        for column in range(groups * 8):
            group, (place, odd) = column // 8, divmod(column % 8, 2)
            value = packed.values[row // 16, 2 * group + odd, row % 16, place]
            assert value == (integers[row, column] if row < rows and column < columns else 0)


CASES = [("1:2", shape) for shape in SHAPES]
CASES += [("1:2 shared by 16 rows", shape) for shape in SHAPES]
CASES += [("1:2 shared by 128 rows", (300, 28))]
CASES += [(None, shape) for shape in [*SHAPES, (3, 1), (5, 13)]]
CASES += [("2:4", (17, 36)), ("2:4", (36, 52)), ("1:4", (52, 36)), ("4:8", (3, 72))]
CASES += [("1:3", (5, 66)), ("63:64", (2, 128))]


@pytest.mark.parametrize(("pattern", "shape"), CASES)
def test_every_layout_comes_back(pattern: str | None, shape: tuple[int, int]) -> None:
    kind = None if pattern is None else Pattern.parse(pattern)
    weight, mask = pruned(*shape, kind)
    packed = quantize(weight, linear_layout(kind), kind, mask)
    check_quantized(packed)
    assert (packed.rows, packed.columns, packed.pattern) == (*shape, kind)
    integers, scales = quantize_rows(weight, small_pairs=True)
    assert np.array_equal(packed.row_major(), integers)
    assert packed.row_major().dtype == np.int8
    dense = dequantize(packed)
    assert dense.dtype == np.float32
    assert np.array_equal(dense, integers.astype(np.float32) * scales[:, None])
    assert not np.signbit(dense[dense == 0]).any()
    back = packed.mask()
    assert (back is None) if mask is None else np.array_equal(back, mask)
    for part, (dtype, size) in packed.shapes(*shape, kind).items():
        assert (packed.parts[part].dtype, packed.parts[part].shape) == (dtype, size)
    assert list(packed.shapes(*shape, kind)) == list(packed.parts)


def test_a_table_is_row_major() -> None:
    weight, _ = pruned(5, 13, None)
    packed = quantize(weight, QuantizedTable)
    check_quantized(packed)
    assert np.array_equal(packed.values, quantize_rows(weight)[0])
    assert packed.mask() is None


def test_a_kept_weight_that_rounds_to_zero_stays_kept() -> None:
    weight = np.array([[0, 1e-6, 100, 0]], np.float32)
    for pattern, mask in ((ONE_OF_TWO, [[0, 1, 1, 0]]), (Pattern(2, 4), [[0, 1, 1, 0]])):
        packed = quantize(weight, linear_layout(pattern), pattern, np.array(mask, bool))
        assert dequantize(packed).tolist() == [[0, 0, 100, 0]]
        assert packed.mask().tolist() == np.array(mask, bool).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layout", "pattern", "columns"),
    [
        (QuantizedPairs, None, 8),
        (QuantizedPairs, Pattern(2, 4), 8),
        (QuantizedPairs, ONE_OF_TWO, 7),
        (QuantizedDense, ONE_OF_TWO, 8),
        (QuantizedPanels, None, 8),
        (QuantizedPanels, ONE_OF_TWO, 8),
        (QuantizedPanels, Pattern(2, 4), 6),
        (QuantizedTable, ONE_OF_TWO, 8),
    ],
)
def test_layouts_refuse_other_matrices(
    layout: type[Quantized], pattern: Pattern | None, columns: int
) -> None:
    with pytest.raises(PatternError, match=f"layout '{layout.layout}' does not fit"):
        layout.shapes(3, columns, pattern)
    weight = np.zeros((3, columns), np.float32)
    mask = None if pattern is None else np.ones(weight.shape, bool)
    with pytest.raises(PatternError, match="does not fit"):
        quantize(weight, layout, pattern, mask)


@pytest.mark.parametrize("pattern", [ONE_OF_TWO, Pattern(2, 4)])
def test_weights_outside_the_mask_are_refused(pattern: Pattern) -> None:
    weight = np.ones((2, 8), np.float32)
    mask = mask_from_scores(weight, pattern)
    with pytest.raises(PatternError, match="outside the mask is not zero"):
        quantize(weight, linear_layout(pattern), pattern, mask)


def test_layouts_are_known_by_name() -> None:
    assert list(LAYOUTS) == ["pairs", "shared-pairs", "dense", "panels", "table"]


# One of each layout, with filling where it has any.
MATRICES = [(17, 10, "1:2", False), (17, 13, None, False), (5, 36, "2:4", False)]
MATRICES += [(5, 7, None, True)]


class TestRefusing:
    @pytest.mark.parametrize("matrix", MATRICES)
    @pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1e-9])
    def test_scales(self, matrix: tuple[int, int, str | None, bool], scale: float) -> None:
        packed = quantized(*matrix)
        packed.scales[packed.rows // 3] = scale
        with pytest.raises(PatternError, match="scales are not all finite"):
            check_quantized(packed)

    @pytest.mark.parametrize(
        ("matrix", "part"),
        [(matrix, part) for matrix in MATRICES for part in quantized(*matrix).parts],
    )
    def test_types_and_shapes_of_parts(
        self, matrix: tuple[int, int, str | None, bool], part: str
    ) -> None:
        packed = quantized(*matrix)
        array = packed.parts[part]
        for changed in (
            array.astype(np.float64),
            array.astype(np.uint8),
            array[None],
            np.concatenate((array, array)),
            array[..., :-1],
        ):
            with pytest.raises(PatternError, match="its (values|bits|scales) are"):
                check_quantized(replace(packed, **{part: changed}))

    @pytest.mark.parametrize("columns", [-10, 0, 2, 18])
    def test_other_columns(self, columns: int) -> None:
        with pytest.raises(PatternError):
            check_quantized(replace(quantized(17, 10, "1:2"), columns=columns))

    def test_no_rows(self) -> None:
        empty = QuantizedTable(3, np.zeros((0, 3), np.int8), np.zeros(0, np.float32))
        with pytest.raises(PatternError, match="has no weights"):
            check_quantized(empty)

    @pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", "2:4"])
    def test_bits_that_are_missing(self, pattern: str) -> None:
        with pytest.raises(PatternError, match="its bits are missing"):
            check_quantized(replace(quantized(16, 8, pattern), bits=None))

    @pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", None])
    @pytest.mark.parametrize("place", ["row", "column"])
    def test_values_behind_the_last(self, pattern: str | None, place: str) -> None:
        packed = quantized(17, 10, pattern)
        at = (1, 0, 1, 0) if place == "row" else (0, -1, 15, 1)
        packed.values[at] = 1
        with pytest.raises(PatternError, match="padding after the last row or column is not zero"):
            check_quantized(packed)

    @pytest.mark.parametrize("columns", range(2, 34, 2))
    def test_shared_pairs_behind_the_last(self, columns: int) -> None:
        """Whichever half of the last eight pairs they are in, of values and of bits."""
        for pair in range(columns // 2, -(-columns // 16) * 8):
            packed = quantized(16, columns, "1:2 shared by 16 rows")
            packed.values[0, pair // 4, 5, pair % 4] = 1
            with pytest.raises(
                PatternError, match="padding after the last row or column is not zero"
            ):
                check_quantized(packed)
            packed = quantized(16, columns, "1:2 shared by 16 rows")
            assert packed.bits is not None
            packed.bits[0, pair // 8] |= np.uint8(1 << pair % 8)
            with pytest.raises(PatternError, match="bits point beyond the last column"):
                check_quantized(packed)

    @pytest.mark.parametrize("column", [13, 14, 15])
    def test_odd_columns_have_their_own_filling(self, column: int) -> None:
        packed = quantized(16, 13, None)
        packed.values[0, 2 + column % 2, 3, column % 8 // 2] = 1
        with pytest.raises(PatternError, match="not zero"):
            check_quantized(packed)

    @settings(max_examples=64)
    @given(st.integers(0, 1), st.integers(0, 1), st.integers(0, 63))
    def test_any_bit_of_pairs_is_another_mask_or_refused(self, t: int, g: int, bit: int) -> None:
        packed = quantized(18, 12, "1:2")
        assert packed.bits is not None
        packed.bits[t, g] ^= np.uint64(1 << bit)
        if 16 * t + bit // 4 < 18 and 8 * g + 2 * (bit % 4) < 12:
            check_quantized(packed)
            return
        with pytest.raises(
            PatternError, match="the stored bits point beyond the last (row|column)"
        ):
            check_quantized(packed)

    def test_bits_of_panels_that_are_not_whole(self) -> None:
        packed = quantized(5, 36, "2:4")
        assert packed.bits is not None
        packed.bits[0, 3] ^= np.uint64(1)
        with pytest.raises(PatternError, match="do not form a complete 2:4 mask"):
            check_quantized(packed)

    def test_any_value_within_is_another_matrix(self) -> None:
        """-128 too: the check promises not to read the values."""
        packed = quantized(17, 10, "1:2")
        packed.values[0, 0] = -128
        check_quantized(packed)
        assert np.abs(packed.row_major()[:16, :8].astype(int)).max() == 128
