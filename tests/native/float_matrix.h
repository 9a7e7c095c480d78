// A matrix of floats and its packed form, each written from the formula of its layout.
#pragma once

#include <string>
#include <vector>

#include "guarded.h"
#include "testing.h"

namespace sparsebert {

// A layout of fp32 or fp16 values; `n` of each `m` weights along a row are kept, with the same
// pattern for `shared` rows.
struct FloatForm {
    Layout layout;
    bool half;
    int n = 0, m = 0, shared = 1;

    std::string name() const;
    int fitting(int columns) const;  // `columns`, or the next number that the layout supports
};

extern const std::vector<FloatForm> kFloatForms;

struct FloatMatrix {
    // Normally distributed weights, each times `scale`.
    FloatMatrix(const FloatForm& form, int rows, int columns, float scale, Random& random);

    Matrix matrix() const;
    double value(int row, int column) const {
        return plain[static_cast<size_t>(row) * columns + column];
    }

    FloatForm form;
    int rows, columns;
    std::vector<double> plain;  // [rows][columns], zeros where nothing is kept
    // One of the first two, and dense matrices have no bits.
    Guarded<float> singles;
    Guarded<uint16_t> halves;
    Guarded<uint32_t> pair_bits;
    Guarded<uint64_t> bitmap;
    Guarded<uint8_t> shared_bits;

  private:
    void store(size_t at, double value);
};

}  // namespace sparsebert
