#pragma once

// How fast a device's memory is, and how large and fast its L2 cache.

#include <cstdint>

namespace effkernels::cuda {

struct DeviceMemory {
  int64_t l2_bytes;
  double memory_rate, l2_rate;  // bytes a microsecond, read or written; 0 where the device does not say
};

// Of the current device; asked once for each.
DeviceMemory device_memory();

}  // namespace effkernels::cuda
