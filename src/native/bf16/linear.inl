// Linear layers in bf16 on vectors: an instruction adds the products of two words for each of 16
// tokens. 1:2 weights need half as many: of two pairs of inputs a row keeps one each, so that all
// four choices are laid out beforehand, and two bits of the row are the address of its own.
//
// As in kernels/linear.inl, work goes by so many panels that the inputs at hand stay in L1 while
// every row passes over them; a row's partial sums wait in y.
#pragma once

#include "inputs.inl"

constexpr int kPanelsAtHand = 2;

struct RowsAndTokens {
    const Linear& call;
    int panels, panel, panel_end;  // of the layer, and those at hand
    const uint16_t* x;             // the first token's
    int row, token;
};

// R rows by T vectors of tokens.
template <int R, int T, int Choices>
void multiply_rows(const RowsAndTokens& at) {
    const Linear& call = at.call;
    const Matrix& w = *call.weight;
    const size_t tokens_words = static_cast<size_t>(at.panels) * Choices * kBf16TileWords;
    const size_t panel = static_cast<size_t>(at.row / kBf16TileRows) * at.panels + at.panel;
    const int row = at.row % kBf16TileRows;
    const auto y = [&](int r) { return static_cast<size_t>(at.row + r) * call.width + at.token; };
    __m512 sums[R][T];
    const float* from = at.panel ? call.y : call.residual;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        const __m512 bias =
            _mm512_set1_ps(at.panel == 0 && call.bias ? call.bias[at.row + r] : 0.0f);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
            sums[r][t] =
                from ? _mm512_add_ps(bias, _mm512_loadu_ps(from + y(r) + t * kLaneTokens)) : bias;
    }
    const uint16_t* x = at.x + static_cast<size_t>(at.panel) * Choices * kBf16TileWords;
    if constexpr (Choices == 4) {
        const Bf16Pairs* weights = static_cast<const Bf16Pairs*>(w.values) + panel;
        for (int p = at.panel; p < at.panel_end; ++p, ++weights, x += 4 * kBf16TileWords)
            for (int j = 0; j < 16; ++j)
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const uint16_t* chosen =
                        x + (weights->seconds[row + r] >> 2 * j & 3) * kBf16TileWords + j * 32;
                    const __m512bh weight = two_words(weights->kept[row + r] + 2 * j);
#pragma GCC unroll 8
                    for (int t = 0; t < T; ++t)
                        sums[r][t] =
                            _mm512_dpbf16_ps(sums[r][t], weight, words(chosen + t * tokens_words));
                }
    } else {
        const uint16_t* weights = static_cast<const uint16_t*>(w.values) +
                                  panel * 2 * kBf16TileWords + static_cast<size_t>(row) * 32;
        for (int half = 2 * at.panel; half < 2 * at.panel_end; ++half) {
            for (int j = 0; j < 16; ++j) {
                __m512bh inputs[T];
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t) inputs[t] = words(x + t * tokens_words + j * 32);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const __m512bh weight = two_words(weights + r * 32 + 2 * j);
#pragma GCC unroll 8
                    for (int t = 0; t < T; ++t)
                        sums[r][t] = _mm512_dpbf16_ps(sums[r][t], weight, inputs[t]);
                }
            }
            weights += kBf16TileWords;
            x += kBf16TileWords;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) _mm512_storeu_ps(call.y + y(r) + t * kLaneTokens, sums[r][t]);
        if (at.panel_end == at.panels && call.activation != Activation::kNone)
            activate(call.y + y(r), T * kLaneTokens, call.activation);
    }
}

template <int T, int Choices>
void sweep_rows(RowsAndTokens at, int row_begin, int row_end) {
    constexpr int kRows = 4;
    for (at.row = row_begin; at.row < row_end;) {
        // No further than the tile, whose rows lie together.
        const int left = std::min(row_end - at.row, kBf16TileRows - at.row % kBf16TileRows);
        if (left >= kRows) {
            multiply_rows<kRows, T, Choices>(at);
            at.row += kRows;
        } else {
            multiply_rows<1, T, Choices>(at);
            ++at.row;
        }
    }
}

template <int Choices>
void sweep(const Linear& call, int columns, const uint16_t* x, int row_begin, int row_end) {
    constexpr int kMost = 4;
    const int panels = bf16_panels(columns);
    const size_t tokens_words = static_cast<size_t>(panels) * Choices * kBf16TileWords;
    for (int panel = 0; panel < panels; panel += kPanelsAtHand)
        for (int token = 0; token < call.width;) {
            const int vectors = std::min((call.width - token) / kLaneTokens, kMost);
            const RowsAndTokens at{call,
                                   panels,
                                   panel,
                                   std::min(panels, panel + kPanelsAtHand),
                                   x + token / kLaneTokens * tokens_words,
                                   0,
                                   token};
            switch (vectors) {
                case 4:
                    sweep_rows<4, Choices>(at, row_begin, row_end);
                    break;
                case 3:
                    sweep_rows<3, Choices>(at, row_begin, row_end);
                    break;
                case 2:
                    sweep_rows<2, Choices>(at, row_begin, row_end);
                    break;
                default:
                    sweep_rows<1, Choices>(at, row_begin, row_end);
                    break;
            }
            token += vectors * kLaneTokens;
        }
}

void linear(const Linear& call, int row_begin, int row_end) {
    const Matrix& w = *call.weight;
    uint16_t* x = reinterpret_cast<uint16_t*>(call.scratch);
    const int columns = w.layout == Layout::kBf16SharedPairs ? w.columns / 2 : w.columns;
    each_block_of_rows(w, row_begin, row_end, [&](const uint8_t* seconds, int begin, int end) {
        const InputRows inputs{call.x, columns, call.width, seconds};
        if (w.layout == Layout::kBf16Pairs) {
            lay_out_inputs<4>(inputs, x);
            sweep<4>(call, columns, x, begin, end);
        } else {
            lay_out_inputs<2>(inputs, x);
            sweep<2>(call, columns, x, begin, end);
        }
    });
}
