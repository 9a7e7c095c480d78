// The random cases of these tests, chosen by libFuzzer for the code that they reach. The first byte
// selects the test, unless SPARSEBERT_FUZZ names one; `make fuzz-native` builds and runs this.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "testing.h"

using namespace sparsebert;

namespace {

std::vector<const KernelTest*> chosen() {
    const char* name = std::getenv("SPARSEBERT_FUZZ");
    std::vector<const KernelTest*> tests;
    for (const KernelTest* test : kTests)
        if (test->random_case && (!name || !*name || !std::strcmp(test->name, name)))
            tests.push_back(test);
    if (!tests.empty()) return tests;
    std::fprintf(stderr, "SPARSEBERT_FUZZ does not name a test with random cases: %s\n", name);
    std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::vector<const KernelTest*> tests = chosen();
    const size_t names = tests.size() > 1 && size > 0;
    const KernelTest* test = tests[names ? data[0] % tests.size() : 0];
    Random random(data + names, size - names);
    try {
        test->random_case(random);
    } catch (const Failure& failure) {
        std::fprintf(stderr, "FAILED %s: %s\n", test->name, failure.what());
        std::abort();
    }
    return 0;
}
