#pragma once

#include <cstdint>

namespace effkernels::cpu {

// A pool of threads owned by the caller. `run` calls body(context, w) once for each w below `workers`,
// on any thread, and returns when all calls have returned.
struct Threads {
  int count;
  void (*run)(int workers, void (*body)(const void* context, int worker), const void* context);
};

}  // namespace effkernels::cpu
