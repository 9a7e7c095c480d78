// sparsebert._engine: reads and fills numpy arrays without copying them, and releases the GIL while
// it runs. The Python package sparsebert.engine wraps this module and documents its contracts.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../encoder.h"
#include "../kernels/dispatch.h"
#include "weights.h"

namespace sparsebert {
namespace {

using Integers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Whether no value is infinite or NaN: those have all bits of the exponent set.
bool all_finite(const float* values, size_t count) {
    uint32_t found = 0;
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        found |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return !found;
}

// The encoder together with the arrays that its weights point into.
struct BoundEncoder {
    // Copies the dict, which the caller may change; the copy keeps the arrays alive.
    BoundEncoder(const nb::dict& config, const nb::dict& arrays, int threads,
                 const std::string& isa, const std::string& compute)
        : weights(nb::steal<nb::dict>(PyDict_Copy(arrays.ptr()))),
          set(select_instruction_set(isa)) {
        const bool bf16 = compute == "bf16";
        if (!bf16 && !compute.empty())
            throw std::invalid_argument("unknown precision '" + compute + "'.");
        if (!is_int8(weights)) {
            Kernels kernels = *set.kernels;
            Products products = bf16 ? Products::kRounded : Products::kStored;
            if (bf16)
                kernel =
                    "bf16 rounded, multiplied in fp32 (no bf16 instructions in use: no faster)";
            if (bf16 && set.bf16) {
                kernels = with_bf16(kernels, *set.bf16);
                products = set.bf16->products;
                kernel = std::string("bf16 by ") + set.bf16->instructions;
            }
            encoder =
                make_encoder(read_float_model(config, weights, products, kernels.block_tokens),
                             kernels, threads);
            return;
        }
        if (bf16) throw std::invalid_argument("int8 weights cannot be computed in bf16.");
        Int8Model model = read_int8_model(config, weights, *set.int8);
        Int8Choice choice = choose_int8_kernels(set, model.has_pairs());
        if (!choice.reason.empty()) kernel = choice.reason;
        encoder = make_encoder(std::move(model), std::move(choice), threads);
    }

    static Batch batch(const Integers& ids, const Integers& types, const Integers& offsets,
                       const std::optional<Integers>& keys = {}) {
        for (const Integers* each : {&ids, &types, &offsets})
            if (!is_aligned(each->data(), sizeof(int32_t)))
                throw std::invalid_argument("ids, types and offsets must be aligned.");
        const size_t sequences = offsets.shape(0) - 1;
        if (offsets.shape(0) < 1 || ids.shape(0) != types.shape(0) ||
            static_cast<size_t>(offsets.data()[sequences]) != ids.shape(0))
            throw std::invalid_argument("ids, types and offsets do not describe the same tokens.");
        Batch batch{ids.data(), types.data(), offsets.data(), static_cast<int>(sequences)};
        if (keys) {
            if (keys->shape(0) != sequences || !is_aligned(keys->data(), sizeof(int32_t)))
                throw std::invalid_argument("keys must be aligned, with one number per sequence.");
            batch.keys = keys->data();
        }
        return batch;
    }

    // Calls run(encoder, output) without the GIL. Returns whether all results are finite.
    template <typename Run>
    bool compute(const Output& out, Run run) {
        nb::gil_scoped_release release;
        run(*encoder, out.data());
        return all_finite(out.data(), out.size());
    }

    static void expect(const Output& out, size_t rows, size_t columns) {
        if (out.shape(0) != rows || out.shape(1) != columns)
            throw std::invalid_argument("the output array has the wrong shape.");
        if (!is_aligned(out.data(), sizeof(float)))
            throw std::invalid_argument("the output array must be aligned.");
    }

    nb::dict weights;
    const InstructionSet& set;
    std::optional<std::string> kernel;  // of linear layers, and why, if there is a choice
    std::unique_ptr<Encoder> encoder;
};

Pooling read_pooling(const std::string& mode) {
    if (mode == "cls") return Pooling::kCls;
    if (mode == "mean") return Pooling::kMean;
    if (mode == "mean_sqrt_len") return Pooling::kMeanSqrtLength;
    if (mode == "max") return Pooling::kMax;
    throw std::invalid_argument("unknown pooling '" + mode + "'.");
}

}  // namespace
}  // namespace sparsebert

NB_MODULE(_engine, m) {
    using namespace sparsebert;
    // Arrays are not converted: results written into a converted copy would be lost.
    const auto ids = nb::arg("ids").noconvert(), types = nb::arg("type_ids").noconvert();
    const auto offsets = nb::arg("offsets").noconvert(), out = nb::arg("out").noconvert();
    m.def("available_instruction_sets", &available_instruction_sets);
    m.def("select_instruction_set",
          [](const std::string& name) { return std::string(select_instruction_set(name).name); });
    // Runs return whether all of their results are finite.
    nb::class_<BoundEncoder>(m, "Encoder")
        .def(nb::init<const nb::dict&, const nb::dict&, int, const std::string&,
                      const std::string&>())
        .def_prop_ro("threads", [](const BoundEncoder& self) { return self.encoder->threads(); })
        .def_prop_ro("instruction_set",
                     [](const BoundEncoder& self) { return std::string(self.set.name); })
        .def_ro("kernel", &BoundEncoder::kernel)
        .def(
            "hidden",
            [](BoundEncoder& self, const Integers& ids, const Integers& types,
               const Integers& offsets, const std::optional<Integers>& keys, const Output& out) {
                const Batch batch = BoundEncoder::batch(ids, types, offsets, keys);
                BoundEncoder::expect(out, ids.shape(0), self.encoder->shape().hidden_size);
                return self.compute(
                    out, [&](Encoder& encoder, float* to) { encoder.hidden(batch, to); });
            },
            ids, types, offsets, nb::arg("keys").noconvert().none(), out)
        .def(
            "pooled",
            [](BoundEncoder& self, const Integers& ids, const Integers& types,
               const Integers& offsets, const std::string& mode, bool normalize,
               const Output& out) {
                const Batch batch = BoundEncoder::batch(ids, types, offsets);
                const Pooling pooling = read_pooling(mode);
                BoundEncoder::expect(out, batch.sequences, self.encoder->shape().hidden_size);
                return self.compute(out, [&](Encoder& encoder, float* to) {
                    encoder.pooled(batch, pooling, normalize, to);
                });
            },
            ids, types, offsets, nb::arg("mode"), nb::arg("normalize"), out)
        .def(
            "head",
            [](BoundEncoder& self, const Integers& ids, const Integers& types,
               const Integers& offsets, const Output& out) {
                const Batch batch = BoundEncoder::batch(ids, types, offsets);
                const ModelShape& model = self.encoder->shape();
                if (model.head.input == HeadInput::kNone)
                    throw std::invalid_argument("this model has no head.");
                BoundEncoder::expect(
                    out, model.head.per_sequence() ? offsets.shape(0) - 1 : ids.shape(0),
                    model.head.outputs);
                return self.compute(out,
                                    [&](Encoder& encoder, float* to) { encoder.head(batch, to); });
            },
            ids, types, offsets, out);
}
