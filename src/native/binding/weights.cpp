#include "weights.h"

#include <nanobind/stl/string.h>

#include <stdexcept>

namespace sparsebert {

void refuse(const std::string& name, const std::string& why) {
    throw std::invalid_argument("weight '" + name + "' " + why + ".");
}

nb::object Weights::entry(const std::string& name) const {
    if (!has(name)) refuse(name, "is missing");
    return entries_[name.c_str()];
}

const float* Weights::vector(const std::string& name, int count) const {
    const AnyArray array = nb::cast<AnyArray>(entry(name));
    if (array.ndim() != 1 || array.shape(0) != static_cast<size_t>(count))
        refuse(name, "does not hold " + std::to_string(count) + " numbers");
    if (array.dtype() != nb::dtype<float>()) refuse(name, "is not float32");
    return static_cast<const float*>(array.data());
}

const float* Weights::float_matrix(const std::string& name, int rows, int columns) const {
    const AnyArray array = nb::cast<AnyArray>(entry(name));
    if (array.ndim() != 2) refuse(name, "is not a matrix");
    if (array.dtype() != nb::dtype<float>()) refuse(name, "is not float32");
    check_shape(name, static_cast<int>(array.shape(0)), static_cast<int>(array.shape(1)), rows,
                columns);
    return static_cast<const float*>(array.data());
}

void check_shape(const std::string& name, int rows, int columns, int wanted_rows,
                 int wanted_columns) {
    if (rows != wanted_rows || columns != wanted_columns)
        refuse(name, "is " + std::to_string(rows) + " x " + std::to_string(columns) + ", not " +
                         std::to_string(wanted_rows) + " x " + std::to_string(wanted_columns));
}

void check_bitmap(const std::string& name, const uint64_t* bits, int rows, int columns,
                  int panel_columns, int n, int m) {
    for (int panel = 0; panel * panel_columns < columns; ++panel) {
        const int left = columns - panel * panel_columns;
        const int count = left < panel_columns ? left : panel_columns;
        for (int row = 0; row < rows; ++row) {
            const uint64_t word = bits[static_cast<size_t>(panel) * rows + row];
            const bool beyond = count < 64 && word >> count;
            if (beyond || __builtin_popcountll(word) != count / m * n)
                refuse(name, "has bits that are not those of its pattern");
        }
    }
}

bool is_int8(const nb::dict& entries) {
    for (const auto& [name, value] : entries)
        if (nb::isinstance<nb::tuple>(value)) {
            const nb::tuple parts = nb::cast<nb::tuple>(value);
            if (nb::isinstance<nb::str>(parts[0]) || parts.size() == 6) return true;
        }
    return false;
}

namespace {

Activation read_activation(const std::string& name) {
    if (name == "gelu") return Activation::kGelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
    if (name == "relu") return Activation::kRelu;
    throw std::invalid_argument("unknown activation '" + name + "'.");
}

Head read_head(const std::string& name) {
    if (name == "encoder") return Head::kEncoder;
    if (name == "sequence-classification") return Head::kSequence;
    if (name == "question-answering") return Head::kQuestion;
    if (name == "token-classification") return Head::kToken;
    if (name == "masked-lm") return Head::kMaskedLm;
    throw std::invalid_argument("unknown head '" + name + "'.");
}

}  // namespace

void read_shape(const nb::dict& config, ModelShape& shape) {
    const auto integer = [&](const char* name) { return nb::cast<int>(config[name]); };
    shape.hidden_size = integer("hidden_size");
    shape.intermediate_size = integer("intermediate_size");
    shape.heads = integer("num_attention_heads");
    shape.vocabulary = integer("vocab_size");
    shape.positions = integer("max_position_embeddings");
    shape.types = integer("type_vocab_size");
    shape.epsilon = nb::cast<float>(config["layer_norm_eps"]);
    shape.activation = read_activation(nb::cast<std::string>(config["hidden_act"]));
    shape.head = read_head(nb::cast<std::string>(config["head"]));
    if (shape.hidden_size < 1 || shape.intermediate_size < 1 || shape.heads < 1 ||
        shape.hidden_size % shape.heads)
        throw std::invalid_argument("the attention heads do not divide the hidden size.");
    switch (shape.head) {
        case Head::kEncoder:
            shape.outputs = 0;
            break;
        case Head::kQuestion:
            shape.outputs = 2;
            break;
        case Head::kMaskedLm:
            shape.outputs = shape.vocabulary;
            break;
        default:
            shape.outputs = integer("num_labels");
    }
}

}  // namespace sparsebert
