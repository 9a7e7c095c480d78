#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "amx.h"

#ifdef SPARSEBERT_X86_64
#include <cpuid.h>
#endif
#if defined(SPARSEBERT_AARCH64) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(SPARSEBERT_AARCH64) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sparsebert {
namespace {

#ifdef SPARSEBERT_AVX_VNNI
// AVX-VNNI (256-bit vpdpbusd without AVX-512): leaf 7.1, bit 4 of EAX. Not every compiler's
// __builtin_cpu_supports knows it.
bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

#ifdef SPARSEBERT_AVX512_BF16
bool has_avx512_bf16() {  // bit 5 of the same register
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}
#endif

#ifdef SPARSEBERT_X86_64
// Leaf 1, bit 29 of ECX. Not every compiler's __builtin_cpu_supports knows it.
bool has_f16c() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

// Size of the L1 data cache in bytes, from leaf 4 (Intel) or 0x8000001d (AMD); 0 if the CPU does
// not report it.
unsigned l1_bytes() {
    for (const unsigned leaf : {0x4u, 0x8000001du}) {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d) || (a & 31) != 1) continue;
        return ((b >> 22) + 1) * ((b >> 12 & 1023) + 1) * ((b & 4095) + 1) * (c + 1);
    }
    return 0;
}

// With blocks of 128 tokens a panel takes 32 KiB, which is too much for Zen 4 (0.93 of the speed
// with 96 tokens) but faster where L1 is larger (1.09 to 1.18 on an Intel Xeon with 48 KiB).
const Kernels& avx512_kernels() {
    static const Kernels kernels = [] {
        Kernels found = kAvx512Kernels;
        if (l1_bytes() >= 48 * 1024) found.block_tokens = 128;
        return found;
    }();
    return kernels;
}
#endif

// Best first. Sets that this build lacks are listed without kernels, so that their names are known.
std::vector<InstructionSet> x86_sets() {
#ifdef SPARSEBERT_X86_64
    __builtin_cpu_init();
    const bool sse41 = __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_f16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
#ifdef SPARSEBERT_AVX512_BF16
    const Bf16Kernels* bf16 = avx512 && has_avx512_bf16() ? &kAvx512Bf16 : nullptr;
#else
    const Bf16Kernels* bf16 = nullptr;
#endif
    const bool vnni512 = avx512 && __builtin_cpu_supports("avx512vnni");
    // 256-bit vpdpbusd in AVX-512's encoding, or in AVX-VNNI's if the CPU has it.
    bool vnni256 = vnni512;
    const Int8Kernels* int8_256 = &kAvx512VlVnniInt8;
    const Int8Kernels* lookup_256 = &kAvx512VlVnniLookupInt8;
#ifdef SPARSEBERT_AVX_VNNI
    if (avx2 && has_avx_vnni()) {
        vnni256 = true;
        int8_256 = &kAvx2VnniInt8;
        lookup_256 = &kAvx2VnniLookupInt8;
    }
#endif
#ifdef SPARSEBERT_AMX
    const bool amx = vnni512 && amx_products().int8;
    const Int8Kernels* tiles = &kAvx512AmxInt8;
    const Bf16Kernels* bf16_tiles = amx_products().bf16 && bf16 ? &kAvx512AmxBf16 : bf16;
#else
    const bool amx = false;
    const Int8Kernels* tiles = nullptr;
    const Bf16Kernels* bf16_tiles = nullptr;
#endif
    return {{"avx512-amx", tiles ? &avx512_kernels() : nullptr, &kAvx512VnniInt8, amx,
             &kAvx512VnniLookupInt8, tiles, bf16_tiles},
            {"avx512-vnni", &avx512_kernels(), &kAvx512VnniInt8, vnni512, &kAvx512VnniLookupInt8,
             nullptr, bf16},
            {"avx512", &avx512_kernels(), &kAvx2Int8, avx512, &kAvx2LookupInt8, nullptr, bf16},
            {"avx2-vnni", &kAvx2Kernels, int8_256, vnni256, lookup_256},
            {"avx2", &kAvx2Kernels, &kAvx2Int8, avx2, &kAvx2LookupInt8},
            {"sse4.1", &kPortableKernels, &kSse41Int8, sse41}};
#else
    return {{"avx512-amx"}, {"avx512-vnni"}, {"avx512"}, {"avx2-vnni"}, {"avx2"}, {"sse4.1"}};
#endif
}

#if defined(SPARSEBERT_AARCH64) && defined(__APPLE__)
bool has(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(SPARSEBERT_AARCH64) && defined(__linux__)
bool has_dotprod() { return getauxval(AT_HWCAP) & 1ul << 20; }  // HWCAP_ASIMDDP
bool has_i8mm() { return getauxval(AT_HWCAP2) & 1ul << 13; }    // HWCAP2_I8MM
#elif defined(SPARSEBERT_AARCH64)
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif

std::vector<InstructionSet> arm_sets() {
#ifdef SPARSEBERT_AARCH64
    const bool dotprod = has_dotprod();
    return {{"neon-i8mm", &kNeonKernels, &kNeonI8mmInt8, dotprod && has_i8mm()},
            {"neon-dotprod", &kNeonKernels, &kNeonDotprodInt8, dotprod, &kNeonDotprodLookupInt8},
            {"neon", &kNeonKernels, &kNeonInt8, true}};
#else
    return {{"neon-i8mm"}, {"neon-dotprod"}, {"neon"}};
#endif
}

// Best first; no CPU has sets of another architecture.
const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = [] {
        std::vector<InstructionSet> all = x86_sets();
        for (const InstructionSet& set : arm_sets()) all.push_back(set);
        all.push_back({"portable", &kPortableKernels, &kPortableInt8, true});
        return all;
    }();
    return sets;
}

}  // namespace

std::vector<std::string> available_instruction_sets() {
    std::vector<std::string> names;
    for (const InstructionSet& set : instruction_sets())
        if (set.kernels && set.supported) names.emplace_back(set.name);
    return names;
}

const InstructionSet& select_instruction_set(const std::string& asked) {
    std::string name = asked;
    if (name.empty())
        if (const char* variable = std::getenv("SPARSEBERT_ISA")) name = variable;
    for (const InstructionSet& set : instruction_sets()) {
        if (name.empty() && set.kernels && set.supported) return set;
        if (name != set.name) continue;
        if (!set.kernels)
            throw std::invalid_argument("this build of sparsebert has no " + name +
                                        " kernels: it was compiled for another kind of CPU, or by "
                                        "a compiler that is too old.");
        if (!set.supported)
            throw std::invalid_argument(
                "this CPU cannot run " + name +
                " instructions, or its operating system does not permit them: unset "
                "SPARSEBERT_ISA or choose a lower set.");
        return set;
    }
    throw std::invalid_argument(
        "unknown instruction set '" + name +
        "': SPARSEBERT_ISA takes portable, sse4.1, avx2, avx2-vnni, "
        "avx512, avx512-vnni, avx512-amx, neon, neon-dotprod or neon-i8mm.");
}

}  // namespace sparsebert
