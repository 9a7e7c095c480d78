// How the threads of a pass divide its work, in floating point and in int8.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "shape.h"
#include "thread_pool.h"

namespace sparsebert {

struct Range {
    int begin, end;
    int size() const { return end - begin; }
};

// Part `part` of `items` when they are cut into `parts` nearly equal parts at multiples of `unit`.
inline Range part_of(int items, int part, int parts, int unit = 1) {
    const long units = (items + unit - 1) / unit;
    const auto cut = [&](int p) {
        return std::min(items, static_cast<int>(units * p / parts) * unit);
    };
    return {cut(part), cut(part + 1)};
}

// The number of tokens of the longest sequence.
inline int longest(const Batch& batch) {
    int tokens = 0;
    for (int s = 0; s < batch.sequences; ++s)
        tokens = std::max(tokens, batch.offsets[s + 1] - batch.offsets[s]);
    return tokens;
}

// Hands out each layer's attention one (sequence, head) pair at a time, so that a thread that
// finishes early takes more of them.
class HeadQueue {
  public:
    explicit HeadQueue(size_t layers) : next_(layers) {}

    // Calls attend(sequence, head) until no pair is left.
    template <typename Attend>
    void take(int layer, int sequences, int heads, Attend attend) {
        for (;;) {
            const int item = next_[layer].fetch_add(1, std::memory_order_relaxed);
            if (item >= sequences * heads) return;
            attend(item / heads, item % heads);
        }
    }

  private:
    std::vector<std::atomic<int>> next_;
};

// One thread of a pass. Either each thread takes its own tokens through the layers (`alone`) and
// never waits between linear layers, or all threads split the rows of each layer, with a barrier
// after each step.
class PassThread {
  protected:
    PassThread(ThreadPool& pool, int thread, bool alone)
        : thread_(thread), threads_(pool.threads()), pool_(pool) {
        if (!alone) share_rows();
    }

    // The model's head always splits rows, whatever the encoder did: it has few tokens or one wide
    // layer.
    void share_rows() {
        part_ = thread_;
        parts_ = threads_;
    }

    // This thread's part of a step's `items` rows or tokens.
    Range share(int items, int unit = 1) const { return part_of(items, part_, parts_, unit); }
    // The same for steps that are split among all threads whatever the layers do.
    Range share_of_all(int items) const { return part_of(items, thread_, threads_); }

    void sync() {  // between steps: waits only if rows are split
        if (parts_ > 1) barrier();
    }
    void barrier() { pool_.barrier(); }

    const int thread_, threads_;
    int part_ = 0, parts_ = 1;  // of the rows of a layer

  private:
    ThreadPool& pool_;
};

}  // namespace sparsebert
