#pragma once

#include <cstddef>

#include "cpu/runtime/clock.h"

namespace effkernels::binding {

struct NetworkTicks;

// Notes what the steps of one call of a network take, if this thread was asked to (record_steps); else it
// does nothing.
class NetworkClock {
 public:
  NetworkClock();
  ~NetworkClock();
  NetworkClock(const NetworkClock&) = delete;
  NetworkClock& operator=(const NetworkClock&) = delete;

  // Where the `threads` workers of a step note their time; null where nobody asked. A step may run again, for
  // other images.
  cpu::WorkTicks* begin(size_t step, int threads);
  void end(size_t step);

 private:
  NetworkTicks* call_;
};

}  // namespace effkernels::binding
