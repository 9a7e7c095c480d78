// Plain loops over 16 rows and over 16 features.
#pragma once

#include "../kernels/vec_portable.inl"
#include "fma_once.inl"

inline Vec fma(Vec a, Vec b, Vec c) { return fma_once(a, b, c); }

constexpr int kTileVectors = kTileRows / Vec::kWidth;
constexpr int kInputOffset = 0;  // inputs are multiplied as they are

// In the order of the wider sets, which add the halves of a register first.
inline float lane_sum(Vec x) { return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]); }
inline float largest(Vec x) { return std::max(std::max(x.v[0], x.v[1]), std::max(x.v[2], x.v[3])); }
// out[i] is the largest lane of x[i].
inline void largest_of_each(const Vec (&x)[16], float* out) {
    for (int i = 0; i < 16; ++i) out[i] = largest(x[i]);
}

struct Sums {
    int32_t v[kTileRows];
};
struct Weights {
    const int8_t* v;  // [16][4]
};
struct Four {
    int32_t v[4];
};
struct Choice {
    uint64_t bits;
};
struct Chosen {
    Choice choice;
    Four first, second;
};

inline Sums zero_sums() { return {}; }
inline Sums load_sums(const int32_t* p) {
    Sums sums;
    std::memcpy(sums.v, p, sizeof sums.v);
    return sums;
}
inline void store_sums(const Sums& x, int32_t* p) { std::memcpy(p, x.v, sizeof x.v); }
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums;
    for (int row = 0; row < kTileRows; ++row) sums.v[row] = p[row] * factor;
    return sums;
}
inline Sums add_sums(Sums a, const Sums& b) {
    for (int row = 0; row < kTileRows; ++row) a.v[row] += b.v[row];
    return a;
}
inline void to_floats(const Sums& x, Vec (&lanes)[kTileVectors]) {
    float floats[kTileRows];
    for (int row = 0; row < kTileRows; ++row) floats[row] = static_cast<float>(x.v[row]);
    for (int i = 0; i < kTileVectors; ++i) lanes[i] = Vec::load(floats + i * Vec::kWidth);
}

inline Weights load_weights(const int8_t* p) { return {p}; }
inline Four load_four(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline Choice load_choice(const uint64_t* p) { return {*p}; }
inline Chosen choose(Choice choice, Four first, Four second) { return {choice, first, second}; }
inline void dot(Sums& sums, Four inputs, Weights weights) {
    for (int row = 0; row < kTileRows; ++row)
        for (int i = 0; i < 4; ++i) sums.v[row] += inputs.v[i] * weights.v[4 * row + i];
}
inline void dot(Sums& sums, const Chosen& inputs, Weights weights) {
    for (int row = 0; row < kTileRows; ++row)
        for (int i = 0; i < 4; ++i) {
            const bool second = inputs.choice.bits >> (4 * row + i) & 1;
            sums.v[row] +=
                (second ? inputs.second.v[i] : inputs.first.v[i]) * weights.v[4 * row + i];
        }
}

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, Weights weights) {
    for (int row = 0; row < kTileRows; ++row)
        for (int i = 0; i < 4; ++i) sums.v[row] += inputs[4 * row + i] * weights.v[4 * row + i];
}

// Also maps NaN, which must not be cast to an integer, into the range.
inline float within(float least, float x, float most) { return std::min(std::max(least, x), most); }

inline void store_bytes(const Vec (&lanes)[kTileVectors], uint8_t* out) {
    float floats[16];
    for (int i = 0; i < kTileVectors; ++i) lanes[i].store(floats + i * Vec::kWidth);
    for (int i = 0; i < 16; ++i)
        out[i] = static_cast<uint8_t>(within(0.0f, std::nearbyint(floats[i]), 255.0f));
}

// The same for 64 numbers.
inline void store_64_bytes(const Vec (&lanes)[4 * kTileVectors], uint8_t* out) {
    for (int i = 0; i < 4; ++i) {
        Vec quarter[kTileVectors];
        for (int v = 0; v < kTileVectors; ++v) quarter[v] = lanes[i * kTileVectors + v];
        store_bytes(quarter, out + i * 16);
    }
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, with the inputs of each group in their
// order.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    for (int i = 0; i < 16; ++i) {
        const float value = std::nearbyint(x[i] * inverse) + zero;
        const int at = i / 8 * 8 + i % 2 * 4 + i % 8 / 2;
        out[at] = static_cast<uint8_t>(within(0.0f, value, 255.0f));
    }
}

inline void quantize_64(const float* x, float inverse, float zero, uint8_t* out) {
    for (int i = 0; i < 64; i += 16) quantize_16(x + i, inverse, zero, out + i);
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    for (int i = 0; i < 16; ++i)
        out[i] = static_cast<uint8_t>(
            static_cast<int>(within(-127.0f, std::nearbyint(x[i] * inverse), 127.0f)) + offset);
}

// Transposes `count` keys of `depth` bytes, `stride` apart, to [depth / 4][16 keys][4]; missing
// keys are zero. offsets[key] = -128 x the sum of its bytes.
inline void transpose_keys(const uint8_t* keys, size_t stride, int count, int depth, int8_t* out,
                           int32_t* offsets) {
    for (int key = 0; key < 16; ++key) {
        offsets[key] = 0;
        for (int d = 0; d < depth; ++d) {
            const int8_t value = key < count ? static_cast<int8_t>(keys[key * stride + d]) : 0;
            out[d / 4 * 64 + key * 4 + d % 4] = value;
            offsets[key] -= 128 * value;
        }
    }
}

// Interleaves `count` (1 to 4) rows of `depth` bytes to [depth / 16][16 columns][4 rows]; column
// tiles are `tile` bytes apart.
inline void interleave_values(const uint8_t* values, size_t stride, int count, int depth,
                              int8_t* out, size_t tile) {
    for (int d = 0; d < depth; ++d)
        for (int i = 0; i < 4; ++i)
            out[d / 16 * tile + d % 16 * 4 + i] =
                i < count ? static_cast<int8_t>(values[i * stride + d]) : 0;
}
