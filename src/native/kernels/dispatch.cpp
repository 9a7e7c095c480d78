#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace sparsebert {
namespace {

struct InstructionSet {
    const char* name;
    const Kernels* kernels;  // null where this build lacks it
    bool supported;          // by this CPU and its operating system
};

// Best first.
std::vector<InstructionSet> instruction_sets() {
#ifdef SPARSEBERT_X86_64
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    return {{"avx512", &kAvx512Kernels, avx512},
            {"avx2", &kAvx2Kernels, avx2},
            {"portable", &kPortableKernels, true}};
#else
    return {{"avx512", nullptr, false},
            {"avx2", nullptr, false},
            {"portable", &kPortableKernels, true}};
#endif
}

}  // namespace

std::vector<std::string> available_instruction_sets() {
    std::vector<std::string> names;
    for (const InstructionSet& set : instruction_sets())
        if (set.kernels && set.supported) names.emplace_back(set.name);
    return names;
}

const Kernels& select_kernels(const std::string& asked) {
    std::string name = asked;
    if (name.empty())
        if (const char* variable = std::getenv("SPARSEBERT_ISA")) name = variable;
    for (const InstructionSet& set : instruction_sets()) {
        if (name.empty() && set.kernels && set.supported) return *set.kernels;
        if (name != set.name) continue;
        if (!set.kernels)
            throw std::invalid_argument("this build of sparsebert has no " + name +
                                        " kernels: it was compiled for another kind of CPU.");
        if (!set.supported)
            throw std::invalid_argument("this CPU cannot run " + name +
                                        " instructions: unset SPARSEBERT_ISA or name a lower set.");
        return *set.kernels;
    }
    throw std::invalid_argument("unknown instruction set '" + name +
                                "': SPARSEBERT_ISA takes portable, avx2 or avx512.");
}

}  // namespace sparsebert
