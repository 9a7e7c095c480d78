// Arrays of exactly the size that a header documents: an access out of bounds ends the test.
//
// Under AddressSanitizer they are ordinary memory, which it guards on both sides. Otherwise the
// last element ends at a protected page, so that the CPU itself catches overruns in the very code
// that is shipped; writes before the first element are detected at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)  // GCC's macro, then clang's feature
#define WATCHED_MEMORY
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED_MEMORY
#endif
#endif

#ifndef WATCHED_MEMORY
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sparsebert {

// `count` elements. Aligned only as T requires, unless the size is a multiple of 64 bytes: then to
// 64.
template <typename T>
class Guarded {
  public:
    explicit Guarded(size_t count = 0, T fill = T()) : count_(count) {
        allocate();
        for (T& element : *this) element = fill;
    }
    ~Guarded() { release(); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    Guarded(Guarded&& other) noexcept { swap(other); }
    Guarded& operator=(Guarded&& other) noexcept {
        swap(other);
        return *this;
    }

    T* data() const { return data_; }
    size_t size() const { return count_; }
    T& operator[](size_t i) const { return data_[i]; }
    T* begin() const { return data_; }
    T* end() const { return data_ + count_; }

  private:
    void swap(Guarded& other) {
        std::swap(count_, other.count_);
        std::swap(data_, other.data_);
        std::swap(memory_, other.memory_);
    }

#ifdef WATCHED_MEMORY
    void allocate() {
        memory_ = static_cast<uint8_t*>(operator new(count_ * sizeof(T), std::align_val_t(64)));
        data_ = reinterpret_cast<T*>(memory_);
    }
    void release() {
        if (memory_) operator delete(memory_, std::align_val_t(64));
    }
#else
    static constexpr uint8_t kMark = 0xA5;

    static size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
    size_t mapped_bytes() const { return (count_ * sizeof(T) + page() - 1) / page() * page(); }

    void allocate() {
        const size_t bytes = mapped_bytes() + page();
        void* mapped =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        memory_ = static_cast<uint8_t*>(mapped);
        if (mprotect(memory_ + mapped_bytes(), page(), PROT_NONE)) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>(memory_ + mapped_bytes() - count_ * sizeof(T));
        for (uint8_t* mark = memory_; mark < before(); ++mark) *mark = kMark;
    }
    const uint8_t* before() const { return reinterpret_cast<const uint8_t*>(data_); }

    void release() {
        if (!memory_) return;
        for (const uint8_t* mark = memory_; mark < before(); ++mark)
            if (*mark != kMark) {
                std::fprintf(stderr, "a kernel wrote %td bytes before an array\n", before() - mark);
                std::abort();
            }
        munmap(memory_, mapped_bytes() + page());
    }
#endif

    size_t count_ = 0;
    T* data_ = nullptr;
    uint8_t* memory_ = nullptr;
};

}  // namespace sparsebert
