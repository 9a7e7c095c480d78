// Whether tile registers may be used here, and for which products.
#pragma once

#include <cstdint>

namespace sparsebert {

// What a CPU and its operating system report about AMX.
struct AmxReport {
    // Instructions that the CPU, or the hypervisor, reports.
    bool tiles = false, int8 = false, bf16 = false;
    uint64_t saved_states = 0;  // XCR0: the state that the system saves at context switches
};

// The products that may be computed on tiles.
struct AmxProducts {
    bool int8 = false, bf16 = false;
};

// The usable products, given the report and `request`, which asks the system for permission. A
// virtual machine may report the instructions but neither save the tiles nor permit them.
AmxProducts amx_products(const AmxReport& report, bool (*request)());

// The same for this machine. Asks once; the permission holds for all threads of the process,
// present and future.
AmxProducts amx_products();

}  // namespace sparsebert
