// An encoder with its head. Batches are ragged: sequences are concatenated without padding.
#pragma once

#include <memory>
#include <mutex>

#include "int8/choice.h"
#include "int8/model.h"
#include "model.h"
#include "shape.h"

namespace sparsebert {

// Each run throws std::invalid_argument for ids, types or lengths outside the model's tables. All
// functions may be called from several threads; runs are serialised. A forked process starts its
// own threads on its first run, which throws std::runtime_error if the system cannot start that
// many.
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
