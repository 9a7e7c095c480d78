#include <algorithm>

#include "../bf16/weights.h"
#include "../shared_rows.h"
#include "weights.h"

namespace sparsebert {
namespace {

bool is_half(const std::string& name, const AnyArray& array) {
    if (array.dtype() == nb::dtype<float>()) return false;
    const auto type = array.dtype();
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16)
        return true;
    refuse(name, "is neither float32 nor float16");
}

Matrix dense(const std::string& name, const AnyArray& array) {
    if (array.ndim() != 2) refuse(name, "is not a matrix");
    Matrix matrix;
    matrix.half = is_half(name, array);
    matrix.rows = static_cast<int>(array.shape(0));
    matrix.columns = static_cast<int>(array.shape(1));
    matrix.values = array.data();
    return matrix;
}

Matrix shared_pairs(const std::string& name, int shared_rows, int columns, const AnyArray& values,
                    const AnyArray& bits) {
    Matrix matrix;
    matrix.layout = Layout::kSharedPairs;
    matrix.half = is_half(name, values);
    matrix.shared_rows = shared_rows;
    matrix.columns = columns;
    if (values.ndim() != 2) refuse(name, "is not a matrix");
    matrix.rows = static_cast<int>(values.shape(0));
    if (columns < 2 || columns % 2 || values.shape(1) != static_cast<size_t>(columns / 2))
        refuse(name, "has values of the wrong shape");
    check_shared_bits(name, bits, shared_rows, matrix.rows, columns);
    matrix.values = values.data();
    matrix.bits = bits.data();
    return matrix;
}

Matrix compressed(const std::string& name, const Parts& parts) {
    const int columns = parts.integer(1), n = parts.integer(2), m = parts.integer(3);
    const int shared_rows = parts.integer(4);
    const AnyArray values = as_array(name, parts[5]), bits = as_array(name, parts[6]);
    if (shared_rows != 1) return shared_pairs(name, shared_rows, columns, values, bits);
    if (n < 1 || m <= n || m > kPanelColumns || columns < m || columns % m)
        refuse(name, "has an invalid pattern");
    const bool pairs = n == 1 && m == 2;
    Matrix matrix;
    matrix.layout = pairs ? Layout::kPairs : Layout::kBitmap;
    matrix.half = is_half(name, values);
    matrix.panel_columns = kPanelColumns / m * m;
    matrix.kept = matrix.panel_columns / m * n;
    matrix.columns = columns;
    const size_t panels = (columns + matrix.panel_columns - 1) / matrix.panel_columns;
    if (values.ndim() != 3 || bits.ndim() != 2 || values.shape(0) != panels ||
        bits.shape(0) != panels || values.shape(1) != bits.shape(1) ||
        values.shape(2) != static_cast<size_t>(matrix.kept))
        refuse(name, "has values and bits of the wrong shape");
    if (bits.dtype() != (pairs ? nb::dtype<uint32_t>() : nb::dtype<uint64_t>()))
        refuse(name, "has bits of the wrong type");
    matrix.rows = static_cast<int>(values.shape(1));
    matrix.values = values.data();
    matrix.bits = bits.data();
    if (!pairs)
        check_bitmap(name, static_cast<const uint64_t*>(matrix.bits), matrix.rows, columns,
                     matrix.panel_columns, n, m);
    return matrix;
}

// An entry is an array, or for a compressed matrix ("compressed", columns, n, m, shared rows,
// values, bits).
Matrix read_matrix(const Weights& weights, const std::string& name, int rows, int columns) {
    const nb::object value = weights.entry(name);
    const Matrix matrix = nb::isinstance<nb::tuple>(value) ? compressed(name, Parts(name, value))
                                                           : dense(name, as_array(name, value));
    check_shape(name, matrix.rows, matrix.columns, rows, columns);
    return matrix;
}

// The reader that `read_weights` calls.
class Reader {
  public:
    Reader(const Weights& weights, Model& model, Products products, int block_tokens)
        : weights_(weights), model_(model), products_(products), block_tokens_(block_tokens) {
        model_.zeros.assign(std::max(model.hidden_size, model.embedding_size), 0.0f);
    }

    Matrix table(const std::string& name, int rows) const {
        const Matrix matrix = read_matrix(weights_, name, rows, model_.embedding_size);
        if (matrix.layout != Layout::kDense)
            refuse(name, "is an embedding table, which must be dense");
        return matrix;
    }

    Dense layer(const std::string& name, int rows, int columns, bool bias) const {
        const Matrix weight = read_matrix(weights_, name + ".weight", rows, columns);
        return {in_layer(weight), bias ? weights_.vector(name + ".bias", rows) : nullptr};
    }

    Norm norm(const std::string& name, int features, bool bias) const {
        return {weights_.vector(name + ".weight", features),
                bias ? weights_.vector(name + ".bias", features) : model_.zeros.data()};
    }

    void decoder(const std::string& weight, const std::string& bias) { last(weight, bias); }

    void last(const std::string& weight, const std::string& bias) {
        const HeadShape& head = model_.head;
        const bool tied = head.decoder && !weights_.has(weight);
        model_.last.weight =
            in_layer(tied ? model_.words : read_matrix(weights_, weight, head.outputs, head.width));
        if (!bias.empty()) model_.last.bias = weights_.vector(bias, head.outputs);
    }

  private:
    Matrix in_layer(const Matrix& weight) const {
        Matrix found = weight;
        if (products_ != Products::kStored)
            found = in_bf16(weight, products_, model_.converted.emplace_back());
        model_.linear_scratch_floats =
            std::max(model_.linear_scratch_floats, linear_scratch_floats(found, block_tokens_));
        return found;
    }

    const Weights& weights_;
    Model& model_;
    const Products products_;
    const int block_tokens_;
};

}  // namespace

Model read_float_model(const nb::dict& config, const nb::dict& entries, Products products,
                       int block_tokens) {
    const Weights weights(entries);
    Model model;
    read_shape(config, weights, model);
    Reader reader(weights, model, products, block_tokens);
    read_weights(config, reader, model);
    return model;
}

}  // namespace sparsebert
