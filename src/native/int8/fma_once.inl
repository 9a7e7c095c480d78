// a b + c for vectors of four floats, rounded once, as the instructions of wider sets do. Included
// by files that have defined `Vec`.
#pragma once

#ifdef __FP_FAST_FMAF
inline Vec fma_once(Vec a, Vec b, Vec c) {
    Vec result;
    for (int i = 0; i < 4; ++i) result.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
    return result;
}
#else
// In doubles the product is exact. The sum is rounded to odd: where it is not exact and its last
// bit is 0, it moves by one unit in the last place towards the error. Rounding it to floats then
// gives what rounding the exact sum gives (Boldo and Melquiond 2008, "Emulation of a FMA and
// correctly rounded sums: proved algorithms using rounding to odd"). The error is Knuth's (TwoSum).
inline Vec fma_once(Vec a, Vec b, Vec c) {
    typedef double Doubles __attribute__((vector_size(32)));
    typedef int64_t Signed __attribute__((vector_size(32)));
    typedef uint64_t Unsigned __attribute__((vector_size(32)));
    const Doubles product =
        __builtin_convertvector(a.v, Doubles) * __builtin_convertvector(b.v, Doubles);
    const Doubles addend = __builtin_convertvector(c.v, Doubles);
    const Doubles sum = product + addend, added = sum - product;
    const Doubles error = (product - (sum - added)) + (addend - added);
    const Signed bits = (Signed)sum;
    // Where a comparison holds it gives -1; it does not hold for NaN.
    const Signed inexact = (error > 0.0) | (error < 0.0), even = (bits & 1) - 1;
    const Signed away_from_zero = 1 - 2 * (Signed)((Unsigned)(bits ^ (Signed)error) >> 63);
    const Doubles odd = (Doubles)(bits + (away_from_zero & inexact & even));
    return {__builtin_convertvector(odd, decltype(a.v))};
}
#endif
