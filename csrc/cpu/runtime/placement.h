#pragma once

// Keeps sleeping threads from being woken on the processor of the thread that needs them. There they would
// start only when that thread waits, or take turns with it. Linux wakes them there, even if other processors
// are idle, when those look busy: the host may be using a virtual machine's processor at any time.

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace effkernels::cpu {

// A thread that works for another one.
class Helper;

// The helpers of one calling thread. Does nothing on other systems than Linux.
class Placement {
 public:
  // By the calling thread, before it wakes `count` threads, itself included: those that helped it before, and
  // may have gone to sleep since, are kept from its processor until they arrive.
  void before_waking(int count);
  // By each of the others, when it is awake.
  void arrive(int thread);
  // By the calling thread, when the others are done.
  void after_work();

 private:
  std::vector<std::shared_ptr<Helper>> helpers_;
  int64_t process_ = 0;
  std::chrono::steady_clock::time_point worked_;
};

}  // namespace effkernels::cpu
