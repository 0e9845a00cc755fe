#include "cpu/runtime/placement.h"

#if defined(__linux__)

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mutex>

namespace effkernels::cpu {

// Threads that worked a shorter time ago are awake: they wait for work for some milliseconds before they
// sleep.
constexpr std::chrono::milliseconds kAwake{1};

class Helper {
 public:
  // By the thread itself.
  Helper() : thread_(static_cast<pid_t>(syscall(SYS_gettid))) {}

  void keep_from(int processor) {
    const std::lock_guard lock(mutex_);
    if (thread_ == 0 || moved_) return;
    if (sched_getaffinity(thread_, sizeof allowed_, &allowed_) != 0) return;
    cpu_set_t others = allowed_;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) == 0 || CPU_EQUAL(&others, &allowed_)) return;
    moved_ = sched_setaffinity(thread_, sizeof others, &others) == 0;
  }

  // By the thread itself: it may run again wherever it might before.
  void arrive() {
    const std::lock_guard lock(mutex_);
    if (moved_) sched_setaffinity(0, sizeof allowed_, &allowed_);
    moved_ = false;
  }

  void end() {
    const std::lock_guard lock(mutex_);
    thread_ = 0;
  }

 private:
  std::mutex mutex_;
  pid_t thread_;
  bool moved_ = false;
  cpu_set_t allowed_;
};

namespace {

// Of a thread, until it ends.
struct Own {
  const std::shared_ptr<Helper> helper = std::make_shared<Helper>();
  ~Own() { helper->end(); }
};

}  // namespace

void Placement::before_waking(int count) {
  // The threads of the parent of a process that was forked are not this process's.
  if (process_ != getpid()) helpers_.clear();
  process_ = getpid();
  helpers_.resize(count);
  if (std::chrono::steady_clock::now() - worked_ < kAwake) return;
  const int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  for (const auto& helper : helpers_) {
    if (helper != nullptr) helper->keep_from(here);
  }
}

void Placement::arrive(int thread) {
  thread_local const Own own;
  own.helper->arrive();
  helpers_[thread] = own.helper;
}

void Placement::after_work() { worked_ = std::chrono::steady_clock::now(); }

}  // namespace effkernels::cpu

#else

namespace effkernels::cpu {

class Helper {};

void Placement::before_waking(int) {}
void Placement::arrive(int) {}
void Placement::after_work() {}

}  // namespace effkernels::cpu

#endif
