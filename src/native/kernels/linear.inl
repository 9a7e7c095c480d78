// Linear layers, written once for every instruction set. Included by files that have defined `Vec`.
//
// Layers are computed panel by panel of inputs, so that the activations at hand stay in L1 while
// every row passes over them; between panels a row's partial sums are kept in y. Within a panel, R
// rows by T vectors of tokens are accumulated in registers. A tile with fewer rows left repeats its
// last one, which stores the same values again.
#pragma once

#include "activation.inl"

// A row's values of one panel as floats: in place, or converted from fp16 into `buffer` (F16C: one
// conversion per register).
inline const float* panel_values(const Matrix& w, size_t index, int count, float* buffer) {
    if (!w.half) return static_cast<const float*>(w.values) + index;
    const uint16_t* source = static_cast<const uint16_t*>(w.values) + index;
    int i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth) Vec::load_half(source + i).store(buffer + i);
    for (; i < count; ++i) buffer[i] = half_to_float(source[i]);
    return buffer;
}

// Prefetches upcoming values: the hardware prefetcher stops at each page, and with few tokens the
// kernels wait for weights.
inline void prefetch_values(const Matrix& w, size_t index, int count) {
    const size_t size = w.half ? 2 : 4;
    const char* from = static_cast<const char*>(w.values) + index * size;
    for (size_t at = 0; at < count * size; at += 64) __builtin_prefetch(from + at);
}

constexpr int kRowsAhead = 24;  // of a panel: 3 KiB of fp32 pairs

// Loads and stores the partial sums of a tile. Loops over a tile's vectors are unrolled explicitly;
// otherwise the compiler would keep the sums in memory.
struct Tile {
    const Linear& call;
    int panel, columns;  // of the inputs
    bool first, last;    // panel
    int token;           // first token
    int row, rows;       // first row, rows left

    int at(int r) const { return row + (r < rows ? r : rows - 1); }

    template <int T>
    void begin(Vec (&sums)[T], int r) const {
        const size_t offset = static_cast<size_t>(at(r)) * call.width + token;
        const float* from = first ? call.residual : call.y;
        if (from) {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = Vec::load(from + offset + t * Vec::kWidth);
        } else {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = Vec::broadcast(0.0f);
        }
        if (first && call.bias) {
            const Vec bias = Vec::broadcast(call.bias[at(r)]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = add(sums[t], bias);
        }
    }
    template <int T>
    void end(Vec (&sums)[T], int r) const {
        float* to = call.y + static_cast<size_t>(at(r)) * call.width + token;
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[t].store(to + t * Vec::kWidth);
        if (last && call.activation != Activation::kNone)
            activate(to, T * Vec::kWidth, call.activation);
    }
    const float* inputs(int panel_columns) const {
        return call.x + static_cast<size_t>(panel) * panel_columns * call.width + token;
    }
};

// 1:2. For each pair a bit selects one of two adjacent rows of x: an address, not a shuffle. Loads
// are the bottleneck, so two weight rows go together: first the pairs of which both keep the same
// input, where one load of x feeds two FMAs, then those in which they differ.
template <int T>
struct PairRows {
    static constexpr int kRows = 2;
    static void run(const Tile& tile) {
        const Matrix& w = *tile.call.weight;
        const size_t panel = static_cast<size_t>(tile.panel) * w.rows;
        const size_t stride = static_cast<size_t>(tile.call.width);
        const float* x = tile.inputs(kPanelColumns);
        float buffer[2][32];
        const float* values[2];
        uint32_t bits[2];
        Vec sums[2][T];
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
            values[r] = panel_values(w, (panel + tile.at(r)) * 32, 32, buffer[r]);
            bits[r] = static_cast<const uint32_t*>(w.bits)[panel + tile.at(r)];
            prefetch_values(w, (panel + tile.at(r) + kRowsAhead) * 32, 32);
            tile.begin(sums[r], r);
        }
        const uint32_t pairs = ~0u >> (32 - tile.columns / 2);
        const uint32_t differ = bits[0] ^ bits[1];
        for (uint32_t left = ~differ & pairs; left; left &= left - 1) {
            const int p = __builtin_ctz(left);
            const float* chosen = x + (2 * static_cast<size_t>(p) + ((bits[0] >> p) & 1)) * stride;
            const Vec a = Vec::broadcast(values[0][p]), b = Vec::broadcast(values[1][p]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const Vec input = Vec::load_once(chosen + t * Vec::kWidth);
                sums[0][t] = fma(a, input, sums[0][t]);
                sums[1][t] = fma(b, input, sums[1][t]);
            }
        }
        for (uint32_t left = differ & pairs; left; left &= left - 1) {
            const int p = __builtin_ctz(left);
            const size_t offset = (0 - static_cast<size_t>((bits[0] >> p) & 1)) & stride;
            const float* pair = x + 2 * static_cast<size_t>(p) * stride;
            const float *one = pair + offset, *other = pair + (stride - offset);
            const Vec a = Vec::broadcast(values[0][p]), b = Vec::broadcast(values[1][p]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                sums[0][t] = fma(a, Vec::load(one + t * Vec::kWidth), sums[0][t]);
                sums[1][t] = fma(b, Vec::load(other + t * Vec::kWidth), sums[1][t]);
            }
        }
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) tile.end(sums[r], r);
    }
};

// 1:2 for a block as narrow as the tile, where separating the pairs costs more than it saves: takes
// pair after pair, with the stride of x known at compile time. So few tokens allow wide panels.
constexpr int kNarrowPanel = 4 * kPanelColumns;

template <int T>
struct NarrowPairRows {
    static constexpr int kRows = 4;
    static constexpr size_t kStride = T * Vec::kWidth;

    static void run(const Tile& tile) {
        const Matrix& w = *tile.call.weight;
        const float* x = tile.inputs(kNarrowPanel);
        Vec sums[kRows][T];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) tile.begin(sums[r], r);
        for (int begin = 0; begin < tile.columns; begin += kPanelColumns) {
            const size_t panel =
                static_cast<size_t>(tile.panel * kNarrowPanel + begin) / kPanelColumns * w.rows;
            float buffer[kRows][32];
            const float* values = static_cast<const float*>(w.values) + (panel + tile.row) * 32;
            prefetch_values(w, (panel + tile.row + kRowsAhead) * 32, kRows * 32);
            if (w.half || tile.rows < kRows) {
                for (int r = 0; r < kRows; ++r) {
                    const float* row = panel_values(w, (panel + tile.at(r)) * 32, 32, buffer[r]);
                    if (row != buffer[r]) __builtin_memcpy(buffer[r], row, sizeof buffer[r]);
                }
                values = buffer[0];
            }
            uint32_t bits[kRows];
            for (int r = 0; r < kRows; ++r)
                bits[r] = static_cast<const uint32_t*>(w.bits)[panel + tile.at(r)];
            const auto pair = [&](int p) {
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) {
                    const float* chosen = x + ((bits[r] >> p) & 1) * kStride;
                    const Vec weight = Vec::broadcast(values[r * 32 + p]);
#pragma GCC unroll 8
                    for (int t = 0; t < T; ++t)
                        sums[r][t] = fma(weight, Vec::load(chosen + t * Vec::kWidth), sums[r][t]);
                }
                x += 2 * kStride;
            };
            const int left = tile.columns - begin;
            if (left >= kPanelColumns) {
#pragma GCC unroll 8
                for (int p = 0; p < 32; ++p) pair(p);
            } else {
                for (int p = 0; p < left / 2; ++p) pair(p);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) tile.end(sums[r], r);
    }
};

// N:M. One bit per column: counting trailing zeros gives the row of x, and clearing the lowest set
// bit moves on to the next.
template <int T>
struct BitmapRows {
    static constexpr int kRows = 1;
    static void run(const Tile& tile) {
        const Matrix& w = *tile.call.weight;
        const size_t stride = static_cast<size_t>(tile.call.width);
        const size_t at = static_cast<size_t>(tile.panel) * w.rows + tile.row;
        const float* x = tile.inputs(w.panel_columns);
        float buffer[kPanelColumns];
        const float* value = panel_values(w, at * w.kept, w.kept, buffer);
        Vec sums[T];
        tile.begin(sums, 0);
        for (uint64_t bits = static_cast<const uint64_t*>(w.bits)[at]; bits; bits &= bits - 1) {
            const float* chosen = x + static_cast<size_t>(__builtin_ctzll(bits)) * stride;
            const Vec weight = Vec::broadcast(*value++);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t)
                sums[t] = fma(weight, Vec::load(chosen + t * Vec::kWidth), sums[t]);
        }
        tile.end(sums, 0);
    }
};

constexpr int kDensePanel = 128;  // inputs: 128 x 4 vectors of 64 bytes are 32 KiB

// Dense: R rows share each load of x.
template <int T>
struct DenseRows {
    // At most 8 rows: rows a multiple of 4 KiB apart map to the same set of L1, which has 8 ways.
    static constexpr int kRows = kDenseSums / T < 8 ? kDenseSums / T : 8;
    static void run(const Tile& tile) {
        const Matrix& w = *tile.call.weight;
        const size_t stride = static_cast<size_t>(tile.call.width);
        const float* x = tile.inputs(kDensePanel);
        float buffer[kRows][kDensePanel];
        const float* values[kRows];
        for (int r = 0; r < kRows; ++r) {
            const size_t at = static_cast<size_t>(tile.at(r)) * w.columns +
                              static_cast<size_t>(tile.panel) * kDensePanel;
            values[r] = panel_values(w, at, tile.columns, buffer[r]);
        }
        Vec sums[kRows][T];
#pragma GCC unroll 24
        for (int r = 0; r < kRows; ++r) tile.begin(sums[r], r);
        for (int c = 0; c < tile.columns; ++c, x += stride) {
            Vec inputs[T];
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) inputs[t] = Vec::load_once(x + t * Vec::kWidth);
#pragma GCC unroll 24
            for (int r = 0; r < kRows; ++r) {
                const Vec weight = Vec::broadcast(values[r][c]);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t) sums[r][t] = fma(weight, inputs[t], sums[r][t]);
            }
        }
#pragma GCC unroll 24
        for (int r = 0; r < kRows; ++r) tile.end(sums[r], r);
    }
};

// Rows [row_begin, row_end) over `vectors` <= T vectors of tokens.
template <template <int> class Rows, int T>
void sweep_rows(Tile tile, int vectors, int row_begin, int row_end) {
    if (vectors == T) {
        for (tile.row = row_begin; tile.row < row_end; tile.row += Rows<T>::kRows) {
            tile.rows = row_end - tile.row;
            Rows<T>::run(tile);
        }
    } else if constexpr (T > 1) {
        sweep_rows<Rows, T - 1>(tile, vectors, row_begin, row_end);
    }
}

// Panel by panel; within each, the block's tokens are cut into tiles of nearly equal width.
template <template <int> class Rows, int Most>
void sweep(const Linear& call, int panel_columns, int row_begin, int row_end) {
    const int columns = call.weight->columns, vectors = call.width / Vec::kWidth;
    const int tiles = (vectors + Most - 1) / Most;
    for (int begin = 0; begin < columns; begin += panel_columns) {
        const int left = columns - begin;
        for (int i = 0; i < tiles; ++i) {
            const int from = vectors * i / tiles, to = vectors * (i + 1) / tiles;
            const Tile tile{call,
                            begin / panel_columns,
                            left < panel_columns ? left : panel_columns,
                            begin == 0,
                            left <= panel_columns,
                            from * Vec::kWidth,
                            0,
                            0};
            sweep_rows<Rows, Most>(tile, to - from, row_begin, row_end);
        }
    }
}

void linear(const Linear& call, int row_begin, int row_end) {
    const Matrix& w = *call.weight;
    constexpr int kNarrow = kLaneTokens / Vec::kWidth;
    switch (w.layout) {
        case Layout::kPairs:
            if (call.width == kLaneTokens)
                sweep<NarrowPairRows, kNarrow>(call, kNarrowPanel, row_begin, row_end);
            else
                sweep<PairRows, kPairVectors>(call, kPanelColumns, row_begin, row_end);
            break;
        case Layout::kBitmap:
            sweep<BitmapRows, kBitmapVectors>(call, w.panel_columns, row_begin, row_end);
            break;
        case Layout::kSharedPairs:  // arrives as kDense (shared_rows.h)
        case Layout::kBf16Dense:    // these have their own kernels (bf16/kernels.h)
        case Layout::kBf16Pairs:
        case Layout::kBf16SharedPairs:
            break;
        case Layout::kDense:
            sweep<DenseRows, kDenseVectors>(call, kDensePanel, row_begin, row_end);
            break;
    }
}
