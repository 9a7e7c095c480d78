// Disentangled attention in int8: each layer's keys and queries of distances, as in ../distances.h,
// quantised like those of tokens.
#pragma once

#include <vector>

#include "../memory.h"
#include "../thread_pool.h"
#include "choice.h"
#include "model.h"

namespace sparsebert {

class Int8Distances {
  public:
    Int8Distances(const Int8Model& model, const Int8Choice& choice)
        : model_(model), choice_(choice) {}

    // Makes room for sequences of `tokens` tokens. Must not run while other threads read.
    void reserve(int tokens, ThreadPool& pool);

    Int8HeadDistances of(int layer, int head) const;  // empty if not disentangled

  private:
    struct Rows;  // of embeddings, quantised
    struct Memory;
    struct Table;

    static size_t stride(int capacity) { return 2 * static_cast<size_t>(capacity) + kTileRows; }
    Table table(int layer, int head) const;
    void project(const Int8Layer& layer, const Rows& rows, const Memory& memory) const;
    void fill(int layer, int first_row, const Int8Heads& from) const;

    const Int8Model& model_;
    const Int8Choice& choice_;
    std::vector<Bytes> layers_;
    size_t table_bytes_ = 0;  // per head
    int capacity_ = 0;
};

}  // namespace sparsebert
