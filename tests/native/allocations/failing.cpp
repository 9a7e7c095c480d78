// Lets each allocation of the engine fail in turn: the n-th of making an encoder and of its first
// answers, for n = 1, 2, 3, ... until all succeed. Each time std::bad_alloc must be thrown, or
// std::runtime_error (if a thread could not be started because of it); then the encoder must give
// the same answers as before, and in the end all memory must be freed. This is a program of its
// own, because it replaces operator new, and the linker redirects aligned_alloc to
// __wrap_aligned_alloc.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "small_encoders.h"

namespace {

std::atomic<long> until{0};  // allocations up to and including the one that fails; 0: none fails
std::atomic<long> alive{0};  // by operator new; a sanitizer finds other leaks

bool fails() { return until > 0 && --until == 0; }

}  // namespace

extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    if (fails()) return nullptr;
    void* memory = __real_aligned_alloc(alignment, bytes);
    // NaN as floats: what an earlier encoder left there must not pass for a computed result.
    if (memory) std::memset(memory, 0xFF, bytes);
    return memory;
}
}

void* operator new(size_t bytes) {
    void* memory = fails() ? nullptr : std::malloc(bytes ? bytes : 1);
    if (!memory) throw std::bad_alloc();
    ++alive;
    return memory;
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    const size_t unit = static_cast<size_t>(alignment);
    void* memory = fails() ? nullptr : __real_aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (!memory) throw std::bad_alloc();
    ++alive;
    return memory;
}
void operator delete(void* memory) noexcept {
    if (memory) --alive;
    std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { operator delete(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { operator delete(memory); }

namespace sparsebert {
namespace {

// Texts of growing length, for buffers and tables of positions that grow with them.
struct Requests {
    Texts few{{3}, 1}, many{std::vector<int>(4, kPositions), 2};
};

// Calls encode(model()) with every allocation of `encode` and of the answers failing in turn;
// returns how many there are.
template <typename MakeModel, typename Encode>
long each_allocation(const std::string& name, MakeModel model, Encode encode) {
    const Requests requests;
    std::vector<float> few, many;
    {
        const auto encoder = encode(model());
        few = answers(*encoder, requests.few), many = answers(*encoder, requests.many);
    }
    for (long n = 1;; ++n) {
        const long before = alive;
        bool passed = false;
        {
            auto made = model();
            std::unique_ptr<Encoder> encoder;
            until = n;
            try {
                encoder = encode(std::move(made));
                answers(*encoder, requests.few);
                answers(*encoder, requests.many);
                passed = until > 0;
            } catch (const std::bad_alloc&) {
            } catch (const std::runtime_error&) {  // a thread that could not be started
                if (encoder)
                    fail(name, ", allocation ", n, ": the exception is not std::bad_alloc");
            }
            const bool failed = until == 0;
            until = 0;
            if (!passed && !failed)
                fail(name, ", allocation ", n, ": an exception although no allocation failed");
            if (failed && encoder) {
                // The larger one first: a half-filled table must not look full.
                const std::string after = name + ", after allocation " + std::to_string(n);
                expect_same(after, answers(*encoder, requests.many), many);
                expect_same(after, answers(*encoder, requests.few), few);
            }
        }
        if (alive != before)
            fail(name, ", allocation ", n, ": ", alive - before, " allocations are not freed");
        if (passed) return n - 1;
    }
}

// With tables that grow with the texts, as in MPNet and ModernBERT.
template <typename Model>
Model positioned(Model model) {
    model.relative_bias.assign(8 * kHeads, 0.25f);
    for (LayerAttention& layer : model.layers_attention) layer.rotary.theta = 1e4f;
    return model;
}

// With keys and queries of distances, as in DeBERTa.
template <typename Model>
Model disentangled(Model model) {
    Disentangled& of = model.disentangled;
    of.span = of.buckets = 8;
    of.farthest = kPositions;
    of.terms = 3;
    of.keys = of.queries = true;
    Random random(3);
    for (int i = 0; i < 2 * of.span * kHidden; ++i) of.embeddings.push_back(random.normal());
    return model;
}

void check_all() {
    long all = 0;
    for (const std::string& isa : available_instruction_sets()) {
        const InstructionSet& set = select_instruction_set(isa);
        for (const int threads : {1, 2}) {
            const std::string name = isa + ", threads " + std::to_string(threads);
            const auto floats = [&](Model model) {
                return make_encoder(std::move(model), *set.kernels, threads);
            };
            const auto int8 = [&](Int8Model model) {
                return make_encoder(std::move(model), {set.int8, set.int8_tiles, 9, ""}, threads);
            };
            Weights weights(5);
            const auto plain = [&] {
                weights = Weights(5);
                return float_model(weights);
            };
            const auto plain_int8 = [&] {
                weights = Weights(5);
                return int8_model(weights);
            };
            all += each_allocation(name + ", floats", plain, floats);
            all += each_allocation(name + ", int8", plain_int8, int8);
            all += each_allocation(
                name + ", floats with tables", [&] { return positioned(plain()); }, floats);
            all += each_allocation(
                name + ", int8 with tables", [&] { return positioned(plain_int8()); }, int8);
            all += each_allocation(
                name + ", floats, disentangled", [&] { return disentangled(plain()); }, floats);
            all += each_allocation(
                name + ", int8, disentangled", [&] { return disentangled(plain_int8()); }, int8);
            all += each_allocation(
                name + ", int8, masked LM", [&] { return masked_lm(plain_int8(), weights); }, int8);
        }
    }
    std::printf("%ld allocations failed, one at a time\n", all);
}

}  // namespace
}  // namespace sparsebert

int main() {
    try {
        sparsebert::check_all();
    } catch (const sparsebert::Failure& failure) {
        std::fprintf(stderr, "FAILED %s\n", failure.what());
        return 1;
    }
}
