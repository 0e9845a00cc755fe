#pragma once

// Where in one piece of memory the buffers of a sequence of calls lie.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace effkernels::cuda {

// Bytes that calls number `first` to `last` read or write.
struct BufferUse {
  int64_t bytes;
  int first, last;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;  // of each buffer, in bytes
  int64_t bytes = 0;             // of all
};

// What every buffer begins at a multiple of.
constexpr int64_t kBufferAlignment = 256;

// Buffers that are in use at the same time do not overlap. The largest comes first, and each lies as low as
// it can: so the two largest maps decide how much memory there is, and smaller ones fill the gaps.
inline MemoryPlan plan_memory(const std::vector<BufferUse>& buffers) {
  MemoryPlan plan{std::vector<int64_t>(buffers.size())};
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (const size_t i : order) {
    const int64_t bytes = (buffers[i].bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
    int64_t offset = 0;
    for (const size_t j : placed) {
      if (buffers[j].last < buffers[i].first || buffers[i].last < buffers[j].first) continue;
      if (plan.offsets[j] >= offset + bytes) break;
      const int64_t end =
          plan.offsets[j] + (buffers[j].bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
      offset = std::max(offset, end);
    }
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; }),
                  i);
  }
  return plan;
}

}  // namespace effkernels::cuda
