// ThreadPool, and whole encoders with many callers. Most useful under ThreadSanitizer.
#include <atomic>
#include <thread>

#include "small_encoders.h"
#include "thread_pool.h"

namespace sparsebert {
namespace {

// Each thread writes, all meet at a barrier, and each reads what the others wrote: a race unless
// the barrier orders them.
void check_pool(int threads) {
    ThreadPool pool(threads);
    expect_equal(pool.threads(), threads, "threads of a pool");
    std::vector<int> written(threads);
    for (int run = 1; run <= 20; ++run) {
        std::atomic<int> wrong{0}, calls{0};
        pool.run([&](int thread) {
            ++calls;
            for (int phase = 1; phase <= 10; ++phase) {
                written[thread] = run * 100 + phase;
                pool.barrier();
                for (const int other : written) wrong += other != run * 100 + phase;
                pool.barrier();
            }
        });
        expect_equal(calls.load(), threads, "threads that took part in a run");
        expect_equal(wrong.load(), 0, "threads that passed a barrier early");
        // The caller may read what they wrote, and write it before the next run.
        for (const int value : written)
            expect_equal(value, run * 100 + 10, "value written by a run");
        for (int& value : written) value = 0;
    }
}

// Several callers at once, each with its own texts, get the same results as alone.
void check_callers(const std::string& name, Encoder& encoder) {
    // Few tokens, of which threads split the rows; many; and many sequences, some of which a cut
    // divides.
    const std::vector<std::vector<int>> lengths = {
        {1}, {7, 3}, {48, 48, 48}, std::vector<int>(30, 9), {47, 1, 2, 45, 33, 17}};
    std::vector<Texts> texts;
    std::vector<std::vector<float>> alone;
    for (size_t i = 0; i < lengths.size(); ++i) {
        texts.emplace_back(lengths[i], i);
        alone.push_back(answers(encoder, texts.back()));
    }
    std::vector<std::string> failures(lengths.size());
    std::vector<std::thread> callers;
    for (size_t i = 0; i < lengths.size(); ++i)
        callers.emplace_back([&, i] {
            try {
                for (int again = 0; again < 2; ++again)
                    expect_same(name + ", caller " + std::to_string(i), answers(encoder, texts[i]),
                                alone[i]);
            } catch (const Failure& failure) {
                failures[i] = failure.what();
            }
        });
    for (std::thread& caller : callers) caller.join();
    for (const std::string& failure : failures)
        if (!failure.empty()) fail(failure);
}

}  // namespace

// With tile registers, if the set has them, for the larger calls above but not for the small ones.
constexpr int kFewestOnTiles = 9;

void test_threads() {
    for (const int threads : {1, 2, 3, 5}) check_pool(threads);
    // For threads, kernels only differ in how long they take.
    for (const std::string& isa : {available_instruction_sets().front(), std::string("portable")}) {
        const InstructionSet& set = select_instruction_set(isa);
        std::vector<float> one_thread;
        const Texts texts({40, 1, 48, 33, 5, 21}, 7);
        for (const int threads : {1, 2, 3}) {
            const std::string name = isa + ", threads " + std::to_string(threads);
            Weights weights(5);
            const Int8Choice choice{set.int8, set.int8_tiles, kFewestOnTiles, ""};
            const auto int8 = make_encoder(int8_model(weights), choice, threads);
            const auto masked_lm =
                make_encoder(sparsebert::masked_lm(int8_model(weights), weights), choice, threads);
            const auto floats = make_encoder(float_model(weights), *set.kernels, threads);
            check_callers(name + ", int8", *int8);
            check_callers(name + ", int8, masked LM", *masked_lm);
            check_callers(name + ", floats", *floats);
            const std::vector<float> found = answers(*int8, texts);
            if (threads == 1) one_thread = found;
            expect_same(name + ", int8, compared with one thread", found, one_thread);
        }
    }
}

}  // namespace sparsebert
