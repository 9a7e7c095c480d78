// Memory that is kept between runs: each fresh page would cost a page fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparsebert {

// A growable array, aligned to a cache line. Growing discards the contents.
template <typename T>
class Buffer {
  public:
    T* reserve(size_t count) {
        if (count > capacity_) {
            memory_.reset();
            capacity_ = 0;
            const size_t unit = count * sizeof(T) < kHugePage ? kCacheLine : kHugePage;
            const size_t bytes = (count * sizeof(T) + unit - 1) / unit * unit;
            T* fresh = static_cast<T*>(std::aligned_alloc(unit, bytes));
            if (!fresh) throw std::bad_alloc();
#ifdef __linux__
            if (unit == kHugePage) madvise(fresh, bytes, MADV_HUGEPAGE);  // fewer TLB misses
#endif
            memory_.reset(fresh);
            capacity_ = bytes / sizeof(T);
        }
        return memory_.get();
    }
    T* get() const { return memory_.get(); }

  private:
    static constexpr size_t kCacheLine = 64, kHugePage = 2 << 20;
    struct Free {
        void operator()(T* memory) const { std::free(memory); }
    };
    std::unique_ptr<T, Free> memory_;
    size_t capacity_ = 0;
};

using Floats = Buffer<float>;
using Bytes = Buffer<uint8_t>;

// Allocates from a buffer, each allocation aligned to a cache line. Without memory it only counts.
class Arena {
  public:
    explicit Arena(uint8_t* memory = nullptr) : memory_(memory) {}
    template <typename T>
    T* take(size_t count) {
        T* taken = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return taken;
    }
    size_t used() const { return used_; }

  private:
    uint8_t* memory_;
    size_t used_ = 0;
};

// Makes room for everything that lay(arena) takes, by calling it twice: to count, then to allocate.
template <typename Lay>
void lay_out(Bytes& memory, const Lay& lay) {
    Arena count;
    lay(count);
    Arena layout(memory.reserve(count.used()));
    lay(layout);
}

}  // namespace sparsebert
