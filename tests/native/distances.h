// What attention adds to scores by distance: random numbers, and a hugely negative one outside a
// window.
#pragma once

#include <cstdlib>

#include "guarded.h"
#include "testing.h"

namespace sparsebert {

struct Distances {
    // For distances -reach to reach; a negative `window` means none.
    Distances(bool biased, int window_, int reach_, Random& random)
        : some(biased || window_ >= 0), window(window_), reach(reach_), values(2 * reach_ + 1) {
        for (int d = -reach; d <= reach; ++d)
            values[reach + d] = sees(d) ? (biased ? random.normal() : 0.0f) : -1e30f;
    }
    bool sees(int distance) const { return window < 0 || std::abs(distance) <= window; }
    double at(int distance) const { return values[reach + distance]; }
    const float* centre() const { return some ? values.data() + reach : nullptr; }
    int computed() const { return window < 0 ? kEverything : window; }

    bool some;
    int window, reach;
    Guarded<float> values;
};

}  // namespace sparsebert
