#include "binding/cpu/workspace.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace effkernels::binding {
namespace {

constexpr size_t kPage = size_t{2} << 20;       // a huge page
constexpr size_t kMostKept = size_t{64} << 20;  // bytes that a thread keeps

float* allocate(size_t bytes) {
  void* memory = std::aligned_alloc(kPage, bytes);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<float*>(memory);
}

struct Kept {
  float* data = nullptr;
  size_t bytes = 0;

  ~Kept() { std::free(data); }
};

thread_local Kept kept;

}  // namespace

Workspace::Workspace(int64_t floats) {
  const size_t wanted = static_cast<size_t>(floats < 1 ? 1 : floats) * sizeof(float);
#if defined(__SANITIZE_ADDRESS__)
  // Exactly the requested size, filled with NaN, so that tests notice a kernel that writes past its end
  // or reads before it writes.
  data_ = static_cast<float*>(std::malloc(wanted));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_, 0xff, wanted);
  own_ = true;
#else
  const size_t bytes = (wanted + kPage - 1) / kPage * kPage;
  own_ = bytes > kMostKept;
  if (own_) {
    data_ = allocate(bytes);
    return;
  }
  if (kept.bytes < bytes) {
    std::free(kept.data);
    kept.data = nullptr;
    kept.bytes = 0;
    kept.data = allocate(bytes);
    kept.bytes = bytes;
  }
  data_ = kept.data;
#endif
}

Workspace::~Workspace() {
  if (own_) std::free(data_);
}

}  // namespace effkernels::binding
