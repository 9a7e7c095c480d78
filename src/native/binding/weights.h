// A model's weights as Python hands them over: a dict of arrays and tuples, each checked before a
// pointer to it is kept.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>

#include "../int8/model.h"
#include "../model.h"

namespace sparsebert {

namespace nb = nanobind;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

// Throws std::invalid_argument.
[[noreturn]] void refuse(const std::string& name, const std::string& why);

class Weights {
  public:
    explicit Weights(const nb::dict& entries) : entries_(entries) {}

    bool has(const std::string& name) const { return entries_.contains(name.c_str()); }
    nb::object entry(const std::string& name) const;                // refused if missing
    const float* vector(const std::string& name, int count) const;  // float32 [count]
    const float* float_matrix(const std::string& name, int rows, int columns) const;  // float32

  private:
    const nb::dict& entries_;
};

void check_shape(const std::string& name, int rows, int columns, int wanted_rows,
                 int wanted_columns);

// A stray bit would read beyond the activations or the values.
void check_bitmap(const std::string& name, const uint64_t* bits, int rows, int columns,
                  int panel_columns, int n, int m);

// The model of a configuration (see `Configuration` in engine/__init__.py). Weights stay where
// they lie, and must outlive the model.
Model read_float_model(const nb::dict& config, const nb::dict& entries);
Int8Model read_int8_model(const nb::dict& config, const nb::dict& entries,
                          const Int8Kernels& kernels);

// Whether any weight is int8.
bool is_int8(const nb::dict& entries);

// What both have: sizes and head. The number of outputs is set with the head's last layer.
void read_shape(const nb::dict& config, ModelShape& shape);

}  // namespace sparsebert
