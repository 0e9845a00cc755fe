// Kernels with one mistake each, and one without: what the host shim must tell apart.

#include <cstring>

#include "cuda/common/elements.cuh"
#include "cuda/common/warpgroup.cuh"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace effkernels::cuda {

const char* run_planted_with_tensor_memory(const char* name, float* out);
const char* run_planted_with_clusters(const char* name, float* out);
const char* run_planted_dependent(const char* name, float* out);

namespace {

constexpr int kThreads = 64;

EFFKERNELS_DEVICE float* shared_floats() { return reinterpret_cast<float*>(shared_memory()); }

// Each thread takes over its neighbour's value.
EFFKERNELS_KERNEL(kThreads, 1) right_kernel(float* out) {
  const int i = thread_index();
  shared_floats()[i] = static_cast<float>(i);
  barrier();
  out[i] = shared_floats()[(i + 1) % kThreads];
}

EFFKERNELS_KERNEL(kThreads, 1) missed_barrier_kernel(float* out) {
  const int i = thread_index();
  if (i != 7) barrier();
  out[i] = 1.0f;
}

EFFKERNELS_KERNEL(kThreads, 1) two_barriers_kernel(float* out) {
  const int i = thread_index();
  if (i < kWarp) {
    barrier();
  } else {
    barrier();
  }
  out[i] = 1.0f;
}

EFFKERNELS_KERNEL(kThreads, 1) missed_exchange_kernel(float* out) {
  const int i = thread_index();
  out[i] = i == 3 ? 0.0f : shuffle_xor(1.0f, 1);
}

EFFKERNELS_KERNEL(kThreads, 1) unwritten_kernel(float* out) {
  const int i = thread_index();
  if (i != 5) shared_floats()[i] = 1.0f;
  barrier();
  out[i] = shared_floats()[i];
}

// Without a barrier between write and read, and with none between read and write.
EFFKERNELS_KERNEL(kThreads, 1) race_kernel(float* out) {
  const int i = thread_index();
  shared_floats()[i] = 1.0f;
  barrier();
  const float neighbour = shared_floats()[(i + 1) % kThreads];
  shared_floats()[i] = neighbour + 1.0f;
  out[i] = neighbour;
}

EFFKERNELS_KERNEL(kThreads, 1) not_waited_kernel(float* out) {
  copy_16_bytes(shared_memory() + 16 * (thread_index() % 16), out, true);
  barrier();
}

// Copies 16 floats of `out` in a first group and 16 in a second; returns what was there after each wait.
EFFKERNELS_KERNEL(kThreads, 1) groups_kernel(float* out) {
  const int i = thread_index(), first = i % 4 * 4, second = 16 + first;
  copy_16_bytes(shared_floats() + first, out + first, true);
  end_copy_group();
  copy_16_bytes(shared_floats() + second, out + second, true);
  end_copy_group();
  wait_for_copy_groups(1);
  barrier();
  const float early = shared_floats()[i % 32];
  barrier();
  wait_for_copy_groups(0);
  barrier();
  out[i] = i < 32 ? early : shared_floats()[i % 32];
}

EFFKERNELS_KERNEL(kThreads, 1) beyond_shared_kernel(float* out) {
  const int i = thread_index();
  shared_floats()[i + 1] = 1.0f;
  barrier();
  out[i] = shared_floats()[i];
}

EFFKERNELS_KERNEL(kThreads, 1) beyond_global_kernel(float* out) { out[thread_index() + 1] = 1.0f; }

EFFKERNELS_KERNEL(kThreads, 1) misaligned_kernel(float* out) {
  float x[4];
  load(out + 1, true, 4, x);
  out[thread_index()] = x[0];
}

// Rows of 16 elements, eighths.
EFFKERNELS_DEVICE const Half* eight_rows() {
  Half* rows = reinterpret_cast<Half*>(shared_memory());
  for (int i = thread_index(); i < 128; i += kThreads) {
    narrow(static_cast<float>(i * 37 % 17 - 8) / 8.0f, rows[i]);
  }
  barrier();
  return rows;
}

// The products of eight rows with each other.
EFFKERNELS_DEVICE void multiply(const Half* rows, float* out) {
  const int lane = thread_index() % kWarp;
  uint32_t a[4], b[4];
  load_matrices(rows + lane % 8 * 16 + lane / 16 * 8, a);
  load_matrices(rows + lane % 8 * 16 + lane / 8 % 2 * 8, b);
  float sums[4] = {};
  multiply_add<Half>(a, b[0], b[1], sums);
  if (thread_index() < kWarp) {
    for (int i = 0; i < 2; ++i) out[2 * lane + i] = sums[i];
  }
}

EFFKERNELS_KERNEL(kThreads, 1) products_kernel(float* out) { multiply(eight_rows(), out); }

EFFKERNELS_KERNEL(kThreads, 1) missed_product_kernel(float* out) {
  const Half* rows = eight_rows();
  if (thread_index() != 3) multiply(rows, out);
}

EFFKERNELS_KERNEL(kThreads, 1) misaligned_row_kernel(float* out) { multiply(eight_rows() + 4, out); }

struct Planted {
  const char* name;
  void (*kernel)(float*);
};

constexpr Planted kPlanted[] = {
    {"right", right_kernel},
    {"missed barrier", missed_barrier_kernel},
    {"two barriers", two_barriers_kernel},
    {"missed exchange", missed_exchange_kernel},
    {"unwritten", unwritten_kernel},
    {"race", race_kernel},
    {"copy not waited for", not_waited_kernel},
    {"groups of copies", groups_kernel},
    {"beyond shared memory", beyond_shared_kernel},
    {"beyond global memory", beyond_global_kernel},
    {"misaligned", misaligned_kernel},
    {"products", products_kernel},
    {"missed product", missed_product_kernel},
    {"misaligned row", misaligned_row_kernel},
};

}  // namespace
}  // namespace effkernels::cuda

// For the worker of the tests, which calls them through ctypes. `out` has 64 floats.
EXPORT const char* effkernels_run_planted(const char* name, float* out) {
  using namespace effkernels::cuda;
  for (const Planted& planted : kPlanted) {
    if (std::strcmp(planted.name, name) == 0) {
      return launch(planted.kernel, {"planted", 1, kThreads, kThreads * 4}, nullptr, out);
    }
  }
  if (std::strncmp(name, "dependent", 9) == 0) return run_planted_dependent(name, out);
  const bool cluster = std::strncmp(name, "cluster", 7) == 0;
  return (cluster ? run_planted_with_clusters : run_planted_with_tensor_memory)(name, out);
}

EXPORT void effkernels_set_seed(uint64_t seed) { effkernels::host_shim::set_seed(seed); }

// The device from now on: its multiprocessors, and the bytes of shared memory that a block can ask for. The
// small one of the shim where there are no multiprocessors.
EXPORT void effkernels_set_device(int multiprocessors, int64_t shared_bytes) {
  using namespace effkernels;
  const cuda::DeviceLimits limits{multiprocessors, shared_bytes, shared_bytes + cuda::kReservedBytes};
  host_shim::set_device(multiprocessors == 0 ? nullptr : &limits);
}

// Whether kernels with products of warpgroups are there from now on, and how many such products there were.
EXPORT void effkernels_have_warpgroups(bool there) {
  effkernels::host_shim::warpgroup_products_there = there;
}
EXPORT int64_t effkernels_warpgroup_products() { return effkernels::host_shim::warpgroup_products_started; }

// float32 to float16 and back, as the kernels convert.
EXPORT void effkernels_convert(const float* from, uint16_t* half, uint16_t* bfloat16, int64_t count) {
  using namespace effkernels;
  for (int64_t i = 0; i < count; ++i) {
    Half h;
    BFloat16 b;
    cuda::narrow(from[i], h);
    cuda::narrow(from[i], b);
    half[i] = h.bits;
    bfloat16[i] = b.bits;
  }
}
