// The inputs of a linear layer, rounded and laid out as described in kernels.h. Included by files
// that have defined interleave(first, second, out): 16 floats of each to [16][2] words.
#pragma once

// Finds inputs [first, first + 4) of the layer, each of `width` floats: rows of x (with a shared
// pattern, those that the block of rows keeps), or zeros past the last.
struct InputRows {
    const float* x;
    int columns, width;
    const uint8_t* seconds;  // a bit per pair, for kBf16SharedPairs; else null

    void find(int first, const float* (&rows)[4]) const {
        alignas(64) static constexpr float kZeros[kLaneTokens] = {};
        for (int i = 0; i < 4; ++i) {
            const int input = first + i;
            if (zeros(input)) {
                rows[i] = kZeros;
                continue;
            }
            const int row = seconds ? 2 * input + (seconds[input / 8] >> input % 8 & 1) : input;
            rows[i] = x + static_cast<size_t>(row) * width;
        }
    }
    bool zeros(int input) const { return input >= columns; }
};

// Lays out both halves of each panel.
inline void lay_out_inputs(const InputRows& inputs, uint16_t* out) {
    const int panels = bf16_panels(inputs.columns);
    for (int panel = 0; panel < panels; ++panel)
        for (int j = 0; j < 16; ++j) {
            const int first = panel * kPanelColumns + 4 * j;
            const float* rows[4];
            inputs.find(first, rows);
            for (int token = 0; token < inputs.width; token += kLaneTokens) {
                const float* at[4];
                for (int i = 0; i < 4; ++i) at[i] = rows[i] + (inputs.zeros(first + i) ? 0 : token);
                const size_t tile = static_cast<size_t>(token / kLaneTokens) * panels + panel;
                uint16_t* to = out + tile * 2 * kBf16TileWords + j * 32;
                interleave(at[0], at[2], to);
                interleave(at[1], at[3], to + kBf16TileWords);
            }
        }
}

// Calls use(bits of the block or null, begin, end) for each range of rows with the same inputs.
template <typename Use>
void each_block_of_rows(const Matrix& w, int row_begin, int row_end, const Use& use) {
    if (w.layout != Layout::kBf16SharedPairs) return use(nullptr, row_begin, row_end);
    const uint8_t* bits = static_cast<const uint8_t*>(w.bits);
    while (row_begin < row_end) {
        const int block = row_begin / w.shared_rows;
        const int end = std::min(row_end, (block + 1) * w.shared_rows);
        use(bits + static_cast<size_t>(block) * ((w.columns + 15) / 16), row_begin, end);
        row_begin = end;
    }
}

// The epilogue: adds bias and residual, applies the activation and stores `count` tokens of a row.
inline void finish_row(const Linear& call, int row, int token, const float* sums, int count) {
    const size_t at = static_cast<size_t>(row) * call.width + token;
    const Vec bias = Vec::broadcast(call.bias ? call.bias[row] : 0.0f);
    for (int t = 0; t < count; t += Vec::kWidth) {
        Vec y = add(Vec::load(sums + t), bias);
        if (call.residual) y = add(y, Vec::load(call.residual + at + t));
        y.store(call.y + at + t);
    }
    if (call.activation != Activation::kNone) activate(call.y + at, count, call.activation);
}
