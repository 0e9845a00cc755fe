#include "cpu/runtime/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace effkernels::cpu {
namespace {

using Body = void (*)(const void* context, int part);

// How long a thread waits for the next call before it sleeps: longer than what Python does between two calls.
constexpr std::chrono::microseconds kLinger{1000};
// Those who wait look this often, which takes tens of microseconds, before they let others have the processor once: a
// thread that has work may be among them.
constexpr int kLooks = 1024;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t this_process() {
#if defined(__unix__) || defined(__APPLE__)
  return getpid();
#else
  return 0;
#endif
}

// Looks kLooks times, and then lets others have the processor; returns whether something was found.
template <class Found>
bool look(const Found& found) {
  for (int looks = 0; looks < kLooks; ++looks) {
    if (found()) return true;
    pause();
  }
  std::this_thread::yield();
  return false;
}

#if defined(__linux__)
// Keeps a thread that sleeps from being woken on the processor of the caller, where it would begin only when the caller
// waits, or take turns with it. Linux may do that even if other processors are idle: a virtual machine's look busy to
// it while the host has put them to sleep.
class Place {
 public:
  // By the thread itself, before it sleeps.
  void leave() { asleep_ = true; }

  // By its caller, who then wakes it.
  void avoid_caller(std::thread::native_handle_type thread) {
    const int here = sched_getcpu();
    if (!asleep_ || moved_ || here < 0 || here >= CPU_SETSIZE) return;
    if (pthread_getaffinity_np(thread, sizeof allowed_, &allowed_) != 0) return;
    cpu_set_t others = allowed_;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0 || CPU_EQUAL(&others, &allowed_)) return;
    moved_ = pthread_setaffinity_np(thread, sizeof others, &others) == 0;
  }

  // By the thread, when it is awake: it may run again where it might before.
  void arrive() {
    if (moved_) pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
    asleep_ = moved_ = false;
  }

 private:
  bool asleep_ = false, moved_ = false;
  cpu_set_t allowed_;
};
#else
class Place {
 public:
  void leave() {}
  void avoid_caller(std::thread::native_handle_type) {}
  void arrive() {}
};
#endif

class Pool {
 public:
  explicit Pool(int others) : others_(others), places_(others), process_(this_process()) {
    for (int i = 0; i < others; ++i) threads_.emplace_back([this, i] { help(i); });
  }

  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  bool fits(int others) const { return others_ == others; }
  // Threads are not copied by a fork, so in the child nothing can be done with them, not even end them.
  bool is_alive() const { return process_ == this_process(); }

  void begin() {
    const std::lock_guard lock(mutex_);
    in_use_ = true;
    if (asleep_ == 0) return;
    for (size_t i = 0; i < threads_.size(); ++i) places_[i].avoid_caller(threads_[i].native_handle());
    wake_.notify_all();
  }

  void end() {
    const std::lock_guard lock(mutex_);
    in_use_ = false;
  }

  void run(int parts, Body body, const void* context) {
    body_ = body;
    context_ = context;
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t step = (next_.load(std::memory_order_relaxed) >> kStepShift) + 1;
    next_.store(step << kStepShift | static_cast<uint64_t>(parts) << kPartBits, std::memory_order_release);
    int mine = 0;
    while (take_part()) ++mine;
    while (!look([&] { return finished_.load(std::memory_order_acquire) == parts - mine; })) {
    }
  }

 private:
  // `next_`: the number of the step, how many parts it has, and how many of them are taken. Whoever adds one to the
  // last, while the others are unchanged, has that part, and until it is finished the step is too.
  static constexpr int kPartBits = 16, kStepShift = 2 * kPartBits;

  bool take_part() {
    uint64_t next = next_.load(std::memory_order_acquire);
    for (;;) {
      const int taken = next & 0xffff, parts = next >> kPartBits & 0xffff;
      if (taken == parts) return false;
      if (next_.compare_exchange_weak(next, next + 1, std::memory_order_acquire)) {
        body_(context_, taken);
        return true;
      }
    }
  }

  void help(int self) {
    for (;;) {
      if (take_part()) {
        finished_.fetch_add(1, std::memory_order_release);
      } else if (!wait(self)) {
        return;
      }
    }
  }

  bool has_parts() const {
    const uint64_t next = next_.load(std::memory_order_relaxed);
    return (next & 0xffff) != (next >> kPartBits & 0xffff);
  }

  // Waits for a part; false if there will be none.
  bool wait(int self) {
    for (auto begun = std::chrono::steady_clock::now(); !look([this] { return has_parts(); });) {
      if (std::chrono::steady_clock::now() - begun < kLinger) continue;
      std::unique_lock lock(mutex_);
      places_[self].leave();
      ++asleep_;
      wake_.wait(lock, [this] { return in_use_ || ended_; });
      --asleep_;
      places_[self].arrive();
      if (ended_) return false;
      begun = std::chrono::steady_clock::now();
    }
    return true;
  }

  const int others_;
  alignas(64) std::atomic<uint64_t> next_{0};
  Body body_ = nullptr;
  const void* context_ = nullptr;
  alignas(64) std::atomic<int> finished_{0};

  alignas(64) std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  bool in_use_ = false, ended_ = false;
  int asleep_ = 0;
  std::vector<Place> places_;
  std::vector<std::thread> threads_;
  const int64_t process_;
};

thread_local std::unique_ptr<Pool> pool;

// The pool of the calling thread.
Pool& own_pool(int others) {
  if (pool != nullptr && !pool->is_alive()) static_cast<void>(pool.release());
  if (pool == nullptr || !pool->fits(others)) pool = std::make_unique<Pool>(others);
  return *pool;
}

}  // namespace

Crew::Crew(int count) : count_(std::min(count, 0xffff)) {
  if (count_ > 1) own_pool(count_ - 1).begin();
}

Crew::~Crew() {
  if (count_ > 1) pool->end();
}

Threads Crew::threads() const {
  return {count_, [](int workers, Body body, const void* context) { pool->run(workers, body, context); }};
}

}  // namespace effkernels::cpu
