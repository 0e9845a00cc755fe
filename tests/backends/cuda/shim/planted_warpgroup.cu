// Kernels with products of a warpgroup, with one mistake each or without; see planted.cu.

#include <cstring>

#include "cuda/common/elements.cuh"
#include "cuda/common/warpgroup.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kRows = 64, kColumns = 32, kTerms = 64, kRowBytes = 2 * kTerms;
constexpr int64_t kBytes = 1024 + (kRows + kColumns + 8) * kRowBytes;

enum class Mistake {
  kNone,
  kRegisters,  // none either: the first operand is in registers
  kNoFence,
  kNoWait,
  kNotEnded,
  kOverwritten,
  kMissed,
  kMisaligned,
  kNoSwizzle,
  kNamedBarrier,
};

// Rows of eighths, swizzled as TMA would.
EFFKERNELS_DEVICE void write_rows(uint32_t at, int rows, int factor) {
  for (int i = thread_index(); i < rows * kTerms; i += kWarpgroup) {
    const int row = i / kTerms, k = i % kTerms;
    const auto place = at + static_cast<uint32_t>(row * kRowBytes + k * 2);
    Half* to = static_cast<Half*>(shared_at(swizzled(Swizzle::k128Bytes, place)));
    narrow(static_cast<float>((row * factor + k * 11) % 17 - 8) / 8.0f, *to);
  }
}

// out[row] = a[row] * b[row % kColumns]
EFFKERNELS_KERNEL(kWarpgroup, 1) warpgroup_kernel(float* out, Mistake mistake) {
  const uint32_t a = round_up(shared_address(shared_memory()), 1024u), b = a + kRows * kRowBytes;
  const int thread = thread_index(), warp = thread / kWarp, lane = thread % kWarp;
  write_rows(a, kRows, 37);
  write_rows(b, kColumns + 8, 5);
  fence_for_tma();
  barrier();
  if (mistake != Mistake::kNamedBarrier || warp != 2) named_barrier(3, kWarpgroup);
  float sums[kColumns / 2];
  if (mistake != Mistake::kNoFence) warpgroup_fence();
  for (int i = 0; i < kTerms / 16; ++i) {
    if (mistake == Mistake::kMissed && warp == 1 && i == 3) continue;
    const uint64_t rows = operand_at(mistake == Mistake::kMisaligned ? b + 128 : b) + i * kNextTerms;
    const uint64_t swizzles = mistake == Mistake::kNoSwizzle ? uint64_t{3} << 62 : 0;
    if (mistake == Mistake::kRegisters) {
      const uint32_t named =
          a + static_cast<uint32_t>((warp * 16 + lane % 16) * kRowBytes + lane / 16 * 16 + i * 32);
      uint32_t words[4];
      load_matrices(swizzled(Swizzle::k128Bytes, named), words);
      WarpgroupProducts<Half, kColumns>::start(sums, words, rows, i > 0);
    } else {
      WarpgroupProducts<Half, kColumns>::start(sums, operand_at(a) + i * kNextTerms, rows & ~swizzles, i > 0);
    }
  }
  if (mistake != Mistake::kNotEnded) end_products();
  if (mistake == Mistake::kOverwritten && thread == 0) *static_cast<float*>(shared_at(b)) = 5.0f;
  if (mistake != Mistake::kNoWait) wait_for_products<0>();
  for (int i = 0; i < kColumns / 2; ++i) {
    const int row = warp * 16 + lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (column == row % kColumns) out[row] = sums[i];
  }
}

struct Planted {
  const char* name;
  Mistake mistake;
};

constexpr Planted kPlanted[] = {
    {"warpgroup", Mistake::kNone},
    {"warpgroup with registers", Mistake::kRegisters},
    {"products not fenced", Mistake::kNoFence},
    {"products not waited for", Mistake::kNoWait},
    {"products not ended", Mistake::kNotEnded},
    {"operand overwritten", Mistake::kOverwritten},
    {"warp without a product", Mistake::kMissed},
    {"misaligned operand", Mistake::kMisaligned},
    {"operand without swizzle", Mistake::kNoSwizzle},
    {"missed named barrier", Mistake::kNamedBarrier},
};

}  // namespace

// As `effkernels_run_planted`.
const char* run_planted_with_warpgroups(const char* name, float* out) {
  for (const Planted& planted : kPlanted) {
    if (std::strcmp(planted.name, name) == 0) {
      return launch(warpgroup_kernel, {"planted", 1, kWarpgroup, kBytes}, nullptr, out, planted.mistake);
    }
  }
  return "no such kernel";
}

}  // namespace effkernels::cuda
