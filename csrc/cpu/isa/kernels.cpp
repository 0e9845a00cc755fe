// The table of the kernels of this instruction set.

#include "cpu/kernels.h"

#include "cpu/isa/activation.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"
#include "cpu/isa/pairs.h"
#include "cpu/isa/tiles.h"

#define EFFKERNELS_NAME_OF(isa) #isa
#define EFFKERNELS_NAME(isa) EFFKERNELS_NAME_OF(isa)

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

void exponential_of(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec some[1] = {load_up_to(x + i, static_cast<int>(smaller<int64_t>(kLanes, count - i)))};
    some[0] = bounded_exponent(broadcast(0.0f) - some[0]);
    exponential_of_minus(some, 0.0f);
    store_up_to(y + i, some[0], static_cast<int>(smaller<int64_t>(kLanes, count - i)));
  }
}

// Enough sums that none waits for its own last addition.
constexpr int kSums = 12;

// Keeps the compiler from leaving out what computes x.
EFFKERNELS_INLINE void use(Vec x) {
  float any[kLanes];
  store(any, x);
  asm volatile("" : : "r"(any) : "memory");
}

#if defined(__AMX_BF16__) || defined(EFFKERNELS_TILE_TWIN)

int64_t multiply_add_pairs(int64_t rounds) {
  Tiles tiles;
  TileShape shapes[kTiles];
  for (TileShape& shape : shapes) shape = {kTileRows, kLanes * 4};
  shapes[4] = shapes[5] = {kTileRows, kTileBytes};  // rows of pairs
  tiles.configure(shapes);
  for (int64_t i = 0; i < rounds; ++i) {
    tiles.template multiply_add<0, 4, 6>();
    tiles.template multiply_add<1, 4, 7>();
    tiles.template multiply_add<2, 5, 6>();
    tiles.template multiply_add<3, 5, 7>();
  }
  return rounds * 4 * kTileRows * kLanes * 2 * kTilePairs;
}

#elif defined(__AVX512BF16__)

int64_t multiply_add_pairs(int64_t rounds) {
  const __m512bh ones = _mm512_cvtne2ps_pbh(broadcast(1.0f).v, broadcast(1.0f).v);
  Vec sums[kSums];
  for (Vec& sum : sums) sum = broadcast(0.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    for (Vec& sum : sums) sum.v = _mm512_dpbf16_ps(sum.v, ones, ones);
  }
  for (const Vec sum : sums) use(sum);
  return rounds * kSums * kLanes * 2;
}

#else

int64_t multiply_add_pairs(int64_t) { return 0; }

#endif

int64_t multiply_adds(Dtype dtype, int64_t rounds) {
  if (by_pairs(dtype)) return multiply_add_pairs(rounds);
  const Vec x = broadcast(0.5f), y = broadcast(1.0f);
  Vec sums[kSums];
  for (Vec& sum : sums) sum = broadcast(0.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    for (Vec& sum : sums) sum = fma(sum, x, y);
  }
  for (const Vec sum : sums) use(sum);
  return rounds * kSums * kLanes;
}

}  // namespace

#define EFFKERNELS_ADDRESS_OF(op, Args) &op,
extern const Kernels kKernels;
constinit const Kernels kKernels{EFFKERNELS_NAME(EFFKERNELS_ISA),
                                 EFFKERNELS_FOR_EACH_OP(EFFKERNELS_ADDRESS_OF) exponential_of, multiply_adds};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
