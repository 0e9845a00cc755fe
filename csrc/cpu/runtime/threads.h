#pragma once

#include <cstdint>

namespace effkernels::cpu {

struct WorkTicks;

// A pool of threads owned by the caller. `run` calls body(context, w) once for each w below `workers`, on the
// calling thread and on others, and returns when all calls have returned; it is given `pool`. `ticks`: where
// each of `count` workers notes what it spends its time on (see clock.h); or null.
struct Threads {
  int count;
  void (*run)(void* pool, int workers, void (*body)(const void* context, int worker), const void* context);
  void* pool = nullptr;
  WorkTicks* ticks = nullptr;
};

}  // namespace effkernels::cpu
