#pragma once

// Products of a warpgroup, four neighbouring warps whose first is a multiple of four, on the tensor cores of
// compute capability 9.0 (wgmma): asynchronous, with one operand in shared memory, the other there or in
// registers. Files that use this are compiled for 9.0a alone, and their kernels launched where
// `has_warpgroup_products` says so. See tensor_memory.cuh of how operands come to shared memory.
//
// With EFFKERNELS_HOST_SHIM the same names come from the host shim of the tests. There products are computed
// when they are waited for, and what they read must be as it was when they were started.

#include <type_traits>

#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {

constexpr int kWarpgroup = 4 * kWarp;

// An operand in shared memory, for products: rows of 64 elements of 16 bits, 128 bytes each, swizzled as TMA
// does with k128Bytes; the first row is aligned to 1024 bytes. Products take 16 elements of each row: the
// next ones are 2 further on in the descriptor.
EFFKERNELS_HOST_DEVICE uint64_t operand_at(uint32_t address) {
  constexpr uint64_t kSwizzle128 = 1, kEightRows = 1024;
  return kSwizzle128 << 62 | (kEightRows >> 4) << 32 | uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}
constexpr uint64_t kNextTerms = 2;

}  // namespace effkernels::cuda

#ifdef EFFKERNELS_HOST_SHIM
#include "host_shim_warpgroup.h"
#else

namespace effkernels::cuda {

// 1 in device code for 9.0a, 0 elsewhere.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define EFFKERNELS_WARPGROUP_PRODUCTS 1
#else
#define EFFKERNELS_WARPGROUP_PRODUCTS 0
#endif

// Whether the current device has code of this kernel with wgmma: it is compiled for no other architecture
// with a version from 9.0 on.
template <auto kKernel>
bool has_warpgroup_products() {
  return has_tensor_memory<kKernel>();
}

// Before the first products, and where registers of sums or operands have been written since: products see
// that.
EFFKERNELS_DEVICE void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Makes a group of the products since the last one.
EFFKERNELS_DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for all groups but the newest kLeft. Until then nothing may touch the sums or operands.
template <int kLeft>
EFFKERNELS_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

// Keeps the compiler from moving what uses these registers across this place: it does not see that products
// write them later.
EFFKERNELS_DEVICE void hold(float& value) { asm volatile("" : "+f"(value)::"memory"); }
EFFKERNELS_DEVICE void hold(uint32_t& value) { asm volatile("" : "+r"(value)::"memory"); }
template <int kCount>
EFFKERNELS_DEVICE void hold(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) hold(values[i]);
}

// Of the registers that the block was launched with, the warpgroup gives some back, or takes more of those
// that others gave back.
template <int kRegisters>
EFFKERNELS_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
EFFKERNELS_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Barrier number `id`, 1 to 15, of so many threads, whole warps.
EFFKERNELS_DEVICE void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// sums = a * b + (add ? sums : 0), for 64 rows of a and kColumns rows of b with 16 terms. Of the 64 rows a
// warp has 16. Sums are spread over the lanes as those of mma.m16n8k16, 4 a lane for every 8 columns; so is
// a, where it is in registers. Every thread of the warpgroup must come here.
template <class T, int kColumns>
struct WarpgroupProducts;

#define EFFKERNELS_REGISTERS_8(d, i)                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define EFFKERNELS_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define EFFKERNELS_NAMES_1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define EFFKERNELS_NAMES_2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define EFFKERNELS_NAMES_3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define EFFKERNELS_NAMES_4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define EFFKERNELS_NAMES_5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define EFFKERNELS_NAMES_6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define EFFKERNELS_NAMES_7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define EFFKERNELS_NAMES_8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define EFFKERNELS_NAMES_9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define EFFKERNELS_NAMES_10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define EFFKERNELS_NAMES_11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define EFFKERNELS_NAMES_12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define EFFKERNELS_NAMES_13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define EFFKERNELS_NAMES_14 "%112, %113, %114, %115, %116, %117, %118, %119"

// `names` and `operands` of the sums; then the numbers of the operands behind them.
#define EFFKERNELS_PRODUCTS(Type, type, columns, names, operands, n0, n1, n2, n3, n4, n5)                   \
  template <>                                                                                               \
  struct WarpgroupProducts<Type, columns> {                                                                 \
    EFFKERNELS_DEVICE static void start(float (&d)[columns / 2], uint64_t a, uint64_t b, bool add) {        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" n2                                                  \
                   ", 0;\n"                                                                                 \
                   "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" names         \
                   "}, %" n0 ", %" n1 ", p, 1, 1, 0, 0;\n}"                                                 \
                   : operands                                                                               \
                   : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                           \
    }                                                                                                       \
    EFFKERNELS_DEVICE static void start(float (&d)[columns / 2], const uint32_t* a, uint64_t b, bool add) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" n5                                                  \
                   ", 0;\n"                                                                                 \
                   "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" names         \
                   "}, {%" n0 ", %" n1 ", %" n2 ", %" n3 "}, %" n4 ", p, 1, 1, 0;\n}"                       \
                   : operands                                                                               \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));       \
    }                                                                                                       \
  };
// Of 32 columns, and each from those before.
#define EFFKERNELS_NAMES_OF_32 EFFKERNELS_NAMES_0 ", " EFFKERNELS_NAMES_1
#define EFFKERNELS_SUMS_OF_32 EFFKERNELS_REGISTERS_8(d, 0), EFFKERNELS_REGISTERS_8(d, 8)
#define EFFKERNELS_NAMES_OF_64 EFFKERNELS_NAMES_OF_32 ", " EFFKERNELS_NAMES_2 ", " EFFKERNELS_NAMES_3
#define EFFKERNELS_SUMS_OF_64 \
  EFFKERNELS_SUMS_OF_32, EFFKERNELS_REGISTERS_8(d, 16), EFFKERNELS_REGISTERS_8(d, 24)
#define EFFKERNELS_NAMES_OF_80 EFFKERNELS_NAMES_OF_64 ", " EFFKERNELS_NAMES_4
#define EFFKERNELS_SUMS_OF_80 EFFKERNELS_SUMS_OF_64, EFFKERNELS_REGISTERS_8(d, 32)
#define EFFKERNELS_NAMES_OF_96 EFFKERNELS_NAMES_OF_80 ", " EFFKERNELS_NAMES_5
#define EFFKERNELS_SUMS_OF_96 EFFKERNELS_SUMS_OF_80, EFFKERNELS_REGISTERS_8(d, 40)
#define EFFKERNELS_NAMES_OF_112 EFFKERNELS_NAMES_OF_96 ", " EFFKERNELS_NAMES_6
#define EFFKERNELS_SUMS_OF_112 EFFKERNELS_SUMS_OF_96, EFFKERNELS_REGISTERS_8(d, 48)
#define EFFKERNELS_NAMES_OF_128 EFFKERNELS_NAMES_OF_112 ", " EFFKERNELS_NAMES_7
#define EFFKERNELS_SUMS_OF_128 EFFKERNELS_SUMS_OF_112, EFFKERNELS_REGISTERS_8(d, 56)
#define EFFKERNELS_NAMES_OF_144 EFFKERNELS_NAMES_OF_128 ", " EFFKERNELS_NAMES_8
#define EFFKERNELS_SUMS_OF_144 EFFKERNELS_SUMS_OF_128, EFFKERNELS_REGISTERS_8(d, 64)
#define EFFKERNELS_NAMES_OF_160 EFFKERNELS_NAMES_OF_144 ", " EFFKERNELS_NAMES_9
#define EFFKERNELS_SUMS_OF_160 EFFKERNELS_SUMS_OF_144, EFFKERNELS_REGISTERS_8(d, 72)
#define EFFKERNELS_NAMES_OF_192 EFFKERNELS_NAMES_OF_160 ", " EFFKERNELS_NAMES_10 ", " EFFKERNELS_NAMES_11
#define EFFKERNELS_SUMS_OF_192 \
  EFFKERNELS_SUMS_OF_160, EFFKERNELS_REGISTERS_8(d, 80), EFFKERNELS_REGISTERS_8(d, 88)
#define EFFKERNELS_NAMES_OF_224 EFFKERNELS_NAMES_OF_192 ", " EFFKERNELS_NAMES_12 ", " EFFKERNELS_NAMES_13
#define EFFKERNELS_SUMS_OF_224 \
  EFFKERNELS_SUMS_OF_192, EFFKERNELS_REGISTERS_8(d, 96), EFFKERNELS_REGISTERS_8(d, 104)
#define EFFKERNELS_NAMES_OF_240 EFFKERNELS_NAMES_OF_224 ", " EFFKERNELS_NAMES_14
#define EFFKERNELS_SUMS_OF_240 EFFKERNELS_SUMS_OF_224, EFFKERNELS_REGISTERS_8(d, 112)
// Both types of so many columns.
#define EFFKERNELS_PRODUCTS_OF(columns, ...)                                                             \
  EFFKERNELS_PRODUCTS(Half, "f16", columns, EFFKERNELS_NAMES_OF_##columns, EFFKERNELS_SUMS_OF_##columns, \
                      __VA_ARGS__)                                                                       \
  EFFKERNELS_PRODUCTS(BFloat16, "bf16", columns, EFFKERNELS_NAMES_OF_##columns,                          \
                      EFFKERNELS_SUMS_OF_##columns, __VA_ARGS__)
EFFKERNELS_PRODUCTS_OF(32, "16", "17", "18", "19", "20", "21")
EFFKERNELS_PRODUCTS_OF(64, "32", "33", "34", "35", "36", "37")
EFFKERNELS_PRODUCTS_OF(80, "40", "41", "42", "43", "44", "45")
EFFKERNELS_PRODUCTS_OF(96, "48", "49", "50", "51", "52", "53")
EFFKERNELS_PRODUCTS_OF(112, "56", "57", "58", "59", "60", "61")
EFFKERNELS_PRODUCTS_OF(128, "64", "65", "66", "67", "68", "69")
EFFKERNELS_PRODUCTS_OF(144, "72", "73", "74", "75", "76", "77")
EFFKERNELS_PRODUCTS_OF(160, "80", "81", "82", "83", "84", "85")
EFFKERNELS_PRODUCTS_OF(192, "96", "97", "98", "99", "100", "101")
EFFKERNELS_PRODUCTS_OF(224, "112", "113", "114", "115", "116", "117")
EFFKERNELS_PRODUCTS_OF(240, "120", "121", "122", "123", "124", "125")

}  // namespace effkernels::cuda

#endif
