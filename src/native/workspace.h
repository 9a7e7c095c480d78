// Memory for one run's activations, kept between runs: fresh pages would cost a fault each.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace sparsebert {

// A growing buffer of floats on a cache line. What it held is lost when it grows.
class Buffer {
  public:
    float* reserve(size_t count) {
        if (count > capacity_) {
            const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
            memory_.reset();
            capacity_ = 0;
            float* fresh = static_cast<float*>(std::aligned_alloc(64, bytes));
            if (!fresh) throw std::bad_alloc();
            memory_.reset(fresh);
            capacity_ = bytes / sizeof(float);
        }
        return memory_.get();
    }
    float* get() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(float* memory) const { std::free(memory); }
    };
    std::unique_ptr<float, Free> memory_;
    size_t capacity_ = 0;
};

struct Workspace {
    Buffer hidden;  // [hidden] the layer's input and, after LayerNorm, its output
    Buffer sum;     // [hidden] residual sums before LayerNorm
    Buffer query, key, value, context;  // [hidden]
    Buffer intermediate;                // [intermediate]
    Buffer logits;    // [classifier rows] of one block, or of the batch's pooled vectors
    Buffer gathered;  // [hidden] the first token of each sequence
    Buffer scratch;   // for each thread: embeddings, one head's attention
};

}  // namespace sparsebert
