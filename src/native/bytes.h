// Raw memory on cache lines that is kept between runs: fresh pages would cost a fault each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace sparsebert {

// A growing buffer. What it held is lost when it grows.
class Bytes {
  public:
    uint8_t* reserve(size_t count) {
        if (count > capacity_) {
            const size_t bytes = (count + 63) / 64 * 64;
            memory_.reset();
            capacity_ = 0;
            uint8_t* fresh = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
            if (!fresh) throw std::bad_alloc();
            memory_.reset(fresh);
            capacity_ = bytes;
        }
        return memory_.get();
    }
    uint8_t* get() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(uint8_t* memory) const { std::free(memory); }
    };
    std::unique_ptr<uint8_t, Free> memory_;
    size_t capacity_ = 0;
};

// Hands out pieces of a buffer, each on a cache line. Without memory it only counts.
class Layout64 {
  public:
    explicit Layout64(uint8_t* memory = nullptr) : memory_(memory) {}
    template <typename T>
    T* take(size_t count) {
        T* piece = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return piece;
    }
    size_t used() const { return used_; }

  private:
    uint8_t* memory_;
    size_t used_ = 0;
};

}  // namespace sparsebert
