// Dependent launches in the host shim, and what memory a launch may touch.

#include "scheduler.h"

#ifdef EFFKERNELS_SANITIZED
#include <sanitizer/asan_interface.h>
#else
// Without AddressSanitizer there is nothing that could be told.
#define ASAN_POISON_MEMORY_REGION(begin, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#endif

namespace effkernels::host_shim {
namespace {

using cuda::MemoryRange;

struct Watched {
  std::vector<MemoryRange> all, allowed;
  bool visible = true;  // of the block that runs: what the launch before has written
  bool asked = false, lets_begin = false;
};

Watched watched;

void poison() {
  for ([[maybe_unused]] const MemoryRange& range : watched.all) {
    ASAN_POISON_MEMORY_REGION(range.begin, range.bytes);
  }
}

void unpoison([[maybe_unused]] const std::vector<MemoryRange>& ranges) {
  for ([[maybe_unused]] const MemoryRange& range : ranges) {
    ASAN_UNPOISON_MEMORY_REGION(range.begin, range.bytes);
  }
}

}  // namespace

void start_block(const cuda::Stream& stream) {
  watched.visible = !stream.next_is_dependent();
  watched.asked = watched.lets_begin = false;
  poison();
  if (watched.visible) unpoison(watched.allowed);
}

void wait_for_previous_launch(const Where& where) {
  watched.asked = true;
  wait_until([] { return watched.visible; }, "the launch before: " + place_of(where));
}

void let_next_launch_begin() { watched.lets_begin = true; }

bool show_previous_launch() {
  if (watched.visible || !watched.asked) return false;
  watched.visible = true;
  unpoison(watched.allowed);
  return true;
}

std::string waits_left(const cuda::Stream& stream) {
  if (stream.sequence() == nullptr) return {};
  if (!watched.asked) return "a block ends without waiting for the launch before";
  return watched.lets_begin ? "" : "a block does not let the next launch begin";
}

void check_copy(const void* address, const std::string& place) {
  if (watched.visible) return;
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const MemoryRange& range : watched.all) {
    if (at - reinterpret_cast<uintptr_t>(range.begin) < static_cast<uintptr_t>(range.bytes)) {
      fail("a copy of what the launch before writes is started without waiting for it: " + place);
    }
  }
}

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

void watch_memory(const MemoryRange* ranges, int count) {
  host_shim::unpoison(host_shim::watched.all);
  host_shim::watched.all.assign(ranges, ranges + count);
  host_shim::watched.allowed.clear();
}

void allow_memory(const MemoryRange* ranges, int count) {
  host_shim::watched.allowed.assign(ranges, ranges + count);
}

}  // namespace effkernels::cuda
