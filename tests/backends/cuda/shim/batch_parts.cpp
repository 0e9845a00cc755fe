// The memory of the shim's device: an H100's, until a test sets another; how fast it computes; and how blocks
// run in parts on a device.

#include "cuda/common/device_memory.h"

#include "cuda/common/batch_parts.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace effkernels::cuda {
namespace {

constexpr DeviceMemory kH100{50 << 20, 2.9e6, 5.2e6};
DeviceMemory memory = kH100;

}  // namespace

DeviceMemory device_memory() { return memory; }

DeviceArithmetic device_arithmetic() { return {7.7e14, 6.7e13}; }

// From now on; an H100's where it has no cache.
EXPORT void effkernels_set_memory(int64_t l2_bytes, double memory_rate, double l2_rate) {
  memory = l2_bytes == 0 ? kH100 : DeviceMemory{l2_bytes, memory_rate, l2_rate};
}

// `numbers` are images; bytes of the input, of the expanded map, after the depthwise convolution, of the
// result; whether there is a residual; launches; and the bytes to stay within.
EXPORT int64_t effkernels_images_of_a_part(const int64_t* numbers) {
  const BlockWork block{numbers[0],
                        numbers[1],
                        numbers[2],
                        numbers[3],
                        numbers[4],
                        numbers[5] != 0,
                        static_cast<int>(numbers[6])};
  return images_of_a_part(block, numbers[7], memory);
}

}  // namespace effkernels::cuda
