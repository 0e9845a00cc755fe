#pragma once

#include <cstdint>

namespace effkernels::binding {

// Memory for one call. Each thread keeps its memory between calls, up to a limit: allocators return large
// blocks to the system, and a new block costs a page fault for every 4 KB (a tenth of B0's time).
class Workspace {
 public:
  // On a cache line. Uninitialised. Valid until the next Workspace of this thread; only one may exist at a
  // time.
  explicit Workspace(int64_t floats);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  float* data() const { return data_; }

 private:
  float* data_;
  bool own_;
};

}  // namespace effkernels::binding
