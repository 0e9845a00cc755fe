#pragma once

#include "cpu/runtime/threads.h"

namespace effkernels::cpu {

// Threads that stay awake between the steps of a network. Each calling thread has a pool of its own, so callers do not
// wait for each other.
//
// A step is divided into as many parts as there are threads, and whoever is there takes the next part: a thread that the
// operating system has not started yet is never waited for, and if all are late the caller does the whole step.
// Between two calls the threads wait for the next one for a moment, leaving the processor to anyone who wants it, and
// then sleep until they are needed. A process that was forked starts threads of its own.
//
// The threads belong to the network from the constructor to the destructor; a thread has one Crew at a time.
class Crew {
 public:
  // `count` threads, one of which is the caller. Wakes those that sleep; starts them at the first call, and again
  // when their number changes.
  explicit Crew(int count);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  Threads threads() const;

 private:
  int count_;
};

}  // namespace effkernels::cpu
