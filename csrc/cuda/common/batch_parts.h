#pragma once

// How many images of a batch a block of a network runs at a time, one part after the other. Its expanded map
// and the depthwise result exist for one part at a time: they may stay in the L2 cache from the kernel that
// writes them to the one that reads them, and take less memory. But each part takes launches of its own.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/common/device_memory.h"

namespace effkernels::cuda {

// A block. Bytes are those of the maps of one image.
struct BlockWork {
  int64_t images;
  int64_t in, expanded, depthwise, out;  // `expanded` is 0 where nothing is expanded
  bool residual;
  int launches;

  int64_t all() const { return in + expanded + depthwise + out; }
};

// Microseconds that a launch takes while the device empties and fills again. On an H100 a dependent launch in
// a graph took 1.2 with half a megabyte read and written.
constexpr double kLaunchTime = 2.0;
// Of the L2 cache, what one part's maps may take: it also holds weights, and what is on its way.
constexpr double kShareOfL2 = 0.5;
// Parts for the cache must promise to be faster by this much, since the rule is a model.
constexpr double kFasterAtLeast = 1.1;
// Parts that save memory may make a block slower by this much.
constexpr double kSlowerAtMost = 1.06;
constexpr int64_t kMostPartsForMemory = 4;
// Of the bytes that layer by layer are there at the same time: a block's input and its largest map twice.
constexpr double kShareOfLayers = 0.35;

// Microseconds of a block in parts of `part` images, by the bytes that it moves.
inline double block_time(const BlockWork& block, int64_t part, const DeviceMemory& memory) {
  const auto images = static_cast<double>(block.images);
  const double outside = images * static_cast<double>(block.in * (1 + block.residual) + block.out);
  const double between = images * static_cast<double>(2 * (block.expanded + block.depthwise));
  const bool cached =
      static_cast<double>(part * block.all()) <= kShareOfL2 * static_cast<double>(memory.l2_bytes);
  const int64_t parts = (block.images + part - 1) / part;
  return outside / memory.memory_rate + between / (cached ? memory.l2_rate : memory.memory_rate) +
         static_cast<double>(parts * block.launches) * kLaunchTime;
}

// Bytes of a block's maps that are there at the same time.
inline int64_t block_bytes(const BlockWork& block, int64_t part) {
  if (part < block.images) {
    return block.images * (block.in + block.out) + part * (block.expanded + block.depthwise);
  }
  const int64_t later = block.depthwise + (block.residual ? block.in : 0);
  const int64_t first = block.in + (block.expanded > 0 ? block.expanded : block.depthwise);
  return block.images * std::max({first, block.expanded + later, later + block.out});
}

// What the blocks of a network should stay within.
inline int64_t bytes_to_stay_within(const std::vector<BlockWork>& blocks) {
  int64_t layers = 0;
  for (const BlockWork& block : blocks) {
    const int64_t widest = std::max(block.expanded, block.depthwise);
    layers = std::max(layers, block.images * (block.in + 2 * widest));
  }
  return static_cast<int64_t>(kShareOfLayers * static_cast<double>(layers));
}

// Images of a part: all of them, or fewer. `most_bytes`: what the block should stay within if that costs
// little.
inline int64_t images_of_a_part(const BlockWork& block, int64_t most_bytes, const DeviceMemory& memory) {
  if (memory.memory_rate <= 0.0 || memory.l2_rate <= 0.0) return block.images;
  const auto in_parts = [&](int64_t parts) { return (block.images + parts - 1) / parts; };
  const double whole = block_time(block, block.images, memory);
  int64_t part = block.images;
  const auto fitting = static_cast<int64_t>(kShareOfL2 * static_cast<double>(memory.l2_bytes)) / block.all();
  if (fitting >= 1 && fitting < block.images) {
    const int64_t even = in_parts(in_parts(fitting));
    if (block_time(block, even, memory) * kFasterAtLeast <= whole) part = even;
  }
  for (int64_t parts = 2; parts <= kMostPartsForMemory && block_bytes(block, part) > most_bytes; ++parts) {
    const int64_t smaller = std::min(part, in_parts(parts));
    if (block_time(block, smaller, memory) <= kSlowerAtMost * whole) part = smaller;
  }
  return part;
}

}  // namespace effkernels::cuda
