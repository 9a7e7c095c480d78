// A model's weights as Python passes them: a dict of arrays and tuples, each checked before a
// pointer to it is kept.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../bf16/kernels.h"
#include "../int8/model.h"
#include "../model.h"

namespace sparsebert {

namespace nb = nanobind;
using AnyArray = nb::ndarray<nb::ro, nb::device::cpu>;

// Throws std::invalid_argument.
[[noreturn]] void refuse(const std::string& name, const std::string& why);

// The array itself, which a model may point into for as long as the array is kept. Refused if it is
// no array, or not contiguous and aligned, so that the caller would have to copy it.
AnyArray as_array(const std::string& name, nb::handle value);

inline bool is_aligned(const void* data, size_t bytes) {
    return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

// A weight that is a tuple of parts: the kind of matrix, its number of columns, and then the
// numbers and arrays of that kind (see `_native` in engine/__init__.py).
class Parts {
  public:
    // Refused if `value` is not a tuple.
    Parts(const std::string& name, nb::handle value);
    nb::handle operator[](size_t index) const;  // refused if out of range
    int integer(size_t index) const;            // refused if it is not an integer
    std::string text(size_t index) const;       // refused if it is not a string

  private:
    std::string name_;
    nb::tuple parts_;
};

class Weights {
  public:
    explicit Weights(const nb::dict& entries) : entries_(entries) {}

    bool has(const std::string& name) const { return entries_.contains(name.c_str()); }
    nb::object entry(const std::string& name) const;                // refused if missing
    AnyArray array(const std::string& name) const;                  // refused if a tuple
    const float* vector(const std::string& name, int count) const;  // float32 [count]
    const float* float_matrix(const std::string& name, int rows, int columns) const;  // float32
    // A copy of a float32 or float16 matrix.
    std::vector<float> small_matrix(const std::string& name, int rows, int columns) const;

  private:
    const nb::dict& entries_;
};

void check_shape(const std::string& name, int rows, int columns, int wanted_rows,
                 int wanted_columns);

// Refuses bits that do not match the pattern: a stray one would read beyond the activations or the
// values.
void check_bitmap(const std::string& name, const uint64_t* bits, int rows, int columns,
                  int panel_columns, int n, int m);

// Checks the bits of a shared pattern: uint8 [blocks][(columns + 15) / 16].
void check_shared_bits(const std::string& name, const AnyArray& bits, int shared_rows, int rows,
                       int columns);

// Reads the model of a configuration (see `Configuration` in engine/__init__.py). Weights are used
// in place and must outlive the model; those of linear layers are converted unless `products` is
// kStored. A floating-point model gets scratch for blocks of `block_tokens`.
Model read_float_model(const nb::dict& config, const nb::dict& entries, Products products,
                       int block_tokens);
Int8Model read_int8_model(const nb::dict& config, const nb::dict& entries,
                          const Int8Kernels& kernels);

// Whether any weight is int8.
bool is_int8(const nb::dict& entries);

// Reads what both kinds of model have: sizes, architecture and head.
void read_shape(const nb::dict& config, const Weights& weights, ModelShape& shape);

// Calls `reader` for every weight of a model, in the order of computation:
//   reader.table(name, rows) for tables of embeddings
//   reader.norm(name, features, has bias) and reader.layer(name, rows, columns, has bias)
// and reads the head's last layer with reader.decoder(...) or reader.last(...).
template <typename Model, typename Reader>
void read_weights(const nb::dict& config, Reader& reader, Model& model) {
    const auto flag = [&](const char* name) { return nb::cast<bool>(config[name]); };
    const auto text = [&](const char* name) { return nb::cast<std::string>(config[name]); };
    const int hidden = model.hidden_size, embedded = model.embedding_size;
    const bool norm_bias = flag("norm_bias"), attention_bias = flag("attention_bias"),
               intermediate_bias = flag("intermediate_bias");
    model.words = reader.table("embeddings.word_embeddings.weight", model.vocabulary);
    if (flag("position_table"))
        model.position_table =
            reader.table("embeddings.position_embeddings.weight", model.positions);
    if (flag("token_types"))
        model.type_table = reader.table("embeddings.token_type_embeddings.weight", model.types);
    if (const int tasks = nb::cast<int>(config["task_types"]))
        model.task_table = reader.table("embeddings.task_type_embeddings.weight", tasks);
    model.embedding_norm = reader.norm("embeddings.LayerNorm", embedded, norm_bias);
    if (flag("projection"))
        model.projection = reader.layer("embeddings.projection", hidden, embedded, true);
    const auto order = nb::cast<std::vector<int>>(config["layer_order"]);
    if (order.size() != model.layers_attention.size() ||
        (embedded != hidden && !flag("projection")))
        throw std::invalid_argument(
            "'layer_order' and 'attention' differ in length, or a projection is missing.");
    for (size_t l = 0; l < order.size(); ++l) {
        // Layers that share their weights are consecutive.
        if (l > 0 && order[l] == order[l - 1]) {
            model.layers.push_back(model.layers.back());
            continue;
        }
        const std::string prefix = "encoder.layer." + std::to_string(order[l]) + ".";
        const auto attention = [&](const char* name, int rows) {
            return reader.layer(prefix + "attention." + name, rows, hidden, attention_bias);
        };
        auto& layer = model.layers.emplace_back();
        if (model.fused_attention) {
            layer.query = attention("self.query_key_value", 3 * hidden);
        } else {
            layer.query = attention("self.query", hidden);
            layer.key = attention("self.key", hidden);
            layer.value = attention("self.value", hidden);
        }
        if (flag("query_key_norm")) {
            layer.query_norm =
                reader.norm(prefix + "attention.self.query_LayerNorm", hidden, norm_bias);
            layer.key_norm =
                reader.norm(prefix + "attention.self.key_LayerNorm", hidden, norm_bias);
        }
        layer.attention_output = attention("output.dense", hidden);
        const char* norms[2] = {"attention.output.LayerNorm", "output.LayerNorm"};
        if (model.norm_first) norms[0] = "attention.LayerNorm", norms[1] = "intermediate.LayerNorm";
        // With norm_first, the embeddings' LayerNorm takes the place of the first layer's.
        if (!model.norm_first || l > 0)
            layer.attention_norm = reader.norm(prefix + norms[0], hidden, norm_bias);
        if (flag("residual_norm"))
            layer.residual_norm =
                reader.norm(prefix + "attention.residual.LayerNorm", hidden, norm_bias);
        const int wide = model.intermediate_size;
        const bool two = model.gated && !model.fused_gate;
        if (two)
            layer.gate =
                reader.layer(prefix + "intermediate.gate", wide, hidden, intermediate_bias);
        layer.intermediate =
            reader.layer(prefix + "intermediate.dense", two ? wide : model.intermediate_rows(),
                         hidden, intermediate_bias);
        layer.output = reader.layer(prefix + "output.dense", hidden, wide, flag("output_bias"));
        layer.output_norm = reader.norm(prefix + norms[1], hidden, norm_bias);
    }
    if (model.norm_first) model.final_norm = reader.norm("encoder.LayerNorm", hidden, norm_bias);
    const HeadShape& head = model.head;
    if (head.input == HeadInput::kNone) return;
    if (!text("head_dense").empty())
        model.head_dense =
            reader.layer(text("head_dense"), head.width, hidden, flag("head_dense_bias"));
    if (!text("head_norm").empty())
        model.head_norm = reader.norm(text("head_norm"), head.width, norm_bias);
    const std::string weight = text("head_last") + ".weight";
    const std::string bias = flag("head_bias") ? text("head_last_bias") : "";
    if (head.decoder)
        reader.decoder(weight, bias);
    else
        reader.last(weight, bias);
}

}  // namespace sparsebert
