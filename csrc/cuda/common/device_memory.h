#pragma once

// How fast a device's memory is, how large and fast its L2 cache; and how fast it computes.

#include <cstdint>

namespace effkernels::cuda {

struct DeviceMemory {
  int64_t l2_bytes;
  double memory_rate, l2_rate;  // bytes a microsecond, read or written; 0 where the device does not say
};

// Of the current device; asked once for each.
DeviceMemory device_memory();

struct DeviceArithmetic {
  double product_rate;  // FLOPs a second of products of 16-bit elements, added in float32
  double vector_rate;   // of multiply-adds of float32; 0 where the device does not say
};

// Of the current device.
DeviceArithmetic device_arithmetic();

}  // namespace effkernels::cuda
