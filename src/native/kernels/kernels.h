// The kernels that the encoder requires of an instruction set: one table of functions, filled once
// per set.
//
// Activations are feature-major, in blocks of up to kBlockTokens tokens: a block of `width` tokens
// is float[features][width], so that a SIMD lane is a token, a linear layer broadcasts each weight
// against a run of tokens, and LayerNorm and softmax reduce down a lane with no horizontal sums.
// A width is always a multiple of kLaneTokens; lanes past the last token contain finite numbers
// that are never read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsebert {

constexpr int kLaneTokens = 16;    // the widest register: 16 floats of AVX-512
constexpr int kBlockTokens = 96;   // 64 inputs x 96 tokens x 4 bytes = 24 KiB: a panel fits L1
constexpr int kPanelColumns = 64;  // inputs in a panel; see compressed.py

constexpr int kEverything = 1 << 28;  // a window wider than any sequence

inline int round_up(int count, int unit) { return (count + unit - 1) / unit * unit; }

// The last three are for sets that multiply bf16; bf16/kernels.h describes them.
enum class Layout {
    kDense,
    kPairs,
    kSharedPairs,
    kBitmap,
    kBf16Dense,
    kBf16Pairs,
    kBf16SharedPairs
};
enum class Activation { kNone, kGelu, kGeluTanh, kRelu, kSilu, kTanh };

// The weight of a linear layer, [rows outputs][columns inputs], as it lies in memory.
//   kDense   values [rows][columns]
//   kPairs   values [panels][rows][32], bits uint32 [panels][rows]: 1:2; bit p of a word is the
//            offset (0 or 1) of pair p's kept weight
//   kSharedPairs  values [rows][columns / 2],
//            bits uint8 [blocks of shared_rows][(columns + 15) / 16]:
//            1:2 with one pattern per block of rows; bit p is the offset of pair p's kept weight
//   kBitmap  values [panels][rows][kept], bits uint64 [panels][rows]: N:M; bit c marks column c
struct Matrix {
    Layout layout = Layout::kDense;
    bool half = false;     // values are IEEE fp16, else fp32
    bool rounded = false;  // values are fp32 rounded to bf16, and inputs must be rounded too
    int rows = 0;
    int columns = 0;
    int panel_columns = kPanelColumns;
    int kept = kPanelColumns;  // values of one row in one panel
    int shared_rows = 0;       // kSharedPairs
    const void* values = nullptr;
    const void* bits = nullptr;
};

// y = activation(W x + bias + residual) for some rows of one token block.
struct Linear {
    const Matrix* weight;
    const float* bias;      // [rows], or null
    const float* x;         // [columns][width]
    const float* residual;  // [rows][width], or null; may be y itself
    float* y;               // [rows][width]
    int width;
    Activation activation;
    uint8_t* scratch = nullptr;  // for computing in bf16
};

// One head of one sequence, whose first `queries` tokens attend to its first `keys` tokens. q, k, v
// and out are [head_size][stride], finite past the last token; the stride is at least the number of
// tokens and, like `queries`, a multiple of kLaneTokens. scratch has attention_scratch(keys)
// floats.
struct Attention {
    const float* q;
    const float* k;
    const float* v;
    float* out;
    float* scratch;
    int keys;
    int queries;
    int stride;
    int head_size;
    float scale;  // 1 / sqrt(terms x head_size)
    // bias[i - j] is added to the score of query i and key j; null adds nothing. Keys further away
    // than `window` are not computed, except where they share a tile of queries with nearer ones;
    // the bias must suppress those.
    const float* bias = nullptr;
    int window = kEverything;
    // Disentangled attention: keys and queries of distances, [head_size][distances_stride]. The
    // pointers are at distance 0; query i and key j use column i - j. Both or neither.
    const float* distance_keys = nullptr;
    const float* distance_queries = nullptr;
    size_t distances_stride = 0;
};

struct Kernels {
    const char* name;
    void (*linear)(const Linear&, int row_begin, int row_end);
    void (*attention)(const Attention&);
    // y = (x - mean) / sqrt(variance + epsilon) * gamma + beta down each lane of columns
    // [lane_begin, lane_end) of a block, x and y [features][width]; y may be x.
    void (*layer_norm)(const float* x, float* y, const float* gamma, const float* beta,
                       int features, int width, int lane_begin, int lane_end, float epsilon);
    // Sum and maximum of `count` contiguous floats.
    float (*sum)(const float* x, int count);
    float (*maximum)(const float* x, int count);
    // Rotates each pair (a[i], b[i]) by its own angle.
    void (*rotate)(float* a, float* b, const float* cosines, const float* sines, int count);
    // x[i] *= by[i].
    void (*multiply)(float* x, const float* by, size_t count);
    int block_tokens = kBlockTokens;  // the most tokens of a block
};

inline size_t attention_scratch(int keys) { return static_cast<size_t>(keys) * 4 * kLaneTokens; }

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kNeonKernels;

}  // namespace sparsebert
