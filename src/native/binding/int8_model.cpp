#include <algorithm>
#include <cmath>
#include <cstring>

#include "../int8/weights.h"
#include "../shared_rows.h"
#include "weights.h"

namespace sparsebert {
namespace {

bool is(const AnyArray& array, std::initializer_list<int> shape) {
    return array.ndim() == shape.size() && std::equal(shape.begin(), shape.end(), array.shape_ptr(),
                                                      [](int a, int64_t b) { return a == b; });
}

// Most inputs of a layer: 255 x 128 x inputs stays below 2^31, and 128 x inputs below 2^22.
constexpr int kMostInputs = 32'767;

// The reader that `read_weights` calls.
class Reader {
  public:
    Reader(const Weights& weights, Int8Model& model, const Int8Kernels& kernels)
        : weights_(weights), model_(model), kernels_(kernels) {}

    Int8Norm norm(const std::string& name, int features, bool bias) {
        return {padded(finite(name + ".weight", features), features),
                bias_of(bias ? name + ".bias" : "", features), features, model_.epsilon};
    }

    Int8Weight layer(const std::string& name, int rows, int columns, bool bias) {
        Int8Weight weight = matrix(name + ".weight", rows, columns);
        if (weight.layout == Int8Layout::kTable)
            refuse(name + ".weight", "is stored as a table, not as a layer");
        if (weight.layout == Int8Layout::kBitmap)
            weight = for_kernels(weight, model_.converted.emplace_back());
        add_sums(weight);
        weight.bias = bias_of(bias ? name + ".bias" : "", rows);
        return weight;
    }

    Int8Weight table(const std::string& name, int rows) {
        const Int8Weight weight = matrix(name, rows, model_.embedding_size);
        if (weight.layout != Int8Layout::kTable) refuse(name, "is not stored as a table");
        return weight;
    }

    void decoder(const std::string& weight, const std::string& bias) {
        model_.decoder = weights_.has(weight) ? table(weight, model_.vocabulary) : model_.words;
        add_sums(model_.decoder);
        model_.decoder.bias = bias_of(bias, model_.vocabulary);
    }

    void last(const std::string& weight, const std::string& bias) {
        const HeadShape& head = model_.head;
        model_.last = weights_.float_matrix(weight, head.outputs, head.width);
        model_.last_bias = bias_of(bias, head.outputs);
    }

  private:
    // Refuses values that are not finite: there is no zero point for the activations they lead to.
    const float* finite(const std::string& name, int count) const {
        const float* values = weights_.vector(name, count);
        if (!std::all_of(values, values + count, [](float x) { return std::isfinite(x); }))
            refuse(name, "contains a number that is not finite");
        return values;
    }

    const float* padded(const float* from, int count) {
        const int size = round_up(count, kTileRows);
        float* to = model_.vectors.emplace_back(std::make_unique<float[]>(size)).get();
        return from ? static_cast<float*>(std::memcpy(to, from, sizeof(float) * count)) : to;
    }

    // Zeros if the name is empty: the layer has no bias.
    const float* bias_of(const std::string& name, int count) {
        return padded(name.empty() ? nullptr : finite(name, count), count);
    }

    // The bits of a shared pattern, expanded to bytes of all ones or all zeros.
    const uint8_t* seconds(const std::string& name, nb::handle part, const Int8Weight& weight) {
        const AnyArray bits = as_array(name, part);
        check_shared_bits(name, bits, weight.shared_rows, weight.rows, weight.columns);
        const size_t each = bits.shape(1), count = bits.shape(0) * each;
        uint8_t* to = model_.seconds.emplace_back(std::make_unique<uint8_t[]>(8 * count)).get();
        const uint8_t* from = static_cast<const uint8_t*>(bits.data());
        for (size_t pair = 0; pair < 8 * count; ++pair)
            to[pair] = from[pair / 8] >> pair % 8 & 1 ? 0xFF : 0;
        model_.widest_shared = std::max(model_.widest_shared, weight.columns);
        return to;
    }

    Int8Weight matrix(const std::string& name, int rows, int columns) {
        const nb::object value = weights_.entry(name);
        if (!nb::isinstance<nb::tuple>(value))
            refuse(name, "is not int8, although other weights are");
        const Parts parts(name, value);
        Int8Weight weight;
        weight.rows = rows;
        weight.columns = columns;
        const int tiles = weight.tiles(), groups = weight.groups();
        const std::string kind = parts.text(0);
        check_shape(name, rows, parts.integer(1), rows, columns);
        if (columns > kMostInputs)
            refuse(name, "has " + std::to_string(columns) + " inputs; int32 sums allow at most " +
                             std::to_string(kMostInputs));
        int next = kind == "panels" ? 4 : kind == "shared-pairs" ? 3 : 2;
        const AnyArray values = as_array(name, parts[next++]);
        bool fits = values.dtype() == nb::dtype<int8_t>();
        if (kind == "pairs") {
            weight.layout = Int8Layout::kPairs;
            fits = fits && columns % 2 == 0 && is(values, {tiles, groups, kTileRows, 4});
            weight.bits = bits(name, parts[next++], tiles, groups);
        } else if (kind == "shared-pairs") {
            weight.layout = Int8Layout::kSharedPairs;
            weight.shared_rows = parts.integer(2);
            fits = fits && columns % 2 == 0 &&
                   is(values, {tiles, (columns + 15) / 16 * 2, kTileRows, 4});
            weight.second = seconds(name, parts[next++], weight);
        } else if (kind == "dense") {
            weight.layout = Int8Layout::kDense;
            fits = fits && is(values, {tiles, 2 * groups, kTileRows, 4});
        } else if (kind == "table") {
            weight.layout = Int8Layout::kTable;
            fits = fits && is(values, {rows, columns});
        } else if (kind == "panels") {
            weight.layout = Int8Layout::kBitmap;
            const int n = parts.integer(2), m = parts.integer(3);
            if (n < 1 || m <= n || m > kPanelColumns || columns < m || columns % m)
                refuse(name, "has an invalid pattern");
            weight.panel_columns = kPanelColumns / m * m;
            weight.kept = weight.panel_columns / m * n;
            const int panels = (columns + weight.panel_columns - 1) / weight.panel_columns;
            fits = fits && is(values, {panels, rows, weight.kept});
            weight.bits = bits(name, parts[next++], panels, rows);
            check_bitmap(name, weight.bits, rows, columns, weight.panel_columns, n, m);
        } else {
            refuse(name, "is of unknown kind '" + kind + "'");
        }
        if (!fits) refuse(name, "has values of the wrong type or shape");
        weight.values = static_cast<const int8_t*>(values.data());
        weight.scales = scales(name, parts[next], rows);
        return weight;
    }

    static const uint64_t* bits(const std::string& name, nb::handle part, int first, int second) {
        const AnyArray array = as_array(name, part);
        if (array.dtype() != nb::dtype<uint64_t>() || !is(array, {first, second}))
            refuse(name, "has bits of the wrong type or shape");
        return static_cast<const uint64_t*>(array.data());
    }

    const float* scales(const std::string& name, nb::handle part, int rows) {
        const AnyArray array = as_array(name, part);
        if (array.dtype() != nb::dtype<float>() || !is(array, {rows}))
            refuse(name, "has scales of the wrong type or shape");
        const float* values = static_cast<const float*>(array.data());
        for (int row = 0; row < rows; ++row)
            if (!std::isfinite(values[row]) || values[row] < 0.0f)
                refuse(name, "has a scale that is negative or not finite");
        return padded(values, rows);
    }

    void add_sums(Int8Weight& weight) {
        const int size = weight.tiles() * kTileRows;
        int32_t* sums = model_.sums.emplace_back(std::make_unique<int32_t[]>(size)).get();
        const auto scratch = std::make_unique<int8_t[]>(int8_expansion(weight.columns));
        const bool shared = weight.layout == Int8Layout::kSharedPairs;
        const Int8Weight read = shared ? kept_inputs(weight) : weight;
        kernels_.row_sums(read, sums, scratch.get());
        weight.sums = sums;
        weight.small_pairs = kernels_.asks_for_small_pairs && has_small_pairs(read);
    }

    const Weights& weights_;
    Int8Model& model_;
    const Int8Kernels& kernels_;
};

}  // namespace

Int8Model read_int8_model(const nb::dict& config, const nb::dict& entries,
                          const Int8Kernels& kernels) {
    Int8Model model;
    const Weights weights(entries);
    read_shape(config, weights, model);
    Reader reader(weights, model, kernels);
    read_weights(config, reader, model);
    return model;
}

}  // namespace sparsebert
