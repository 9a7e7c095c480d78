// An int8 matrix and its packed form, each written from the formula of its layout.
#pragma once

#include <string>
#include <vector>

#include "guarded.h"
#include "memory.h"
#include "testing.h"

namespace sparsebert {

// A layout; `n` of each `m` weights along a row are kept (kPairs, kSharedPairs, kBitmap), with the
// same pattern for `shared` rows.
struct Int8Form {
    Int8Layout layout;
    int n = 0, m = 0, shared = 1;

    std::string name() const;
    int fitting(int columns) const;  // `columns`, or the next number that the layout supports
};

extern const std::vector<Int8Form> kInt8Forms;

// kHalf: so small that the kernels may use has_small_pairs, mostly as large as that allows.
enum class Contents { kRandom, kExtreme, kSparse, kHalf };

struct Int8Matrix {
    Int8Matrix(const Int8Form& form, int rows, int columns, Contents contents, Random& random);

    // The matrix with sums, scales and bias, which may be changed before the call; kBitmap is
    // converted as the engine does at load.
    Int8Weight weight() const;
    int value(int row, int column) const {
        return plain[static_cast<size_t>(row) * columns + column];
    }

    Int8Form form;
    int rows, columns;
    std::vector<int8_t> plain;  // [rows][columns]
    Guarded<int8_t> values;
    Guarded<uint64_t> bits;
    Guarded<uint8_t> second;
    // Padded with zeros to a whole tile.
    Guarded<float> scales, bias;
    Guarded<int32_t> sums;
    mutable Bytes converted;

  private:
    void pack_pairs(const std::vector<bool>& kept);
    void pack_shared_pairs(const std::vector<bool>& kept);
    void pack_bitmap(const std::vector<bool>& kept);
    void pack_dense();
};

}  // namespace sparsebert
