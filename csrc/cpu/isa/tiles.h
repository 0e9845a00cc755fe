#pragma once

// The tile registers of processors with AMX, and the product of two of them: 16 rows of 16 pairs of bfloat16
// with 16 pairs of as many columns as a vector has lanes. With EFFKERNELS_TILE_TWIN they are arrays, and the
// product is written out: for tests on other processors, and for sanitizers, which do not see what tiles
// load.

#include <cstdint>
#include <cstring>

#include "cpu/isa/vec.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

#if defined(__AMX_BF16__) || defined(EFFKERNELS_TILE_TWIN)
constexpr bool kHasTiles = true;
#else
constexpr bool kHasTiles = false;
#endif

constexpr int kTiles = 8;
constexpr int kTileRows = 16;
constexpr int kTilePairs = 16;  // of a row
constexpr int kTileBytes = 64;  // of a row

// Rows, and bytes of each.
struct TileShape {
  int rows, bytes;
};

#if defined(__AMX_BF16__) && !defined(EFFKERNELS_TILE_TWIN)

// The tile registers of the calling thread; released at the end, so that the operating system need not keep
// them. The compiler's own intrinsics do not say that they read and write memory.
class Tiles {
 public:
  Tiles() = default;
  ~Tiles() {
    if (in_use_) asm volatile("tilerelease" ::: "memory");
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // Sets the shapes of all tiles, which are zeros then.
  void configure(const TileShape (&shapes)[kTiles]) {
    struct alignas(64) {
      uint8_t palette, start, reserved[14];
      uint16_t bytes[16];
      uint8_t rows[16];
    } config{};
    config.palette = 1;
    for (int i = 0; i < kTiles; ++i) {
      config.bytes[i] = static_cast<uint16_t>(shapes[i].bytes);
      config.rows[i] = static_cast<uint8_t>(shapes[i].rows);
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
    in_use_ = true;
  }

  template <int kTile>
  EFFKERNELS_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  // Rows are `stride` bytes apart.
  template <int kTile>
  EFFKERNELS_INLINE void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  EFFKERNELS_INLINE void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // sums += rows * columns
  template <int kSums, int kRows, int kColumns>
  EFFKERNELS_INLINE void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kRows), "i"(kColumns));
  }

 private:
  bool in_use_ = false;
};

#elif defined(EFFKERNELS_TILE_TWIN)

class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  void configure(const TileShape (&shapes)[kTiles]) {
    std::memcpy(shapes_, shapes, sizeof shapes_);
    std::memset(data_, 0, sizeof data_);
  }
  template <int kTile>
  void zero() {
    std::memset(data_[kTile], 0, sizeof data_[kTile]);
  }
  template <int kTile>
  void load(const void* from, int64_t stride) {
    zero<kTile>();
    const auto [rows, bytes] = shapes_[kTile];
    for (int i = 0; i < rows; ++i) {
      std::memcpy(data_[kTile][i], static_cast<const char*>(from) + i * stride, bytes);
    }
  }
  template <int kTile>
  void store(void* to, int64_t stride) {
    const auto [rows, bytes] = shapes_[kTile];
    for (int i = 0; i < rows; ++i) {
      std::memcpy(static_cast<char*>(to) + i * stride, data_[kTile][i], bytes);
    }
  }
  // As the processor does it: terms with even and with odd places are summed apart, then added to the sums.
  template <int kSums, int kRows, int kColumns>
  void multiply_add() {
    const auto [rows, bytes] = shapes_[kSums];
    for (int m = 0; m < rows; ++m) {
      for (int n = 0; n < bytes / 4; ++n) {
        float even = 0.0f, odd = 0.0f;
        for (int k = 0; k < shapes_[kRows].bytes / 4; ++k) {
          even += element(kRows, m, 2 * k) * element(kColumns, k, 2 * n);
          odd += element(kRows, m, 2 * k + 1) * element(kColumns, k, 2 * n + 1);
        }
        float sum;
        std::memcpy(&sum, &data_[kSums][m][4 * n], sizeof sum);
        sum += even + odd;
        std::memcpy(&data_[kSums][m][4 * n], &sum, sizeof sum);
      }
    }
  }

 private:
  float element(int tile, int row, int place) const {
    BFloat16 x;
    std::memcpy(&x, &data_[tile][row][2 * place], sizeof x);
    return widen(x);
  }

  TileShape shapes_[kTiles] = {};
  char data_[kTiles][kTileRows][kTileBytes] = {};
};

#endif

}  // namespace effkernels::cpu::EFFKERNELS_ISA
