#include "cpu/isa/product.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Terms in one chain of additions; the sum of each chain is then added to the total. A single chain over the
// thousands of channels of the largest networks rounds twice as much as PyTorch's products do; chains of 64
// round as much as PyTorch's (measured).
constexpr int kChain = 64;

// Where a tile reads its rows, column by column. There is one address for three rows: the second and the
// third are one and two strides away.
template <int kRows>
class Column {
 public:
  EFFKERNELS_INLINE Column(const float* first, int64_t stride) : stride_(stride) {
    unrolled<kGroups>([&](auto group) { groups_[group] = first + 3 * group * stride; });
  }
  // Of this row.
  EFFKERNELS_INLINE Vec operator[](int row) const { return broadcast(groups_[row / 3][row % 3 * stride_]); }
  EFFKERNELS_INLINE void advance() {
    unrolled<kGroups>([&](auto group) {
      const float* next = groups_[group] + 1;
      forget(next);
      groups_[group] = next;
    });
  }

 private:
  static constexpr int kGroups = (kRows + 2) / 3;
  const float* groups_[kGroups];
  int64_t stride_;
};

template <int kRows, int kVectors>
void tile(const Rows& rows, int64_t first, const float* packed, const float* initial, float* result,
          int64_t result_stride, Ahead& ahead) {
  constexpr int kWidth = kVectors * kLanes;
  const int64_t stride = rows.row_stride;
  bool begun = false;
  for (int part = 0, k = 0; part < rows.part_count; begun = true) {
    Vec sums[kRows][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const Vec start = begun ? broadcast(0.0f) : load(initial + v * kLanes);
      unrolled<kRows>([&](auto i) { sums[i][v] = start; });
    }
    for (int left = kChain; left > 0 && part < rows.part_count;) {
      Column<kRows> x(rows.parts[part] + first * stride + k, stride);
      const int count = smaller(left, rows.k - k);
      const char* line = ahead.take(count, packed);
      for (int n = 0; n < count; ++n, packed += kWidth, line += Ahead::kLine, x.advance()) {
        __builtin_prefetch(line, 0, 2);
        Vec weights[kVectors];
        for (int v = 0; v < kVectors; ++v) weights[v] = load(packed + v * kLanes);
        unrolled<kRows>([&](auto i) {
          const Vec element = x[i];
          for (int v = 0; v < kVectors; ++v) sums[i][v] = fma(element, weights[v], sums[i][v]);
        });
      }
      left -= count;
      k += count;
      if (k == rows.k) {
        k = 0;
        ++part;
      }
    }
    unrolled<kRows>([&](auto i) {
      for (int v = 0; v < kVectors; ++v) {
        float* to = result + i * result_stride + v * kLanes;
        store(to, begun ? load(to) + sums[i][v] : sums[i][v]);
      }
    });
  }
}

}  // namespace

void multiply(const Rows& rows, int64_t first, int count, const float* packed, int width,
              const float* initial, float* result, int64_t result_stride, Ahead& ahead) {
  with_vectors(width, [&](auto vectors) {
    constexpr int kVectors = vectors;
    split_rows<tile_rows(kVectors)>(0, count, [&](auto tile_rows, int done) {
      tile<tile_rows, kVectors>(rows, first + done, packed, initial, result + done * result_stride,
                                result_stride, ahead);
    });
  });
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
