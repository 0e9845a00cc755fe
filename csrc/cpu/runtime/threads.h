#pragma once

#include <cstdint>

namespace effkernels::cpu {

// A pool of threads that somebody else owns. `run` calls body(context, w) for each w below `workers`, once,
// on any thread, and returns when all have.
struct Threads {
  int count;
  void (*run)(int workers, void (*body)(const void* context, int worker), const void* context);
};

}  // namespace effkernels::cpu
