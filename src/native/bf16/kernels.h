// Computing in bf16: weights and the inputs of linear layers are rounded to bf16, their products
// (exact in fp32) are summed in fp32, and everything else is as in the floating-point pass.
//
// An instruction set that multiplies bf16 has kernels of its own for the layouts below; with any
// other, rounded numbers go through its fp32 kernels (shared_rows.h), which is no faster than fp32.
//
// A panel has 64 inputs. Half h of a panel, 0 or 1, holds its inputs 2w + h in the words w = 0 to
// 31, so that masked moves turn a 1:2 row's kept values into the two halves, and so that adjacent
// words are those of adjacent pairs.
//   weights   half of a panel by 16 rows: [16][32], 1 KiB, a tile
//   inputs    half of a panel by 16 tokens: [16][16 tokens][2 words], 1 KiB, a tile as well
// Vector kernels have both transposed, in units of two words:
//   weights   [16][16 rows][2 words]
//   inputs    [16 tokens][32]
// Missing rows, inputs and tokens are zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels/kernels.h"

namespace sparsebert {

// What linear layers of floating-point weights multiply: the numbers as they are stored, numbers
// rounded to bf16 in fp32 kernels, or bf16 in kernels of its own, on tiles or on vectors.
enum class Products { kStored, kRounded, kBf16Tiles, kBf16Vectors };

constexpr int kBf16TileRows = 16, kBf16TileWords = 16 * 32;

// Layouts of Matrix::values:
//   kBf16Dense        [tiles of rows][panels][2 halves][16][32]
//   kBf16Pairs        [tiles of rows][panels] of Bf16Pairs
//   kBf16SharedPairs  kBf16Dense of the kept inputs, [rows][columns / 2]; bits as in kSharedPairs
struct alignas(64) Bf16Pairs {
    uint16_t kept[16][32];
    // One bit for each word of `kept`, set if the pair keeps its second input.
    uint32_t seconds[16];
};

inline int bf16_panels(int columns) { return (columns + kPanelColumns - 1) / kPanelColumns; }

struct Bf16Kernels {
    const char* instructions;
    // As Kernels::linear, for kBf16 layouts; the call's scratch has bf16_scratch_bytes.
    void (*linear)(const Linear&, int row_begin, int row_end);
    int block_tokens;
    Products products;  // whose layout `linear` expects
};

// The same kernels with linear layers in bf16.
inline Kernels with_bf16(Kernels kernels, const Bf16Kernels& bf16) {
    kernels.linear = bf16.linear;
    kernels.block_tokens = bf16.block_tokens;
    return kernels;
}

constexpr size_t kBf16BlockScratch = 24 << 10;

inline size_t bf16_scratch_bytes(int columns, int tokens) {
    return kBf16BlockScratch +
           static_cast<size_t>(bf16_panels(columns)) * kPanelColumns * sizeof(uint16_t) * tokens;
}

extern const Bf16Kernels kAvx512Bf16, kAvx512AmxBf16;

}  // namespace sparsebert
