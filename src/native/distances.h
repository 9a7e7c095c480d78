// Disentangled attention in floating point: each layer's keys and queries of relative distances.
#pragma once

#include <vector>

#include "memory.h"
#include "model.h"
#include "thread_pool.h"

namespace sparsebert {

// One head's tables, [head size][stride] each. The pointers are at distance 0 (query minus key), so
// negative distances lie before them. Null if attention is not disentangled.
struct HeadDistances {
    const float* keys = nullptr;
    const float* queries = nullptr;
    size_t stride = 0;
};

// The tables depend only on the weights, so they are computed once, up to the length of the longest
// sequence seen. There is one column for each distance, not for each row of the embeddings, so that
// what neighbouring queries read of a key is contiguous and needs no gather.
class Distances {
  public:
    Distances(const Model& model, const Kernels& kernels) : model_(model), kernels_(kernels) {}

    // Makes room for sequences of `tokens` tokens. Must not run while other threads read.
    void reserve(int tokens, ThreadPool& pool);

    HeadDistances of(int layer, int head) const;

  private:
    static size_t stride(int capacity) { return 2 * static_cast<size_t>(capacity) + kLaneTokens; }
    size_t block() const;
    void fill(int layer, float* scratch);
    void project(const Dense& layer, bool has, float* out, float* scratch) const;

    const Model& model_;
    const Kernels& kernels_;
    std::vector<Floats> layers_;  // [2: keys, queries][hidden][stride]
    int capacity_ = 0;
};

// The capacity to grow to when `tokens` do not fit: at least double the old one (up to `longest`),
// so that texts of slowly growing length do not refill the tables each time.
int grown_capacity(int capacity, int tokens, int longest);

}  // namespace sparsebert
