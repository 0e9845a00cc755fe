// Products of pairs of bfloat16, compared with sums in double, for numbers of terms, rows and columns that
// fill tiles and that do not. Compiled by test_pairs.py with the flags of one instruction set.
//
// Prints the largest error, relative to the sum of the absolute values of the terms.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/isa/pairs.cpp"
#include "cpu/runtime/processor.h"

namespace {

using namespace effkernels;
using namespace effkernels::cpu::EFFKERNELS_ISA;

uint64_t state = 1;

std::vector<BFloat16> numbers(int count) {
  std::vector<BFloat16> made(static_cast<size_t>(count));
  for (BFloat16& x : made) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = narrow<BFloat16>(static_cast<float>(static_cast<int32_t>(state >> 32)) / 2147483648.0f);
  }
  return made;
}

double largest_error(int k, int count, int width) {
  const int channels = width - 1;  // the last column is padding
  const std::vector<BFloat16> x = numbers(count * k), weight = numbers(channels * k);
  const auto floats = static_cast<size_t>(packed_floats(k, width, Dtype::kBFloat16));
  const std::unique_ptr<float, decltype(&std::free)> packed(
      static_cast<float*>(std::aligned_alloc(64, (floats / 16 + 1) * 64)), std::free);
  pack_pairs(weight.data(), channels, k, width, reinterpret_cast<Pair*>(packed.get()));
  std::vector<float> y(static_cast<size_t>(count) * static_cast<size_t>(width), std::nanf(""));
  Ahead ahead;
  PairProduct product;
  product.multiply({x.data(), k, k}, count, packed.get(), width, y.data(), ahead);
  double worst = 0.0;
  for (int i = 0; i < count; ++i) {
    for (int n = 0; n < width; ++n) {
      double sum = 0.0, magnitude = 1e-30;
      for (int j = 0; n < channels && j < k; ++j) {
        const double term = static_cast<double>(widen(x[i * k + j])) * widen(weight[n * k + j]);
        sum += term;
        magnitude += std::fabs(term);
      }
      const double error = std::fabs(y[static_cast<size_t>(i) * width + n] - sum) / magnitude;
      if (!(error <= worst)) worst = error;  // also NaN
    }
  }
  return worst;
}

}  // namespace

int main() {
  if (cpu::has_tiles() && !cpu::may_use_tiles()) return 2;
  double worst = 0.0;
  for (const int k : {1, 2, 7, 16, 31, 32, 33, 97, 144}) {
    for (const int count : {1, 15, 16, 17, 32, 33, 49}) {
      for (int vectors = 1; vectors <= kMaxChunkVectors; ++vectors) {
        const double error = largest_error(k, count, vectors * kLanes);
        if (!(error <= worst)) worst = error;
      }
    }
  }
  std::printf("%g\n", worst);
  return 0;
}
