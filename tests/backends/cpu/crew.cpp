// What a crew is for, beside the results: a thread that comes late holds up no step, and one that may be
// asleep is not woken on the processor of the thread that needs it. Prints "ok", or what is wrong; does not
// end where a step waits for the late thread.

#include "cpu/runtime/crew.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace effkernels::cpu {
namespace {

using Body = void (*)(const void* context, int thread);

void check(bool fine, const char* what) {
  if (fine) return;
  std::puts(what);
  std::exit(1);
}

// Begins to help when all steps are done.
struct LateThread {
  std::atomic<bool> steps_are_done{false};

  static void run(void* pool, int, Body body, const void* context) {
    auto& steps_are_done = static_cast<LateThread*>(pool)->steps_are_done;
    std::thread other([&] {
      steps_are_done.wait(false);
      body(context, 1);
    });
    body(context, 0);
    other.join();
  }
};

void late_threads_hold_up_no_step() {
  LateThread late;
  with_crew({2, LateThread::run, &late}, [&](const Threads& crew) {
    for (int step = 0; step < 100; ++step) {
      int parts = 0;
      const auto count = [](const void* counted, int) { ++*static_cast<int*>(const_cast<void*>(counted)); };
      crew.run(crew.pool, 2, count, &parts);
      check(parts == 2, "a step is not complete");
    }
    late.steps_are_done = true;
    late.steps_are_done.notify_one();
  });
}

cpu_set_t processors_of(pid_t thread) {
  cpu_set_t found;
  check(sched_getaffinity(thread, sizeof found, &found) == 0, "no affinity");
  return found;
}

// Sleeps between two calls.
class SleepingThread {
 public:
  ~SleepingThread() {
    call(nullptr, nullptr);
    thread_.join();
  }

  // Where it might run when it was last called, before it was awake.
  cpu_set_t when_called{};

  pid_t id() const {
    id_.wait(0);
    return id_;
  }

  static void run(void* pool, int, Body body, const void* context) {
    auto& self = *static_cast<SleepingThread*>(pool);
    self.when_called = processors_of(self.id());
    self.call(body, context);
    body(context, 0);
    self.calls_.wait(1);
  }

 private:
  void call(Body body, const void* context) {
    body_ = body;
    context_ = context;
    calls_ = 1;
    calls_.notify_all();
  }

  void serve() {
    id_ = static_cast<pid_t>(syscall(SYS_gettid));
    id_.notify_all();
    for (;;) {
      calls_.wait(0);
      if (body_ == nullptr) return;
      body_(context_, 1);
      calls_ = 0;
      calls_.notify_all();
    }
  }

  std::atomic<pid_t> id_{0};
  std::atomic<int> calls_{0};
  Body body_ = nullptr;
  const void* context_ = nullptr;
  std::thread thread_{[this] { serve(); }};
};

void sleeping_threads_are_woken_elsewhere() {
  SleepingThread other;
  const cpu_set_t all = processors_of(other.id());
  if (CPU_COUNT(&all) < 2) return;
  cpu_set_t own, others = all;
  CPU_ZERO(&own);
  int here = 0;
  while (!CPU_ISSET(here, &all)) ++here;
  CPU_SET(here, &own);
  CPU_CLR(here, &others);
  check(sched_setaffinity(0, sizeof own, &own) == 0, "the caller cannot be bound to a processor");
  for (int call = 0; call < 3; ++call) {
    with_crew({2, SleepingThread::run, &other}, [](const Threads&) {});
    const cpu_set_t afterwards = processors_of(other.id());
    check(CPU_EQUAL(&afterwards, &all), "after the call a thread may not run wherever it might before");
    // The first call does not know the thread yet.
    check(call == 0 || CPU_EQUAL(&other.when_called, &others),
          "a thread that may be asleep is woken where the caller runs");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace
}  // namespace effkernels::cpu

int main() {
  effkernels::cpu::late_threads_hold_up_no_step();
  effkernels::cpu::sleeping_threads_are_woken_elsewhere();
  std::puts("ok");
}
