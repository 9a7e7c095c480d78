// An encoder with its head, on ragged batches: sequences laid end to end, no padding.
#pragma once

#include <memory>
#include <mutex>

#include "int8/choice.h"
#include "int8/model.h"
#include "model.h"
#include "shape.h"

namespace sparsebert {

// Each run throws std::invalid_argument for ids, types or lengths outside the model's tables. All
// may be called from many threads; runs take turns. A forked process starts threads of its own at
// its first run, which throws std::runtime_error if the system does not give as many.
class Encoder {
  public:
    virtual ~Encoder() = default;
    virtual int threads() const = 0;
    virtual const ModelShape& shape() const = 0;
    virtual void hidden(const Batch& batch, float* out) = 0;  // [tokens][hidden]
    virtual void pooled(const Batch& batch, Pooling pooling, bool normalize,
                        float* out) = 0;                    // [batch][hidden]
    virtual void head(const Batch& batch, float* out) = 0;  // [batch or tokens][outputs]
};

// In floating point (fp32 or fp16 weights, or products in bf16) and in int8.
std::unique_ptr<Encoder> make_encoder(Model model, const Kernels& kernels, int threads);
std::unique_ptr<Encoder> make_encoder(Int8Model model, Int8Choice kernels, int threads);

}  // namespace sparsebert
