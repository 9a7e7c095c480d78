// Scaled dot-product attention of one head over one sequence, lanes = queries:
//   S[j][i] = sum_d K[d][j] Q[d][i],  P = softmax over j,  O[d][i] = sum_j V[d][j] P[j][i]
// Both products are outer products: R scalars broadcast against T vectors of queries. Disentangled
// attention also has keys PK and queries PQ of distances, and
//   S[j][i] = sum_d K[d][j] (Q[d][i] + PQ[d][i - j]) + Q[d][i] PK[d][i - j]
// where a key's distances from neighbouring queries are contiguous: plain loads, no gather.
#pragma once

#include "math.inl"

// out[r][t] = sum over `count` steps of left[r * left_row + step * left_step] x
// right[step * right_step + t * width], times `scale` for each lane.
template <int R, int T>
inline void outer_product(const float* left, size_t left_row, size_t left_step, const float* right,
                          size_t right_step, int count, const Vec* scale, float* out,
                          size_t out_row) {
    Vec sums[R][T];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[r][t] = Vec::broadcast(0.0f);
    for (int step = 0; step < count; ++step) {
        Vec inputs[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) inputs[t] = Vec::load_once(right + t * Vec::kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec factor = Vec::broadcast(left[r * left_row]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[r][t] = fma(factor, inputs[t], sums[r][t]);
        }
        left += left_step;
        right += right_step;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
            mul(sums[r][t], scale[t]).store(out + r * out_row + t * Vec::kWidth);
}

constexpr int kAttentionRows = 6;  // 6 x 4 accumulators of 32 registers, 6 x 2 of 16
constexpr int kDisentangledKeys = 4;

template <int T>
void outer_products(const float* left, size_t left_row, size_t left_step, const float* right,
                    size_t right_step, int count, const Vec* scale, float* out, size_t out_row,
                    int rows) {
    int r = 0;
    for (; r + kAttentionRows <= rows; r += kAttentionRows)
        outer_product<kAttentionRows, T>(left + r * left_row, left_row, left_step, right,
                                         right_step, count, scale, out + r * out_row, out_row);
    for (; r + 2 <= rows; r += 2)
        outer_product<2, T>(left + r * left_row, left_row, left_step, right, right_step, count,
                            scale, out + r * out_row, out_row);
    for (; r < rows; ++r)
        outer_product<1, T>(left + r * left_row, left_row, left_step, right, right_step, count,
                            scale, out + r * out_row, out_row);
}

// S of keys [key, key + R) and T vectors of queries, including the terms of distances.
template <int R, int T>
inline void disentangled_product(const Attention& a, int query, int key, const Vec* scale,
                                 float* out) {
    Vec sums[R][T];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[r][t] = Vec::broadcast(0.0f);
    const float *q = a.q + query, *k = a.k + key;
    const float *pk = a.distance_keys + (query - key), *pq = a.distance_queries + (query - key);
    for (int d = 0; d < a.head_size; ++d) {
        Vec inputs[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) inputs[t] = Vec::load_once(q + t * Vec::kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec factor = Vec::broadcast(k[r]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const int at = t * Vec::kWidth - r;
                const Vec sum = fma(inputs[t], Vec::load(pk + at), sums[r][t]);
                sums[r][t] = fma(factor, add(inputs[t], Vec::load(pq + at)), sum);
            }
        }
        q += a.stride, k += a.stride;
        pk += a.distances_stride, pq += a.distances_stride;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
            mul(sums[r][t], scale[t]).store(out + (r * T + t) * Vec::kWidth);
}

template <int T>
void disentangled_products(const Attention& a, int query, const Vec* scale) {
    int key = 0;
    for (; key + kDisentangledKeys <= a.keys; key += kDisentangledKeys)
        disentangled_product<kDisentangledKeys, T>(a, query, key, scale,
                                                   a.scratch + key * T * Vec::kWidth);
    for (; key < a.keys; ++key)
        disentangled_product<1, T>(a, query, key, scale, a.scratch + key * T * Vec::kWidth);
}

template <int T>
void attend(const Attention& a, int query) {
    constexpr size_t kTile = T * Vec::kWidth;
    const size_t stride = static_cast<size_t>(a.stride);
    // The keys that at least one query of the tile attends to.
    const int before = query - a.window, after = query + static_cast<int>(kTile) + a.window;
    const int first = before < 0 ? 0 : before < a.keys ? before : a.keys - 1;
    const int keys = (after < a.keys ? after : a.keys) - first;
    Vec scale[T], highest[T], total[T];
    for (int t = 0; t < T; ++t) scale[t] = Vec::broadcast(a.scale);
    if (a.distance_keys)
        disentangled_products<T>(a, query, scale);
    else
        outer_products<T>(a.k + first, 1, stride, a.q + query, stride, a.head_size, scale,
                          a.scratch, kTile, keys);
    if (a.bias)
        for (int j = 0; j < keys; ++j)
            for (int t = 0; t < T; ++t) {
                float* score = a.scratch + j * kTile + t * Vec::kWidth;
                const float* bias = a.bias + (query + t * Vec::kWidth - (first + j));
                add(Vec::load(score), Vec::load(bias)).store(score);
            }
    for (int t = 0; t < T; ++t) {
        highest[t] = Vec::load(a.scratch + t * Vec::kWidth);
        total[t] = Vec::broadcast(0.0f);
    }
    for (int j = 1; j < keys; ++j)
        for (int t = 0; t < T; ++t)
            highest[t] = max(highest[t], Vec::load(a.scratch + j * kTile + t * Vec::kWidth));
    for (int j = 0; j < keys; ++j)
        for (int t = 0; t < T; ++t) {
            float* score = a.scratch + j * kTile + t * Vec::kWidth;
            const Vec power = exp(sub(Vec::load(score), highest[t]));
            power.store(score);
            total[t] = add(total[t], power);
        }
    for (int t = 0; t < T; ++t) scale[t] = div(Vec::broadcast(1.0f), total[t]);
    outer_products<T>(a.v + first, stride, 1, a.scratch, kTile, keys, scale, a.out + query, stride,
                      a.head_size);
}

template <int T = kAttentionVectors>
void attend_tiles(const Attention& a, int query) {
    while (a.queries - query >= T * Vec::kWidth) {
        attend<T>(a, query);
        query += T * Vec::kWidth;
    }
    if constexpr (T > 1)
        if (query < a.queries) attend_tiles<T - 1>(a, query);
}

void attention(const Attention& a) { attend_tiles(a, 0); }
