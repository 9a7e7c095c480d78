// A model's weights as Python hands them over: a dict of arrays and tuples, each checked before a
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

// The array itself, whose numbers a model may point to for as long as it is kept: refused if it is
// none, or not contiguous and aligned, of which a caller would have to make a copy.
AnyArray as_array(const std::string& name, nb::handle value);

inline bool is_aligned(const void* data, size_t bytes) {
    return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

// A weight in parts.
class Parts {
  public:
    // Refused if `value` is no tuple.
    Parts(const std::string& name, nb::handle value);
    nb::handle operator[](size_t index) const;  // refused if there are not so many
    int integer(size_t index) const;            // refused if it is none
    bool is_text(size_t index) const { return nb::isinstance<nb::str>((*this)[index]); }

  private:
    std::string name_;
    nb::tuple parts_;
};

class Weights {
  public:
    explicit Weights(const nb::dict& entries) : entries_(entries) {}

    bool has(const std::string& name) const { return entries_.contains(name.c_str()); }
    nb::object entry(const std::string& name) const;                // refused if missing
    AnyArray array(const std::string& name) const;                  // refused if in parts
    const float* vector(const std::string& name, int count) const;  // float32 [count]
    const float* float_matrix(const std::string& name, int rows, int columns) const;  // float32
    // A copy of a float32 or float16 matrix.
    std::vector<float> small_matrix(const std::string& name, int rows, int columns) const;

  private:
    const nb::dict& entries_;
};

void check_shape(const std::string& name, int rows, int columns, int wanted_rows,
                 int wanted_columns);

// A stray bit would read beyond the activations or the values.
void check_bitmap(const std::string& name, const uint64_t* bits, int rows, int columns,
                  int panel_columns, int n, int m);

// Bits of a pattern that rows share: uint8 [blocks][(columns + 15) / 16].
void check_shared_bits(const std::string& name, const AnyArray& bits, int shared_rows, int rows,
                       int columns);

// The model of a configuration (see `Configuration` in engine/__init__.py). Weights stay where
// they lie, and must outlive the model; for products other than of stored numbers, those of linear
// layers are converted. A floating-point model needs scratch for blocks of `block_tokens`.
Model read_float_model(const nb::dict& config, const nb::dict& entries, Products products,
                       int block_tokens);
Int8Model read_int8_model(const nb::dict& config, const nb::dict& entries,
                          const Int8Kernels& kernels);

// Whether any weight is int8.
bool is_int8(const nb::dict& entries);

// What both have: sizes, kind and head.
void read_shape(const nb::dict& config, const Weights& weights, ModelShape& shape);

// Calls on `reader`, for every weight of a model in computing order:
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
        throw std::invalid_argument("the model's layers do not fit together.");
    for (size_t l = 0; l < order.size(); ++l) {
        // Layers that share their weights follow each other.
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
        // With LayerNorm in front, the first layer's stands behind the embeddings.
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
