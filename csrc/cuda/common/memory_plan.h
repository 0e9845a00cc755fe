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

inline int64_t aligned_bytes(const BufferUse& buffer) {
  return (buffer.bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
}

// Buffers that are in use at the same time do not overlap. In this order, each lies as low as it can.
inline MemoryPlan place_in_order(const std::vector<BufferUse>& buffers, const std::vector<size_t>& order) {
  MemoryPlan plan{std::vector<int64_t>(buffers.size())};
  std::vector<size_t> placed;  // by offset
  for (const size_t i : order) {
    const int64_t bytes = aligned_bytes(buffers[i]);
    int64_t offset = 0;
    for (const size_t j : placed) {
      if (buffers[j].last < buffers[i].first || buffers[i].last < buffers[j].first) continue;
      if (plan.offsets[j] >= offset + bytes) break;
      offset = std::max(offset, plan.offsets[j] + aligned_bytes(buffers[j]));
    }
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; }),
                  i);
  }
  return plan;
}

// The better of two plans: the largest buffers first, so that smaller ones fill the gaps; or in the order in
// which they are used.
inline MemoryPlan plan_memory(const std::vector<BufferUse>& buffers) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return buffers[a].first < buffers[b].first; });
  MemoryPlan as_used = place_in_order(buffers, order);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  MemoryPlan by_size = place_in_order(buffers, order);
  return as_used.bytes < by_size.bytes ? as_used : by_size;
}

}  // namespace effkernels::cuda
