// What the driver knows of a device: its memory, its clocks, its limits. The tests have a stand-in.

#include "cuda/common/device_memory.h"

#include <cuda_runtime.h>

#include <atomic>
#include <iterator>

#include "cuda/common/device.cuh"

namespace effkernels::cuda {
namespace {

// Of the rate that clock and bus allow, what copies reach: an H100's memory allows 3.35 TB/s, and 2.9 were
// measured.
constexpr double kReached = 0.86;
// Bytes that a multiprocessor exchanges with the L2 cache in a cycle while all of them do. An H100's 132 at
// 1.98 GHz would have 5.2 TB/s then; not measured.
constexpr double kL2BytesPerCycle = 20.0;

constexpr cudaDeviceAttr kAsked[] = {cudaDevAttrL2CacheSize,
                                     cudaDevAttrMemoryClockRate,
                                     cudaDevAttrGlobalMemoryBusWidth,
                                     cudaDevAttrMultiProcessorCount,
                                     cudaDevAttrClockRate,
                                     cudaDevAttrComputeCapabilityMajor,
                                     cudaDevAttrComputeCapabilityMinor,
                                     cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                     cudaDevAttrMaxSharedMemoryPerMultiprocessor};

// FLOPs of a multiprocessor in a cycle, from NVIDIA's data sheets: rate / (multiprocessors * clock). Of
// several devices those of the fastest; GeForce cards have half in products.
struct FlopsPerCycle {
  int major, minor;  // compute capability: from this one on
  double product, vector;
};
constexpr FlopsPerCycle kFlopsPerCycle[] = {
    {7, 0, 1024.0, 128.0},   // V100: 125 TFLOP/s
    {7, 5, 1024.0, 128.0},   // T4: 65
    {8, 0, 2048.0, 128.0},   // A100: 312
    {8, 6, 1024.0, 256.0},   // A10: 125
    {8, 9, 1024.0, 256.0},   // L40S: 362
    {9, 0, 4096.0, 256.0},   // H100: 989
    {10, 0, 8192.0, 256.0},  // B200: 2250
    {12, 0, 1024.0, 256.0},  // RTX PRO 6000: 504
};
// Of what the highest clock allows, what a product reaches: an H100's 132 multiprocessors at 1.98 GHz would
// have 1070 TFLOP/s, and 766 were measured.
constexpr double kReachedByProducts = 0.72;

// An attribute, at least 1 once it is known; 0 if the device does not say.
int attribute(int device, int which) {
  constexpr int kDevices = 64;
  static std::atomic<int> known[kDevices][std::size(kAsked)];
  int value = device < kDevices ? known[device][which].load(std::memory_order_relaxed) : 0;
  if (value != 0) return value;
  if (cudaDeviceGetAttribute(&value, kAsked[which], device) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  if (device < kDevices) known[device][which].store(value, std::memory_order_relaxed);
  return value;
}

}  // namespace

DeviceLimits device_limits() {
  int device = 0;
  cudaGetDevice(&device);
  const DeviceLimits found{attribute(device, 3), attribute(device, 7), attribute(device, 8)};
  // Without a device the launch that follows says so.
  return found.multiprocessors > 0 ? found : DeviceLimits{1, kSharedBytes, kSharedBytes};
}

DeviceMemory device_memory() {
  int device = 0;
  cudaGetDevice(&device);
  const auto asked = [device](int which) { return static_cast<double>(attribute(device, which)); };
  // Clocks are in kHz. Memory moves data twice in a cycle; its bus is counted in bits.
  const double memory = asked(1) * 1e-3 * 2.0 * asked(2) / 8.0;
  const double l2 = asked(3) * asked(4) * 1e-3 * kL2BytesPerCycle;
  return {attribute(device, 0), kReached * memory, l2};
}

DeviceArithmetic device_arithmetic() {
  int device = 0;
  cudaGetDevice(&device);
  const double cycles = 1e3 * attribute(device, 3) * static_cast<double>(attribute(device, 4));
  const int major = attribute(device, 5), minor = attribute(device, 6);
  DeviceArithmetic found{0.0, 0.0};
  for (const FlopsPerCycle& row : kFlopsPerCycle) {
    if (row.major > major || (row.major == major && row.minor > minor)) break;
    found = {kReachedByProducts * cycles * row.product, cycles * row.vector};
  }
  return found;
}

}  // namespace effkernels::cuda
