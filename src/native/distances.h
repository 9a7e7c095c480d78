// Disentangled attention in floating point: every layer's keys and queries of distances.
#pragma once

#include <vector>

#include "memory.h"
#include "model.h"
#include "thread_pool.h"

namespace sparsebert {

// What the attention of one head reads: [head size][stride] each, from distance 0 of a query from a
// key on, its neighbours around it. Null where attention is plain.
struct HeadDistances {
    const float* keys = nullptr;
    const float* queries = nullptr;
    size_t stride = 0;
};

// They depend on weights alone, so they are computed once, as far as the longest sequence seen
// reaches. There is a column for each distance, not for each row of the embeddings: then what
// neighbouring queries read of a key lies side by side, and nothing is gathered.
class Distances {
  public:
    Distances(const Model& model, const Kernels& kernels) : model_(model), kernels_(kernels) {}

    // Makes room for sequences of so many tokens. Not while others read.
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

// How many tokens to make room for where `tokens` no longer fit: twice as many as before, so that
// texts that grow one by one do not fill the tables each time.
int grown_capacity(int capacity, int tokens, int longest);

}  // namespace sparsebert
