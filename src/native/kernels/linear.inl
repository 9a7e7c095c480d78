// Linear layers, once for every instruction set. Included by a file that has defined `Vec`.
//
// Work goes panel by panel (64 inputs) so that the activations at hand stay in L1 while every row
// passes over them; a row's partial sums wait in y between panels. In a panel, R rows by T vectors
// of tokens are accumulated in registers.
#pragma once

#include "math.inl"

// A row's values of one panel as floats: where they lie, or converted from fp16 (F16C: one
// conversion a register) into `buffer`.
inline const float* panel_values(const Matrix& w, size_t index, int count, float* buffer) {
    if (!w.half) return static_cast<const float*>(w.values) + index;
    const uint16_t* source = static_cast<const uint16_t*>(w.values) + index;
    int i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth) Vec::load_half(source + i).store(buffer + i);
    for (; i < count; ++i) buffer[i] = half_to_float(source[i]);
    return buffer;
}

template <typename Function>
inline void map_row(float* y, int count, Function function) {
    for (int i = 0; i < count; i += Vec::kWidth) function(Vec::load(y + i)).store(y + i);
}

// Applies the activation to sums just stored, still in L1: a call a row costs less than the
// registers that the polynomials would take from every inner loop.
[[gnu::noinline]] void activate(float* y, int count, Activation activation) {
    switch (activation) {
        case Activation::kNone:
            break;
        case Activation::kGelu:
            map_row(y, count, [](Vec x) { return gelu(x); });
            break;
        case Activation::kGeluTanh:
            map_row(y, count, [](Vec x) { return gelu_tanh(x); });
            break;
        case Activation::kTanh:
            map_row(y, count, [](Vec x) { return tanh(x); });
            break;
        case Activation::kRelu:
            map_row(y, count, [](Vec x) { return max(x, Vec::broadcast(0.0f)); });
            break;
    }
}

// Where the partial sums of a tile come from and go to. Loops over a tile's vectors are unrolled
// by force: left rolled, they would keep the sums in memory.
struct Tile {
    const Linear& call;
    int row;    // first row
    int token;  // first token
    bool first, last;

    template <int T>
    void begin(Vec (&sums)[T], int r) const {
        const size_t at = static_cast<size_t>(row + r) * call.width + token;
        const float* from = first ? call.residual : call.y;
        if (from) {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = Vec::load(from + at + t * Vec::kWidth);
        } else {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = Vec::broadcast(0.0f);
        }
        if (first && call.bias) {
            const Vec bias = Vec::broadcast(call.bias[row + r]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[t] = add(sums[t], bias);
        }
    }
    template <int T>
    void end(Vec (&sums)[T], int r) const {
        float* to = call.y + static_cast<size_t>(row + r) * call.width + token;
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[t].store(to + t * Vec::kWidth);
        if (last && call.activation != Activation::kNone)
            activate(to, T * Vec::kWidth, call.activation);
    }
};

// 1:2. For each pair one bit says which of two neighbouring rows of x to use: an address, not a
// shuffle, so the FMA takes it as its memory operand. T + 1 loads feed T FMAs.
template <int R, int T>
struct PairRows {
    static void run(const Tile& tile, int panel, int pairs) {
        const Linear& call = tile.call;
        const Matrix& w = *call.weight;
        const size_t at = static_cast<size_t>(panel) * w.rows + tile.row;
        const size_t stride = static_cast<size_t>(call.width);
        const float* x = call.x + static_cast<size_t>(panel) * kPanelColumns * stride + tile.token;
        float buffer[R][32];
        const float* values[R];
        uint32_t bits[R];
        Vec sums[R][T];
#pragma GCC unroll 24
        for (int r = 0; r < R; ++r) {
            values[r] = panel_values(w, (at + r) * 32, 32, buffer[r]);
            bits[r] = static_cast<const uint32_t*>(w.bits)[at + r];
            tile.begin(sums[r], r);
        }
        const auto pair = [&](int p) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const float* chosen = x + ((0 - static_cast<size_t>((bits[r] >> p) & 1)) & stride);
                const Vec weight = Vec::broadcast(values[r][p]);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t)
                    sums[r][t] = fma(weight, Vec::load(chosen + t * Vec::kWidth), sums[r][t]);
            }
            x += 2 * stride;
        };
        if (pairs == 32) {
#pragma GCC unroll 8
            for (int p = 0; p < 32; ++p) pair(p);
        } else {
            for (int p = 0; p < pairs; ++p) pair(p);
        }
#pragma GCC unroll 24
        for (int r = 0; r < R; ++r) tile.end(sums[r], r);
    }
};

// N:M. A bit a column: count trailing zeros names the row of x, clearing the bit goes on.
template <int R, int T>
struct BitmapRows {
    static void run(const Tile& tile, int panel, int) {
        const Linear& call = tile.call;
        const Matrix& w = *call.weight;
        const size_t stride = static_cast<size_t>(call.width);
        const float* x =
            call.x + static_cast<size_t>(panel) * w.panel_columns * stride + tile.token;
        float buffer[kPanelColumns];
        for (int r = 0; r < R; ++r) {
            const size_t at = static_cast<size_t>(panel) * w.rows + tile.row + r;
            const float* value = panel_values(w, at * w.kept, w.kept, buffer);
            Vec sums[T];
            tile.begin(sums, r);
            for (uint64_t bits = static_cast<const uint64_t*>(w.bits)[at]; bits; bits &= bits - 1) {
                const float* chosen = x + static_cast<size_t>(__builtin_ctzll(bits)) * stride;
                const Vec weight = Vec::broadcast(*value++);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t)
                    sums[t] = fma(weight, Vec::load(chosen + t * Vec::kWidth), sums[t]);
            }
            tile.end(sums, r);
        }
    }
};

// Dense: R rows share each load of x.
template <int R, int T>
struct DenseRows {
    static void run(const Tile& tile, int panel, int columns) {
        const Linear& call = tile.call;
        const Matrix& w = *call.weight;
        const size_t stride = static_cast<size_t>(call.width);
        const float* x = call.x + static_cast<size_t>(panel) * kPanelColumns * stride + tile.token;
        float buffer[R][kPanelColumns];
        const float* values[R];
        Vec sums[R][T];
#pragma GCC unroll 24
        for (int r = 0; r < R; ++r) {
            const size_t at = static_cast<size_t>(tile.row + r) * w.columns + panel * kPanelColumns;
            values[r] = panel_values(w, at, columns, buffer[r]);
            tile.begin(sums[r], r);
        }
        for (int c = 0; c < columns; ++c, x += stride) {
            Vec inputs[T];
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) inputs[t] = Vec::load(x + t * Vec::kWidth);
#pragma GCC unroll 24
            for (int r = 0; r < R; ++r) {
                const Vec weight = Vec::broadcast(values[r][c]);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t) sums[r][t] = fma(weight, inputs[t], sums[r][t]);
            }
        }
#pragma GCC unroll 24
        for (int r = 0; r < R; ++r) tile.end(sums[r], r);
    }
};

// All rows of a range against T vectors of tokens, R rows at a time and the rest singly.
template <template <int, int> class Rows, int R, int T>
void sweep_rows(const Linear& call, int panel, int count, bool first, bool last, int token,
                int row_begin, int row_end) {
    int row = row_begin;
    for (; row + R <= row_end; row += R)
        Rows<R, T>::run({call, row, token, first, last}, panel, count);
    if constexpr (R > 1)
        for (; row < row_end; ++row) Rows<1, T>::run({call, row, token, first, last}, panel, count);
}

// Cuts a block's tokens into register tiles: Most vectors at a time, then what is left. The rows
// of a tile are chosen so that R x T sums hide the FMA latency (4 cycles x 2 a cycle = 8 sums).
template <template <int, int> class Rows, int Most, int Sums, int T = Most>
void sweep_tokens(const Linear& call, int panel, int count, bool first, bool last, int token,
                  int row_begin, int row_end) {
    const int vectors = (call.width - token) / Vec::kWidth;
    if (vectors <= 0) return;
    if (vectors >= T) {
        constexpr int kRows = Sums / T > 0 ? Sums / T : 1;
        sweep_rows<Rows, kRows, T>(call, panel, count, first, last, token, row_begin, row_end);
        sweep_tokens<Rows, Most, Sums, Most>(call, panel, count, first, last,
                                             token + T * Vec::kWidth, row_begin, row_end);
    } else if constexpr (T > 1) {
        sweep_tokens<Rows, Most, Sums, T - 1>(call, panel, count, first, last, token, row_begin,
                                              row_end);
    }
}

void linear(const Linear& call, int row_begin, int row_end) {
    const Matrix& w = *call.weight;
    const int panels = (w.columns + w.panel_columns - 1) / w.panel_columns;
    for (int panel = 0; panel < panels; ++panel) {
        const int left = w.columns - panel * w.panel_columns;
        const int columns = left < w.panel_columns ? left : w.panel_columns;
        const bool first = panel == 0, last = panel == panels - 1;
        switch (w.layout) {
            case Layout::kPairs:
                sweep_tokens<PairRows, Vec::kPairVectors, Vec::kPairSums>(
                    call, panel, columns / 2, first, last, 0, row_begin, row_end);
                break;
            case Layout::kBitmap:
                sweep_tokens<BitmapRows, Vec::kPairVectors, 1>(call, panel, columns, first, last, 0,
                                                               row_begin, row_end);
                break;
            case Layout::kDense:
                sweep_tokens<DenseRows, Vec::kDenseVectors, Vec::kDenseSums>(
                    call, panel, columns, first, last, 0, row_begin, row_end);
                break;
        }
    }
}
