#pragma once

// Distributes tasks among the workers of a pool.

#include <type_traits>

#include "cpu/isa/vec.h"
#include "cpu/runtime/threads.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

template <class T>
EFFKERNELS_INLINE T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
EFFKERNELS_INLINE T larger(T a, T b) {
  return a < b ? b : a;
}
template <class T>
EFFKERNELS_INLINE T divide_up(T a, T b) {
  return (a + b - 1) / b;
}
template <class T>
EFFKERNELS_INLINE T round_up(T a, T b) {
  return divide_up(a, b) * b;
}

// Calls f(0), f(1), ... f(kCount - 1) with compile-time numbers.
template <int kCount, class F>
EFFKERNELS_INLINE void unrolled(const F& f) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(f);
    f(std::integral_constant<int, kCount - 1>());
  }
}

// The number of workers, at most one per task.
EFFKERNELS_INLINE int workers_for(int64_t tasks, const Threads& threads) {
  return static_cast<int>(smaller<int64_t>(tasks, threads.count));
}

// Calls body(begin, end, worker) for a contiguous share of the tasks each.
template <class Body>
void share_evenly(int64_t tasks, const Threads& threads, const Body& body) {
  struct Context {
    int64_t tasks;
    int workers;
    const Body& body;
  } context{tasks, workers_for(tasks, threads), body};
  if (tasks == 0) return;
  const auto work = [](const void* given, int worker) {
    const Context& c = *static_cast<const Context*>(given);
    c.body(c.tasks * worker / c.workers, c.tasks * (worker + 1) / c.workers, worker);
  };
  if (context.workers == 1) {
    work(&context, 0);
  } else {
    threads.run(threads.pool, context.workers, work, &context);
  }
}

// Calls body(task, worker) for every task; a worker that is done takes the next one.
template <class Body>
void take_turns(int64_t tasks, const Threads& threads, const Body& body) {
  int64_t next = 0;
  share_evenly(workers_for(tasks, threads), threads, [&](int64_t, int64_t, int worker) {
    int64_t task;
    while ((task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks) body(task, worker);
  });
}

// Allocates parts of the workspace, each on its own cache line. With a null pointer it only counts.
class Scratch {
 public:
  explicit Scratch(float* memory) : memory_(memory) {}

  float* take(int64_t floats) {
    float* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += round_up<int64_t>(floats, 16);
    return part;
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
