// A vector of 4 floats in the compiler's own vector type. Its fma is left to the file that includes
// this one, because without an instruction for it, rounding once costs much more than twice.
#pragma once

struct Vec {
    static constexpr int kWidth = 4;
    typedef float Lanes __attribute__((vector_size(16)));
    Lanes v;

    static Vec broadcast(float x) { return {Lanes{x, x, x, x}}; }
    static Vec load(const float* p) {
        Vec result;
        __builtin_memcpy(&result.v, p, sizeof result.v);
        return result;
    }
    static Vec load_half(const uint16_t* p) {
        return {Lanes{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]),
                      half_to_float(p[3])}};
    }
    static Vec load_once(const float* p) { return load(p); }
    void store(float* p) const { __builtin_memcpy(p, &v, sizeof v); }
};

typedef uint32_t Bits __attribute__((vector_size(16)));

inline Vec add(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec sub(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec mul(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec div(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec abs(Vec a) { return {(Vec::Lanes)((Bits)a.v & 0x7fffffff)}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
inline Vec sqrt(Vec a) {
    return {Vec::Lanes{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]),
                       __builtin_sqrtf(a.v[3])}};
}
// Adding and subtracting 1.5 x 2^23 rounds to the nearest integer, for |a| < 2^22.
inline Vec round(Vec a) {
    const Vec magic = Vec::broadcast(12582912.0f);
    return sub(add(a, magic), magic);
}
// 2^n for an integer n, and 0 for -127: n + 127 is the exponent field. The low bits of n + 1.5 x
// 2^23 are n in two's complement. Infinity and NaN give some bits too, whereas converting them to
// an integer would be undefined.
inline Vec pow2(Vec n) {
    const Vec shifted = add(n, Vec::broadcast(12582912.0f));
    Bits bits;
    __builtin_memcpy(&bits, &shifted.v, sizeof bits);
    bits = (bits + 127) << 23;
    Vec result;
    __builtin_memcpy(&result.v, &bits, sizeof bits);
    return result;
}
inline Vec scaled(Vec a, Vec n) { return mul(a, pow2(n)); }
