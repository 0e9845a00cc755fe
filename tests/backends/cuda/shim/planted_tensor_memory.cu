// Kernels that copy boxes of a tensor through shared memory, with one mistake each or without; see
// planted.cu.

#include <cstring>

#include "cuda/common/elements.cuh"
#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {

const char* run_planted_with_warpgroups(const char* name, float* out);

namespace {

constexpr int kThreads = 64;
constexpr int kSide = 8;                                  // of a tensor of floats, and of its box
constexpr int kBoxBytes = kSide * kSide * sizeof(float);  // 256
constexpr int64_t kRowBytes = kSide * int64_t{sizeof(float)};

enum class Mistake {
  kNone,
  kNoWait,
  kWarpWithoutWait,
  kFewBytes,
  kNobodyArrives,
  kManyArrivals,
  kUnfencedMbarrier,
  kUnmadeMbarrier,
  kNoSwizzle,
  kMisaligned,
  kNoFence,
  kOverwritten,
  kStoreNotWaited,
};

// A block's shared memory: an mbarrier, and two boxes from the next multiple of 128 bytes on.
EFFKERNELS_DEVICE uint32_t mbarrier() { return shared_address(shared_memory()); }
EFFKERNELS_DEVICE uint32_t box(int i) {
  return round_up(mbarrier() + 8, 128u) + static_cast<uint32_t>(i * kBoxBytes);
}
constexpr int64_t kSharedSize = 128 + 8 + 2 * kBoxBytes;

EFFKERNELS_DEVICE float* element(int i, uint32_t at, bool swizzle) {
  const uint32_t place = at + static_cast<uint32_t>(i) * 4;
  const uint32_t found = swizzle ? swizzled(Swizzle::k32Bytes, place) : place;
  return reinterpret_cast<float*>(shared_memory() + (found - mbarrier()));
}

// Adds 1 to a box that lies partly outside of `from`, and writes it where it lies partly outside of `to`.
EFFKERNELS_KERNEL(kThreads, 1)
boxes_kernel(EFFKERNELS_GRID_CONSTANT TensorMap from, EFFKERNELS_GRID_CONSTANT TensorMap to,
             Mistake mistake) {
  const int i = thread_index();
  if (i == 0) {
    if (mistake != Mistake::kUnmadeMbarrier) mbarrier_init(mbarrier(), 1);
    if (mistake != Mistake::kUnfencedMbarrier) mbarrier_init_fence();
    if (mistake != Mistake::kNobodyArrives) {
      mbarrier_arrive_expecting(mbarrier(), mistake == Mistake::kFewBytes ? kBoxBytes / 2 : kBoxBytes);
      tma_load(mistake == Mistake::kMisaligned ? box(0) + 16 : box(0), from, 2, -1, mbarrier());
      if (mistake == Mistake::kManyArrivals) {
        mbarrier_arrive(mbarrier());
      }
    }
  }
  barrier();
  const bool waits = mistake != Mistake::kNoWait && (mistake != Mistake::kWarpWithoutWait || i < kWarp);
  if (waits) mbarrier_wait(mbarrier(), 0);
  *element(i, box(1), true) = *element(i, box(0), mistake != Mistake::kNoSwizzle) + 1.0f;
  fence_for_tma();
  barrier();
  if (i != 0) return;
  tma_store(to, box(1), 1, 3);
  commit_group();
  if (mistake == Mistake::kOverwritten) *element(9, box(1), true) = 5.0f;
  if (mistake != Mistake::kStoreNotWaited) wait_for_groups_to_read<0>();
}

// Eight rows of 16 halves, i / 8 in element i, that go through registers.
EFFKERNELS_KERNEL(kThreads, 1)
matrices_kernel(EFFKERNELS_GRID_CONSTANT TensorMap to, Mistake mistake) {
  const int lane = thread_index();
  if (lane >= kWarp) return;
  Half* rows = reinterpret_cast<Half*>(element(0, box(0), false));
  for (int i = lane; i < 128; i += kWarp) narrow(static_cast<float>(i) / 8.0f, rows[i]);
  shuffle_xor(0.0f, 1);  // all have written
  // The left half twice, and the right one twice. Of these the second ones go to the other box.
  const uint32_t row = static_cast<uint32_t>(lane % 8 * 32 + lane / 8 % 2 * 16);
  uint32_t halves[4];
  load_matrices(box(0) + row, halves);
  store_matrices(lane < 16 ? box(1) + row : box(0) + row, halves);
  if (mistake != Mistake::kNoFence) fence_for_tma();
  shuffle_xor(0.0f, 1);
  if (lane != 0) return;
  tma_store(to, box(1), 0, 0);
  commit_group();
  wait_for_groups<0>();
}

// Two products of 8 terms of rows of 16 elements with each other.
EFFKERNELS_KERNEL(kThreads, 1) short_products_kernel(float* out) {
  Half* rows = reinterpret_cast<Half*>(shared_memory());
  const int thread = thread_index(), lane = thread % kWarp;
  for (int i = thread; i < 128; i += kThreads) narrow(static_cast<float>(i * 37 % 17 - 8) / 8.0f, rows[i]);
  barrier();
  float sums[4] = {};
  for (int half = 0; half < 2; ++half) {
    uint32_t ab[2];
    load_matrices(shared_address(rows + lane % 8 * 16 + half * 8), ab);
    multiply_add(Half{}, ab, ab[0], sums, sums);
  }
  if (thread < kWarp) {
    for (int i = 0; i < 2; ++i) out[2 * lane + i] = sums[i];
  }
}

struct Planted {
  const char* name;
  Mistake mistake;
};

constexpr Planted kBoxes[] = {
    {"boxes", Mistake::kNone},
    {"box not waited for", Mistake::kNoWait},
    {"box not waited for by one warp", Mistake::kWarpWithoutWait},
    {"fewer bytes expected", Mistake::kFewBytes},
    {"nobody arrives", Mistake::kNobodyArrives},
    {"too many arrive", Mistake::kManyArrivals},
    {"mbarrier not fenced", Mistake::kUnfencedMbarrier},
    {"mbarrier not made", Mistake::kUnmadeMbarrier},
    {"swizzle forgotten", Mistake::kNoSwizzle},
    {"misaligned box", Mistake::kMisaligned},
    {"overwritten before it is stored", Mistake::kOverwritten},
    {"store not waited for", Mistake::kStoreNotWaited},
};

// Of an 8x8 tensor of floats, or of halves of twice as many columns.
const char* map_of(const void* data, Dtype dtype, TensorMap& map) {
  const int columns = static_cast<int>(kRowBytes) / size_of(dtype);
  const Swizzle swizzle = dtype == Dtype::kFloat ? Swizzle::k32Bytes : Swizzle::kNone;
  return encode({data, dtype, 2, {columns, kSide}, {0, kRowBytes}, {columns, kSide}, swizzle}, map);
}

}  // namespace

// As `effkernels_run_planted`.
const char* run_planted_with_tensor_memory(const char* name, float* out) {
  alignas(16) static float source[kSide * kSide];
  for (int i = 0; i < kSide * kSide; ++i) source[i] = static_cast<float>(i);
  TensorMap from, to;
  const bool matrices = std::strcmp(name, "stored matrices") == 0;
  const bool unfenced = std::strcmp(name, "stored and not fenced") == 0;
  if (std::strcmp(name, "short products") == 0) {
    return launch(short_products_kernel, {"planted", 1, kThreads, 256}, nullptr, out);
  }
  if (const char* error = map_of(source, Dtype::kFloat, from)) return error;
  if (const char* error = map_of(out, matrices || unfenced ? Dtype::kHalf : Dtype::kFloat, to)) return error;
  if (matrices || unfenced) {
    const Mistake mistake = unfenced ? Mistake::kNoFence : Mistake::kNone;
    return launch(matrices_kernel, {"planted", 1, kThreads, kSharedSize}, nullptr, to, mistake);
  }
  for (const Planted& planted : kBoxes) {
    if (std::strcmp(planted.name, name) == 0) {
      return launch(boxes_kernel, {"planted", 1, kThreads, kSharedSize}, nullptr, from, to, planted.mistake);
    }
  }
  return run_planted_with_warpgroups(name, out);
}

}  // namespace effkernels::cuda
