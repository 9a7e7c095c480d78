// What each process must have of its own. A forked one has none of its parent's threads; a mutex
// that one of them held stays locked in it, and what it was at work on stays half done.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

namespace sparsebert {

// Forks between the first process and this one.
unsigned count_forks();

// A T, made anew at the first use in a forked process. The parent's is left there as it is: even to
// destroy it would be to wait for threads that are not there.
template <typename T>
class PerProcess {
  public:
    using Make = std::function<std::unique_ptr<T>()>;

    explicit PerProcess(Make make) : make_(std::move(make)), current_(made().release()) {}
    ~PerProcess() {
        const Made* last = current_.load();
        if (last->forks == count_forks()) delete last;
    }
    PerProcess(const PerProcess&) = delete;
    PerProcess& operator=(const PerProcess&) = delete;

    // May be called from many threads at once; throws what `make` throws.
    T& get() {
        Made* current = current_.load(std::memory_order_acquire);
        if (current->forks != count_forks()) {
            std::unique_ptr<Made> fresh = made();
            if (current_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel,
                                                 std::memory_order_acquire))
                current = fresh.release();  // else another thread was faster
        }
        return *current->value;
    }

  private:
    struct Made {
        unsigned forks;
        std::unique_ptr<T> value;
    };
    std::unique_ptr<Made> made() const {
        return std::make_unique<Made>(Made{count_forks(), make_()});
    }

    Make make_;
    std::atomic<Made*> current_;
};

}  // namespace sparsebert
