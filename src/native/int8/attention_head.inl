// Scaled dot-product attention of one head over one sequence, in int8:
//   S[i][j] = sq[i] sk[j] / sqrt(d) sum_d Q[i][d] K[j][d]
//   p[i][j] = exp(S[i][j] + ln sv[j] - max_j),  P = round(255 p)
//   O[i][d] = sum_j P[i][j] V[j][d] / (255 sum_j p[i][j] / sv[j])
// Each value's scale is folded into the probabilities, and exponentials are powers of two.
// Disentangled attention adds to S the terms of keys and queries of the distance j - i:
//   sq[i] spk[j - i] sum_d Q[i][d] PK[j - i][d] + sk[j] spq[j - i] sum_d PQ[j - i][d] K[j][d]
#pragma once

#include "float_sums.inl"
#include "runs.inl"

// 255 x 2^x for x <= 0, to a relative error of 8e-6: far below the resolution of eight-bit
// probabilities. Exactly 0 below -126.5: a sum may include keys outside a window or not, by how
// many queries a set takes together, and the smallest power would round the other way what lies
// half way between two floats.
inline Vec exp2_times_255(Vec x) {
    x = max(Vec::broadcast(-127.0f), x);
    const Vec n = round(x), r = sub(x, n);
    Vec p = Vec::broadcast(255 * 9.670788948e-3f);
    p = fma(p, r, Vec::broadcast(255 * 5.587568397e-2f));
    p = fma(p, r, Vec::broadcast(255 * 2.402221131e-1f));
    p = fma(p, r, Vec::broadcast(255 * 6.931272467e-1f));
    p = fma(p, r, Vec::broadcast(255.0f));
    return scaled(p, n);
}

// log2 x of 16 positive normal numbers, to 1e-7 and rounding: x = 2^n m, m from sqrt 1/2 to sqrt 2;
// log2 m = 2 / ln 2 (s + s^3 / 3 + s^5 / 5 + s^7 / 7), s = (m - 1) / (m + 1). Infinity and NaN give
// NaN. Calling std::log2 for each took 4 to 8 % of attention's time on Zen 5.
inline void log2_of_16(const float* x, float* out) {
    constexpr uint32_t kSqrtHalf = 0x3F3504F3;
    uint32_t bits[16];
    float exponents[16], mantissas[16];
    std::memcpy(bits, x, sizeof bits);
    for (int i = 0; i < 16; ++i) {
        const uint32_t n = static_cast<uint32_t>(static_cast<int32_t>(bits[i] - kSqrtHalf) >> 23);
        exponents[i] = static_cast<float>(static_cast<int32_t>(n));
        bits[i] -= n << 23;
    }
    std::memcpy(mantissas, bits, sizeof mantissas);
    const Vec one = Vec::broadcast(1.0f), zero = Vec::broadcast(0.0f);
    for (int i = 0; i < 16; i += Vec::kWidth) {
        const Vec m = Vec::load(mantissas + i);
        const Vec s = div(sub(m, one), add(m, one)), square = mul(s, s);
        Vec p = Vec::broadcast(0.41219858f);
        p = fma(p, square, Vec::broadcast(0.57707802f));
        p = fma(p, square, Vec::broadcast(0.96179669f));
        p = fma(p, square, Vec::broadcast(2.88539008f));
        fma(Vec::load(x + i), zero, fma(p, s, Vec::load(exponents + i))).store(out + i);
    }
}

// A head's keys and values laid out like weights, and the buffers that a few queries need.
struct HeadTiles {
    HeadTiles(const Int8Attention& a) : call(a), padded(round_up(a.tokens, 16)) {
        const int depth = a.at.depth();
        uint8_t* next = a.scratch;
        const auto take = [&](size_t bytes) {
            uint8_t* taken = next;
            next += bytes;
            return taken;
        };
        keys = reinterpret_cast<int8_t*>(take(static_cast<size_t>(padded) * depth));
        values = reinterpret_cast<int8_t*>(take(static_cast<size_t>(padded) * depth));
        offsets = reinterpret_cast<int32_t*>(take(padded * 4));
        key_scales = reinterpret_cast<float*>(take(padded * 4));
        value_logs = reinterpret_cast<float*>(take(padded * 4));
        value_inverses = reinterpret_cast<float*>(take(padded * 4));
        score_stride = int8_score_stride(a.tokens) / sizeof(float);
        probability_stride = int8_probability_stride(a.tokens);
        scores = reinterpret_cast<float*>(take(2 * score_stride * sizeof(float) * kTileQueries));
        probabilities = take(probability_stride * kTileQueries);
        sums = reinterpret_cast<int32_t*>(take(2 * sizeof(int32_t) * kTileQueries * depth));
        fill();
    }

    const uint8_t* part(int which, int token) const {  // 0 queries, 1 keys, 2 values
        const Int8Heads& at = call.at;
        return at.values + token * at.row() + (which * at.heads + call.head) * at.depth();
    }
    float scale(int which, int token) const {
        return call.at.scales[(token * 3 + which) * call.at.heads + call.head];
    }

    void fill() {
        const int depth = call.at.depth();
        const float factor = int8_score_factor(call.at.head_size, call.distances.terms);
        for (int j = 0; j < padded; ++j) {
            const bool real = j < call.keys;
            key_scales[j] = real ? scale(1, j) * factor : 0.0f;
            value_inverses[j] = real ? std::max(scale(2, j), 1e-12f) : 1.0f;
        }
        for (int j = 0; j < padded; j += 16) log2_of_16(value_inverses + j, value_logs + j);
        for (int j = 0; j < padded; ++j) value_inverses[j] = 1.0f / value_inverses[j];
        // No probability for padding and for tokens that are not keys.
        for (int j = call.keys; j < padded; ++j) {
            value_logs[j] = -std::numeric_limits<float>::infinity();
            value_inverses[j] = 0.0f;
        }
        const size_t row = call.at.row();
        for (int j = 0; j < padded; j += 16)
            transpose_keys(part(1, j), row, std::min(16, call.tokens - j), depth,
                           keys + static_cast<size_t>(j) * depth, offsets + j);
        for (int j = 0; j < padded; j += 4)
            interleave_values(part(2, j), row, std::min(4, call.tokens - j), depth,
                              values + static_cast<size_t>(j) * 16,
                              static_cast<size_t>(padded) * 16);
    }

    const Int8Attention& call;
    int padded;
    int8_t* keys;      // [padded / 16][depth / 4][16 keys][4]
    int8_t* values;    // [depth / 16][padded / 4][16 columns][4 tokens]
    int32_t* offsets;  // (kInputOffset - 128) x sum of each key: queries are stored with 128 added
    float* key_scales;
    float* value_logs;
    float* value_inverses;
    size_t score_stride, probability_stride;
    float* scores;           // [2][kTileQueries][score_stride]
    uint8_t* probabilities;  // [kTileQueries][probability_stride]
    int32_t* sums;           // [2][kTileQueries][depth], on tiles: the context's
};

// Adds a query's bias, if any, to its scores for keys [begin, end); returns the highest score.
// `bias` points to the bias of key 0.
inline float highest_score(float* row, int begin, int end, const float* bias) {
    if (bias)
        for (int j = begin; j < end; j += Vec::kWidth)
            add(Vec::load(row + j), Vec::load(bias + j)).store(row + j);
    Vec highest = Vec::load(row + begin);
    for (int j = begin + Vec::kWidth; j < end; j += Vec::kWidth)
        highest = max(highest, Vec::load(row + j));
    return largest(highest);
}

// Turns a query's scores for keys [begin, end) into probabilities; returns the factor of its
// context.
inline float softmax(const HeadTiles& head, const float* row, uint8_t* out, int begin, int end,
                     float highest_score) {
    const Vec highest = Vec::broadcast(highest_score);
    const float* inverses = head.value_inverses;
    // One chain is enough: the powers take longer than its additions wait for each other.
    Chains<1> total;
    const auto powers = [&](int j, Vec* lanes) {
        total.include(0, [&](int i, Vec sum) {
            const Vec power = exp2_times_255(sub(Vec::load(row + j + i), highest));
            lanes[i / Vec::kWidth] = power;
            return fma(power, Vec::load(inverses + j + i), sum);
        });
    };
    int j = begin;
    for (; j + 64 <= end; j += 64) {
        Vec lanes[4 * kTileVectors];
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) powers(j + part * 16, lanes + part * kTileVectors);
        store_64_bytes(lanes, out + j);
    }
    for (; j < end; j += 16) {
        Vec lanes[kTileVectors];
        powers(j, lanes);
        store_bytes(lanes, out + j);
    }
    return 1.0f / total.total();
}

// Stores 16 columns of a query's context without writing into the next head's.
[[gnu::always_inline]] inline void store_context(const Vec (&lanes)[kTileVectors], float factor,
                                                 int column, int size, float* out) {
    float tail[16];
    float* to = column + 16 <= size ? out + column : tail;
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v)
        mul(lanes[v], Vec::broadcast(factor)).store(to + v * Vec::kWidth);
    if (to == tail) std::memcpy(out + column, tail, sizeof(float) * (size - column));
}
