#pragma once

// The matrix product that all dense convolutions are made of: rows of the input (pixels) times a packed panel of
// weights, in tiles that stay in registers.

#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

// Vectors across a panel: with 16 registers, fewer leave room for enough rows.
constexpr int kMaxPanelVectors = kRegisters == 32 ? 4 : 3;
constexpr int kMaxPanel = kMaxPanelVectors * kLanes;

// The most rows that a tile of `vectors` vectors has. Its sums, one row of weights and one element of the input must fit
// into the registers; and every row needs a general register for its address.
constexpr int tile_rows(int vectors) {
  if (kRegisters == 32) return vectors == 4 ? 6 : 8;
  return vectors == 3 ? 4 : vectors == 2 ? 6 : 8;
}

// Input rows in `parts` parts of `k` elements each: row i of part p begins at parts[p] + i * row_stride.
struct Rows {
  const float* const* parts;
  int part_count;
  int k;
  int64_t row_stride;
};

// result[i][0..width) = initial + rows[i] * panel for `count` rows from `first`; `panel` is [part_count * k][width] and
// `width` a multiple of kLanes up to kMaxPanel. Results are `result_stride` apart.
void multiply(const Rows& rows, int64_t first, int count, const float* panel, int width, const float* initial,
              float* result, int64_t result_stride);

}  // namespace effkernels::cpu::EFFKERNELS_ISA
