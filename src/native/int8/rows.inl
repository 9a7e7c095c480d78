// What happens to a token's row between the products: quantising, LayerNorm, activations.
#pragma once

#include "../kernels/math.inl"
#include "../kernels/rotate.inl"
#include "float_sums.inl"

// x/2 (1 + erf(x / sqrt 2)) as x (1/2 + c P(c^2)), c = x clamped to [-4, 4], P of degree 6 fitted
// by minimax with P(16) = 1/8: absolute error below 2e-4, a fraction of a step of the uint8 that
// follows, with no division.
inline Vec gelu_polynomial(Vec x) {
    const Vec c = min(max(x, Vec::broadcast(-4.0f)), Vec::broadcast(4.0f));
    const Vec s = mul(c, c);
    Vec p = Vec::broadcast(2.258821048e-8f);
    p = fma(p, s, Vec::broadcast(-1.588827278e-6f));
    p = fma(p, s, Vec::broadcast(4.776389039e-5f));
    p = fma(p, s, Vec::broadcast(-8.121875197e-4f));
    p = fma(p, s, Vec::broadcast(8.763691277e-3f));
    p = fma(p, s, Vec::broadcast(-6.455441303e-2f));
    p = fma(p, s, Vec::broadcast(3.978702671e-1f));
    return mul(x, fma(p, c, Vec::broadcast(0.5f)));
}

// Keeps divisions away from zero: a row of smaller numbers is treated like one of zeros.
constexpr float kSmallest = 1e-30f;

// Calls visit(a few of the rows, the index of the first). Each step takes all of these rows before
// the next step, so that operations of high latency, horizontal sums and then divisions, overlap
// between rows. There are as many rows as stay in L1 meanwhile.
template <typename Visit>
inline void each_few_rows(const FloatRows& x, int features, int row, const Visit& visit) {
    const int most = std::min(std::max(1, 4096 / features), kRowsTogether);
    for (int i = 0; i < x.count; i += most)
        visit(FloatRows{x.row(i), x.stride, std::min(most, x.count - i)}, row + i);
}

// The minimum and maximum of a row and 0, lane by lane.
struct Bounds {
    Vec low = Vec::broadcast(0.0f), high = Vec::broadcast(0.0f);
    void include(Vec x) {
        low = min(low, x);
        high = max(high, x);
    }
    static float lost() { return 0.0f; }
};

// 0, or NaN once a number was not finite.
struct Finite {
    Vec zeros = Vec::broadcast(0.0f);
    void include(Vec x) { zeros = fma(x, Vec::broadcast(0.0f), zeros); }
    float sum() const { return lane_sum(zeros); }
};

// The same for rows in which a few numbers may be NaN, which minimum and maximum drop.
struct CheckedBounds : Bounds {
    Finite finite;
    void include(Vec x) {
        Bounds::include(x);
        finite.include(x);
    }
    float lost() const { return finite.sum(); }
};

// lo = min(0, min x), hi = max(0, max x); scale = (hi - lo) / 255, zero = round(-lo / scale). A row
// is padded with zeros to a multiple of 16, which lie between the two. Numbers that are not finite
// give a scale that is not finite either, and so invalidate the result, but no zero point outside 0
// to 255, with which sums could overflow.
template <typename RowBounds>
inline void quantize(const FloatRows& x, int features, const RowBounds (&bounds)[kRowsTogether],
                     const Int8Rows& out, int row) {
    float inverses[kRowsTogether], zeros[kRowsTogether];
    for (int i = 0; i < x.count; ++i) {
        const float lo = -largest(sub(Vec::broadcast(0.0f), bounds[i].low));
        const float scale = (largest(bounds[i].high) - lo + bounds[i].lost()) / 255.0f;
        inverses[i] = 1.0f / std::max(scale, kSmallest);
        zeros[i] = std::min(std::max(0.0f, std::nearbyint(-lo * inverses[i])), 255.0f);
        out.scales[row + i] = scale;
        out.zero_points[row + i] = static_cast<int32_t>(zeros[i]);
    }
    for (int i = 0; i < x.count; ++i) {
        const float *values = x.row(i), inverse = inverses[i], zero = zeros[i];
        uint8_t* bytes = out.values + (row + i) * out.stride;
        int f = 0;
        for (; f + 64 <= features; f += 64) quantize_64(values + f, inverse, zero, bytes + f);
        for (; f < features; f += 16) quantize_16(values + f, inverse, zero, bytes + f);
    }
}

// Calls use(function) with the function of an activation.
template <typename Use>
inline void with_function(Activation activation, Use use) {
    switch (activation) {
        case Activation::kNone:
            return use([](Vec v) { return v; });
        case Activation::kGelu:
            return use([](Vec v) { return gelu_polynomial(v); });
        case Activation::kGeluTanh:
            return use([](Vec v) { return gelu_tanh(v); });
        case Activation::kSilu:
            return use([](Vec v) { return silu(v); });
        case Activation::kTanh:
            return use([](Vec v) { return tanh(v); });
        case Activation::kRelu:
            return use([](Vec v) { return max(Vec::broadcast(0.0f), v); });
    }
}

void activate(const FloatRows& x, int features, Activation activation, const Int8Rows* out,
              int row) {
    with_function(activation, [&](auto function) {
        each_few_rows(x, features, row, [&](const FloatRows& few, int first) {
            CheckedBounds bounds[kRowsTogether];
            for (int i = 0; i < few.count; ++i) {
                float* values = few.row(i);
                CheckedBounds of_row;
                for (int f = 0; f < features; f += Vec::kWidth) {
                    const Vec y = function(Vec::load(values + f));
                    y.store(values + f);
                    of_row.include(y);
                }
                bounds[i] = of_row;
            }
            if (out) quantize(few, features, bounds, *out, first);
        });
    });
}

// `count` is a multiple of 16.
template <typename Step>
inline float row_sum(const float* x, int count, Step step) {
    Chains<4> sums;
    const auto next = [&](int chain, const float* from) {
        sums.include(chain, [&](int i, Vec sum) { return step(Vec::load(from + i), sum); });
    };
    int i = 0;
    for (; i + 64 <= count; i += 64)
#pragma GCC unroll 4
        for (int chain = 0; chain < 4; ++chain) next(chain, x + i + chain * 16);
    for (; i < count; i += 16) next(0, x + i);
    return sums.total();
}

void norm(const FloatRows& x, const Int8Norm& norm, const Int8Rows* out, int row) {
    const int padded = round_up(norm.features, 16);
    const float count = static_cast<float>(norm.features);
    each_few_rows(x, padded, row, [&](const FloatRows& few, int first) {
        float means[kRowsTogether], factors[kRowsTogether];
        for (int i = 0; i < few.count; ++i)
            means[i] =
                row_sum(few.row(i), padded, [](Vec value, Vec sum) { return add(value, sum); }) /
                count;
        for (int i = 0; i < few.count; ++i) {
            // The padding is set to the mean, which adds nothing to the variance; the zeros that
            // pad gamma and beta turn it into zeros.
            std::fill(few.row(i) + norm.features, few.row(i) + padded, means[i]);
            // A second pass for the variance: E[x^2] - E[x]^2 would suffer from cancellation.
            const Vec mean = Vec::broadcast(means[i]);
            const float squares = row_sum(few.row(i), padded, [&](Vec value, Vec sum) {
                const Vec centred = sub(value, mean);
                return fma(centred, centred, sum);
            });
            factors[i] = 1.0f / std::sqrt(squares / count + norm.epsilon);
        }
        // Local copies, which stores cannot alias. One number that is not finite makes the factor
        // NaN, and with it the whole row.
        const float *gamma = norm.gamma, *beta = norm.beta;
        const int end = padded;
        Bounds bounds[kRowsTogether];
        for (int i = 0; i < few.count; ++i) {
            const Vec mean = Vec::broadcast(means[i]), factor = Vec::broadcast(factors[i]);
            float* values = few.row(i);
            Bounds of_row;
            for (int f = 0; f < end; f += Vec::kWidth) {
                const Vec centred = mul(sub(Vec::load(values + f), mean), factor);
                const Vec y = fma(centred, Vec::load(gamma + f), Vec::load(beta + f));
                y.store(values + f);
                of_row.include(y);
            }
            bounds[i] = of_row;
        }
        if (out) quantize(few, norm.features, bounds, *out, first);
    });
}

// 16 values from x[d] on, zeros from x[size] on.
inline const float* padded_16(const float* x, int d, int size, float* buffer) {
    if (d + 16 <= size) return x + d;
    std::memset(buffer, 0, sizeof(float) * 16);
    return static_cast<float*>(std::memcpy(buffer, x + d, sizeof(float) * (size - d)));
}

// The last 16 may reach into the second half, whose first 16 have been read by then.
void gate(const FloatRows& x, size_t second, int features, Activation activation,
          const Int8Rows* out, int row) {
    with_function(activation, [&](auto function) {
        each_few_rows(x, 2 * features, row, [&](const FloatRows& few, int first) {
            CheckedBounds bounds[kRowsTogether];
            for (int i = 0; i < few.count; ++i) {
                float* values = few.row(i);
                float one[16], other[16];
                for (int f = 0; f < features; f += 16) {
                    const float* left = padded_16(values, f, features, one);
                    const float* right = padded_16(values + second, f, features, other);
                    for (int j = 0; j < 16; j += Vec::kWidth) {
                        const Vec y = mul(function(Vec::load(left + j)), Vec::load(right + j));
                        y.store(values + f + j);
                        bounds[i].include(y);
                    }
                }
            }
            if (out) quantize(few, features, bounds, *out, first);
        });
    });
}

// The largest magnitude of `size` values, lane by lane.
inline Vec largest_magnitudes(const float* x, int size, Finite& finite) {
    float buffer[16];
    Vec most = Vec::broadcast(0.0f);
    for (int d = 0; d < size; d += 16) {
        const float* values = padded_16(x, d, size, buffer);
        for (int i = 0; i < 16; i += Vec::kWidth) {
            const Vec value = Vec::load(values + i);
            most = max(most, abs(value));
            finite.include(value);
        }
    }
    return most;
}

// Quantises each head by its own largest magnitude, with 16 heads in the lanes: first the scales of
// all three parts, so that the latency of divisions is paid only once, then the bytes. `Size` is
// the head size if it is known at compile time and a multiple of 16, so that loops unroll; else 0.
template <int Size>
void split(const float* projections, size_t stride, const Int8Heads& heads, size_t token) {
    const int size = Size ? Size : heads.head_size, depth = Size ? Size : heads.depth();
    for (int first = 0; first < heads.heads; first += 16) {
        const int count = std::min(16, heads.heads - first);
        const float* x = projections + static_cast<size_t>(first) * size;
        size_t to = token * 3 * heads.heads + first;
        float inverses[3][16];
        for (int part = 0; part < 3; ++part, to += heads.heads) {
            Vec most[16];
            Finite finite;
            for (int i = 0; i < 16; ++i)
                most[i] = i < count ? largest_magnitudes(x + part * stride + i * size, size, finite)
                                    : Vec::broadcast(0.0f);
            const Vec lost = Vec::broadcast(finite.sum());
            float scales[16];
            largest_of_each(most, scales);
            for (int i = 0; i < 16; i += Vec::kWidth) {
                const Vec scale = add(div(Vec::load(scales + i), Vec::broadcast(127.0f)), lost);
                scale.store(scales + i);
                div(Vec::broadcast(1.0f), max(Vec::broadcast(kSmallest), scale))
                    .store(inverses[part] + i);
            }
            std::memcpy(heads.scales + to, scales, count * sizeof(float));
        }
        to = token * 3 * heads.heads + first;
        for (int part = 0; part < 3; ++part, to += heads.heads) {
            uint8_t* out = heads.values + to * depth;
            float buffer[16];
            for (int i = 0; i < count; ++i)
                for (int d = 0; d < depth; d += 16, out += 16)
                    quantize_signed_16(padded_16(x + part * stride + i * size, d, size, buffer),
                                       inverses[part][i], part == 0 ? 128 : 0, out);
        }
    }
}

// Queries are stored as unsigned bytes, with 128 added.
void split_heads(const float* projections, size_t stride, const Int8Heads& heads, size_t token) {
    switch (heads.head_size) {
        case 32:
            return split<32>(projections, stride, heads, token);
        case 64:
            return split<64>(projections, stride, heads, token);
        default:
            return split<0>(projections, stride, heads, token);
    }
}

void add_scaled(const int8_t* row, float scale, int count, float* y) {
    for (int i = 0; i < count; ++i) y[i] += scale * static_cast<float>(row[i]);
}

float dot(const float* a, const float* b, int count) {
    Chains<1> sums;
    int i = 0;
    for (; i + 16 <= count; i += 16)
        sums.include(0, [&](int j, Vec sum) {
            return fma(Vec::load(a + i + j), Vec::load(b + i + j), sum);
        });
    float result = sums.total();
    for (; i < count; ++i) result += a[i] * b[i];
    return result;
}

// Gathers the inputs that a block of rows shares, in plain words, which the compiler vectorises.
void gather(const uint8_t* x, const uint8_t* second, int fours, uint8_t* out) {
    using Word [[gnu::may_alias, gnu::aligned(1)]] = uint32_t;
    const Word* pairs = reinterpret_cast<const Word*>(x);
    const Word* seconds = reinterpret_cast<const Word*>(second);
    Word* __restrict chosen = reinterpret_cast<Word*>(out);
    for (int f = 0; f < fours; ++f)
        chosen[f] = (pairs[2 * f] & ~seconds[f]) | (pairs[2 * f + 1] & seconds[f]);
}
