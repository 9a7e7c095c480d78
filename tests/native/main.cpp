// Tests of the native engine:
//   native_tests [NAME ...]                        the examples of these tests, or of all
//   native_tests --rounds N [--seed N] [NAME ...]  N random cases of each test
//   native_tests --case N NAME                     the random case that a failure named
//   native_tests --sets                            the instruction sets of this machine
// Every kernel is compared with its plainly written definition, on every instruction set of this
// machine; integer results must be equal to it, and so are equal on all sets.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "testing.h"

using namespace sparsebert;

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Round by round, so that each test runs early.
void run_rounds(const std::vector<const KernelTest*>& tests, uint64_t rounds, uint64_t seed) {
    uint64_t cases = 0;
    for (const uint64_t end = seed + rounds; seed < end; ++seed)
        for (const KernelTest* test : tests) {
            if (!test->random_case) continue;
            try {
                Random random(seed);
                test->random_case(random);
            } catch (const Failure& failure) {
                fail("--case ", seed, " ", test->name, ": ", failure.what());
            }
            ++cases;
        }
    std::printf("%llu random cases, %llu native calls\n", static_cast<unsigned long long>(cases),
                static_cast<unsigned long long>(native_calls));
}

[[noreturn]] void usage(const char* why) {
    std::fprintf(stderr, "%s\nSee the top of tests/native/main.cpp for usage.\n", why);
    std::exit(2);
}

}  // namespace

int main(int count, char** arguments) {
    std::vector<const KernelTest*> chosen;
    uint64_t rounds = 0, seed = 1;
    bool one_case = false;
    for (int i = 1; i < count; ++i) {
        const std::string word = arguments[i];
        if (word == "--sets") {
            std::string names;
            for (const std::string& name : available_instruction_sets()) names += ' ' + name;
            std::puts(names.c_str() + 1);
            return 0;
        }
        if (word == "--rounds" || word == "--seed" || word == "--case") {
            if (++i == count) usage("an option is missing its number.");
            (word == "--rounds" ? rounds : seed) = std::strtoull(arguments[i], nullptr, 10);
            one_case = one_case || word == "--case";
            continue;
        }
        const size_t before = chosen.size();
        for (const KernelTest* test : kTests)
            if (word == test->name) chosen.push_back(test);
        if (chosen.size() == before) usage(("there is no test " + word).c_str());
    }
    if (chosen.empty()) chosen = kTests;
    try {
        if (one_case) {
            for (const KernelTest* test : chosen)
                if (test->random_case) {
                    Random random(seed);
                    test->random_case(random);
                }
        } else if (rounds > 0) {
            run_rounds(chosen, rounds, seed);
        } else {
            for (const KernelTest* test : chosen) {
                const Clock::time_point start = Clock::now();
                test->examples();
                std::printf("%s: fine, %.1f s\n", test->name, since(start));
                std::fflush(stdout);
            }
        }
    } catch (const Failure& failure) {
        std::fprintf(stderr, "FAILED %s\n", failure.what());
        return 1;
    }
    return 0;
}
