// Elementary functions on `Vec` in fp32, accurate to a few units in the last place.
#pragma once

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) by the Cephes polynomial (expf,
// degree 6). Inputs are clamped to the range whose results are normal numbers. NaN stays NaN, here
// as elsewhere: min and max return their second operand if either is NaN.
inline Vec exp(Vec x) {
    x = min(Vec::broadcast(88.0f), max(Vec::broadcast(-87.0f), x));
    const Vec n = round(mul(x, Vec::broadcast(1.44269504088896341f)));
    Vec r = fma(n, Vec::broadcast(-0.693359375f), x);
    r = fma(n, Vec::broadcast(2.12194440e-4f), r);
    Vec p = Vec::broadcast(1.9875691500e-4f);
    p = fma(p, r, Vec::broadcast(1.3981999507e-3f));
    p = fma(p, r, Vec::broadcast(8.3334519073e-3f));
    p = fma(p, r, Vec::broadcast(4.1665795894e-2f));
    p = fma(p, r, Vec::broadcast(1.6666665459e-1f));
    p = fma(p, r, Vec::broadcast(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, Vec::broadcast(1.0f)));
    return mul(p, pow2(n));
}

// tanh(x) = 1 - 2 / (exp(2x) + 1); absolute error below 2e-7.
inline Vec tanh(Vec x) {
    const Vec one = Vec::broadcast(1.0f);
    return sub(one, div(Vec::broadcast(2.0f), add(exp(add(x, x)), one)));
}

// erf by the rational approximation x P(x^2) / Q(x^2) of Eigen (generic_fast_erf_float), clamped
// to [-4, 4] where erf is 1 to the last bit; absolute error below 2e-7.
inline Vec erf(Vec x) {
    x = min(max(x, Vec::broadcast(-4.0f)), Vec::broadcast(4.0f));
    const Vec s = mul(x, x);
    Vec p = Vec::broadcast(-2.72614225801306e-10f);
    p = fma(p, s, Vec::broadcast(2.77068142495902e-08f));
    p = fma(p, s, Vec::broadcast(-2.10102402082508e-06f));
    p = fma(p, s, Vec::broadcast(-5.69250639462346e-05f));
    p = fma(p, s, Vec::broadcast(-7.34990630326855e-04f));
    p = fma(p, s, Vec::broadcast(-2.95459980854025e-03f));
    p = fma(p, s, Vec::broadcast(-1.60960333262415e-02f));
    Vec q = Vec::broadcast(-1.45660718464996e-05f);
    q = fma(q, s, Vec::broadcast(-2.13374055278905e-04f));
    q = fma(q, s, Vec::broadcast(-1.68282697438203e-03f));
    q = fma(q, s, Vec::broadcast(-7.37332916720468e-03f));
    q = fma(q, s, Vec::broadcast(-1.42647390514189e-02f));
    return div(mul(x, p), q);
}

// x/2 (1 + erf(x / sqrt 2)), the "gelu" of BERT (Hendrycks and Gimpel, arXiv 1606.08415).
inline Vec gelu(Vec x) {
    const Vec half = mul(x, Vec::broadcast(0.5f));
    return fma(half, erf(mul(x, Vec::broadcast(0.70710678118654752f))), half);
}

// x / (1 + exp(-x)), also "swish" (Elfwing et al. 2017, arXiv 1702.03118); -5e-37 below -88. Adding
// x times 0 gives NaN if x is not finite, which the clamp could hide.
inline Vec silu(Vec x) {
    const Vec zero = Vec::broadcast(0.0f), c = max(x, Vec::broadcast(-88.0f));
    return fma(x, zero, div(c, add(Vec::broadcast(1.0f), exp(sub(zero, c)))));
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): "gelu_new", "gelu_pytorch_tanh".
inline Vec gelu_tanh(Vec x) {
    const Vec cubic = mul(mul(x, x), mul(x, Vec::broadcast(0.044715f)));
    const Vec inner = mul(add(x, cubic), Vec::broadcast(0.79788456080286536f));
    const Vec half = mul(x, Vec::broadcast(0.5f));
    return fma(half, tanh(inner), half);
}
