#pragma once

#include <cstdint>

namespace effkernels::binding {

// Memory for one call. Each thread keeps its own between calls, up to a limit: allocators give large blocks
// back to the system, and a fresh one costs a page fault for every 4 KB (a tenth of B0's time).
class Workspace {
 public:
  // On a cache line. Uninitialised; until the next Workspace of this thread it must be the only one.
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
