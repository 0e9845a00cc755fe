#pragma once

// The matrix product of all dense convolutions: rows of the input (pixels) times the packed weights of a
// chunk of output channels, in tiles that stay in registers.

#include <type_traits>

#include "cpu/isa/vec.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

// Most vectors in a chunk. With only 16 registers, fewer vectors leave room for enough rows.
constexpr int kMaxChunkVectors = kRegisters == 32 ? 4 : 3;
constexpr int kMaxChunk = kMaxChunkVectors * kLanes;

// The most rows of a tile with `vectors` vectors. Its sums, one row of weights and one element of the input
// must fit into the vector registers.
constexpr int tile_rows(int vectors) {
  if (kRegisters == 32) return vectors == 4 ? 6 : vectors == 3 ? 8 : 12;
  return vectors == 3 ? 4 : vectors == 2 ? 6 : 8;
}

// Calls tile(rows, first), rows being a compile-time number, for `count` rows: full tiles of kRows, then the
// rest in tiles of half as many rows, down to one.
template <int kRows, class F>
EFFKERNELS_INLINE void split_rows(int first, int count, const F& tile) {
  for (; first + kRows <= count; first += kRows) tile(std::integral_constant<int, kRows>(), first);
  if constexpr (kRows > 1) {
    if (first < count) split_rows<(kRows + 1) / 2>(first, count, tile);
  }
}

// Calls f(vectors), vectors being a compile-time number, for a chunk of `width` floats.
template <class F>
EFFKERNELS_INLINE void with_vectors(int width, const F& f) {
  switch (width / kLanes) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    default:
      if constexpr (kMaxChunkVectors == 4) return f(std::integral_constant<int, 4>());
  }
}

// Input rows in `parts` parts of `k` elements each: row i of part p begins at parts[p] + i * row_stride.
struct Rows {
  const float* const* parts;
  int part_count;
  int k;
  int64_t row_stride;
};

// Memory to prefetch: the weights of the next chunk. Products prefetch it line by line while they compute, so
// that it is in a near cache when it is packed (saves 2.5 % of B0's time where weights come from the
// third-level cache).
class Ahead {
 public:
  Ahead() = default;
  Ahead(const void* from, int64_t bytes)
      : next_(static_cast<const char*>(from)), lines_(divide_up(bytes, kLine)) {}

  static constexpr int64_t kLine = 64;

  // Takes the next `lines` lines. If none is left, returns `any`, memory that is in a near cache.
  EFFKERNELS_INLINE const char* take(int64_t lines, const void* any) {
    if (lines_ <= 0) return static_cast<const char*>(any);
    const char* from = next_;
    next_ += lines * kLine;
    lines_ -= lines;
    return from;
  }

 private:
  const char* next_ = nullptr;
  int64_t lines_ = 0;
};

// The rows of a (`channels`, `k`) weight matrix from `first` on, as many as a chunk has.
inline Ahead weights_ahead(const void* weight, Dtype dtype, int64_t first, int channels, int k, int width) {
  const int64_t row = static_cast<int64_t>(k) * size_of(dtype);
  return Ahead(static_cast<const char*>(weight) + first * row,
               larger<int64_t>(0, smaller<int64_t>(width, channels - first)) * row);
}

// result[i][0..width) = initial + rows[i] * packed for `count` rows from `first`; `packed` is [part_count *
// k][width] and `width` is a multiple of kLanes up to kMaxChunk. Results are `result_stride` apart.
void multiply(const Rows& rows, int64_t first, int count, const float* packed, int width,
              const float* initial, float* result, int64_t result_stride, Ahead& ahead);

}  // namespace effkernels::cpu::EFFKERNELS_ISA
