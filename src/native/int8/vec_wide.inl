// 16 floats in several registers. Included by files that have defined `part::Vec`, one register,
// with `largest` and `lane_sum`.
#pragma once

struct Vec {
    static constexpr int kWidth = 16, kParts = kWidth / part::Vec::kWidth;
    part::Vec v[kParts];

    template <typename Function>
    [[gnu::always_inline]] static Vec each(Function function) {
        Vec result;
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) result.v[i] = function(i);
        return result;
    }
    static Vec broadcast(float x) {
        return each([&](int) { return part::Vec::broadcast(x); });
    }
    static Vec load(const float* p) {
        return each([&](int i) { return part::Vec::load(p + i * part::Vec::kWidth); });
    }
    void store(float* p) const {
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) v[i].store(p + i * part::Vec::kWidth);
    }
};

inline Vec add(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return add(a.v[i], b.v[i]); });
}
inline Vec sub(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return sub(a.v[i], b.v[i]); });
}
inline Vec mul(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return mul(a.v[i], b.v[i]); });
}
inline Vec div(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return div(a.v[i], b.v[i]); });
}
inline Vec fma(const Vec& a, const Vec& b, const Vec& c) {
    return Vec::each([&](int i) { return fma(a.v[i], b.v[i], c.v[i]); });
}
inline Vec abs(const Vec& a) {
    return Vec::each([&](int i) { return abs(a.v[i]); });
}
inline Vec max(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return max(a.v[i], b.v[i]); });
}
inline Vec min(const Vec& a, const Vec& b) {
    return Vec::each([&](int i) { return min(a.v[i], b.v[i]); });
}
inline Vec round(const Vec& a) {
    return Vec::each([&](int i) { return round(a.v[i]); });
}
inline Vec pow2(const Vec& n) {
    return Vec::each([&](int i) { return pow2(n.v[i]); });
}
inline Vec scaled(const Vec& a, const Vec& n) {
    return Vec::each([&](int i) { return scaled(a.v[i], n.v[i]); });
}

// Joins halves until one register is left.
template <typename Join>
[[gnu::always_inline]] inline part::Vec joined(Vec x, Join join) {
#pragma GCC unroll 2
    for (int parts = Vec::kParts / 2; parts > 0; parts /= 2)
#pragma GCC unroll 2
        for (int i = 0; i < parts; ++i) x.v[i] = join(x.v[i], x.v[i + parts]);
    return x.v[0];
}
inline float lane_sum(const Vec& x) {
    return lane_sum(joined(x, [](part::Vec a, part::Vec b) { return add(a, b); }));
}
inline float largest(const Vec& x) {
    return largest(joined(x, [](part::Vec a, part::Vec b) { return max(a, b); }));
}
// out[i] is the largest lane of x[i].
inline void largest_of_each(const Vec (&x)[16], float* out) {
    for (int i = 0; i < 16; ++i) out[i] = largest(x[i]);
}
