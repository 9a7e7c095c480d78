// Whether tile registers may be used here, and for what.
#pragma once

#include <cstdint>

namespace sparsebert {

// What a CPU and its operating system say of AMX.
struct AmxReport {
    // Instructions that the CPU, or the hypervisor, shows.
    bool tiles = false, int8 = false, bf16 = false;
    uint64_t saved_states = 0;  // XCR0: what the system saves between threads
};

// The products that may be computed on tiles.
struct AmxProducts {
    bool int8 = false, bf16 = false;
};

// Those that may, given the report and `request`, which asks the system for permission. A virtual
// machine may show the instructions and neither save the tiles nor permit them.
AmxProducts amx_products(const AmxReport& report, bool (*request)());

// The same for this machine. Asks once; the permission holds for all threads of the process and for
// those that it starts.
AmxProducts amx_products();

}  // namespace sparsebert
