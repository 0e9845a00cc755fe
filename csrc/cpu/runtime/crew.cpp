#include "cpu/runtime/crew.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <thread>

#include "cpu/runtime/placement.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace effkernels::cpu {
namespace {

using Body = void (*)(const void* context, int part);

// A waiting thread looks kLooks times (tens of microseconds), then yields its processor once, perhaps to the
// thread that has the work. After kRounds of that, a millisecond or more, it sleeps until it is notified;
// where there are more threads than processors, after the first kLooks.
constexpr int kLooks = 1024, kRounds = 32;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the first value of `changing` that is wanted.
template <class T, class Wanted>
T wait_for(const std::atomic<T>& changing, bool crowded, const Wanted& wanted) {
  T value = changing.load(std::memory_order_acquire);
  for (int round = crowded ? kRounds : 0; !wanted(value); ++round) {
    for (int looks = 0; looks < kLooks && !wanted(value); ++looks) {
      pause();
      value = changing.load(std::memory_order_acquire);
    }
    if (wanted(value)) break;
    round < kRounds ? std::this_thread::yield() : changing.wait(value, std::memory_order_acquire);
    value = changing.load(std::memory_order_acquire);
  }
  return value;
}

class Crew {
 public:
  explicit Crew(int count) : crowded_(static_cast<unsigned>(count) > processors()) {}

  // On the thread that began it.
  void run(int parts, Body body, const void* context) {
    body_ = body;
    context_ = context;
    finished_.store(0, std::memory_order_relaxed);
    ++step_;
    announce(step_ << kStepShift | static_cast<uint64_t>(parts) << kPartBits);
    uint64_t step = next_.load(std::memory_order_relaxed);
    int mine = 0;
    while (take_part(step)) ++mine;
    wait_for(finished_, crowded_, [&](int finished) { return finished == parts - mine; });
  }

  // On the others, until the end.
  void help() {
    uint64_t step = 0;
    while (step != kEnd) {
      while (take_part(step)) {
        finished_.fetch_add(1, std::memory_order_release);
        finished_.notify_one();
      }
      step =
          wait_for(next_, crowded_, [](uint64_t next) { return next == kEnd || taken(next) != parts(next); });
    }
  }

  void end() { announce(kEnd); }

 private:
  // `next_`: the number of the step, how many parts it has, and how many of them are taken. The thread that
  // adds one to the last by compare-and-swap has that part; the step does not end before the part has.
  static constexpr int kPartBits = 16, kStepShift = 2 * kPartBits;
  static constexpr uint64_t kEnd = ~uint64_t{0};  // all parts are taken
  static int taken(uint64_t next) { return static_cast<int>(next & 0xffff); }
  static int parts(uint64_t next) { return static_cast<int>(next >> kPartBits & 0xffff); }

  static unsigned processors() {
    static const unsigned count = std::thread::hardware_concurrency();
    return count == 0 ? UINT_MAX : count;
  }

  void announce(uint64_t next) {
    next_.store(next, std::memory_order_release);
    next_.notify_all();
  }

  // Takes a part and does it; false if there is none. `next`: what it was before; is updated.
  bool take_part(uint64_t& next) {
    while (taken(next) != parts(next)) {
      if (next_.compare_exchange_weak(next, next + 1, std::memory_order_acquire)) {
        body_(context_, taken(next));
        ++next;
        return true;
      }
    }
    return false;
  }

  const bool crowded_;
  uint64_t step_ = 0;
  alignas(64) std::atomic<uint64_t> next_{0};
  Body body_ = nullptr;
  const void* context_ = nullptr;
  alignas(64) std::atomic<int> finished_{0};
};

void run_crew(void* crew, int parts, Body body, const void* context) {
  static_cast<Crew*>(crew)->run(parts, body, context);
}

// One call of with_crew, of which each thread does its share.
struct Call {
  const std::function<void(const Threads& crew)>& work;
  Placement& placement;
  const int count;
  const std::thread::id caller = std::this_thread::get_id();
  Crew crew{count};
  bool begun = false;
  std::exception_ptr error{};

  void take_part(int thread) {
    if (std::this_thread::get_id() != caller) {
      placement.arrive(thread);
      return crew.help();
    }
    // Where no other threads can be had, the caller is called for each of them.
    if (begun) return;
    begun = true;
    try {
      work({count, run_crew, &crew});
    } catch (...) {
      error = std::current_exception();  // the others have to be let go first
    }
    crew.end();
  }
};

}  // namespace

void with_crew(const Threads& pool, const std::function<void(const Threads& crew)>& work) {
  if (pool.count == 1) return work(pool);
  thread_local Placement placement;
  Call call{work, placement, std::min(pool.count, 0xffff)};
  placement.before_waking(call.count);
  const auto body = [](const void* context, int thread) {
    static_cast<Call*>(const_cast<void*>(context))->take_part(thread);
  };
  pool.run(pool.pool, call.count, body, &call);
  placement.after_work();
  if (call.error != nullptr) std::rethrow_exception(call.error);
}

}  // namespace effkernels::cpu
