#pragma once

// What csrc/cuda/common/warpgroup.cuh has from CUDA. Descriptors are decoded. Products are computed when they
// are waited for; what they read of shared memory must be as it was when they were started.

namespace effkernels::host_shim {

// Whether kernels with products of warpgroups are said to be there.
extern bool warpgroup_products_there;
// Products that threads have started.
extern int64_t warpgroup_products_started;

// One product of a warp's 16 rows: of a, in registers or in shared memory, and of b.
struct Product {
  float* sums;
  bool add, in_registers;
  uint32_t a[4];
  uint64_t a_rows, b_rows;  // descriptors
  int columns;
  float (*value)(uint16_t);
};

void fence_products();
void start_product(const Product& product, const Where& where);
void end_products();
void wait_for_products(size_t left, const Where& where);
void wait_for_named_barrier(int id, int threads, const Where& where);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

#define EFFKERNELS_WARPGROUP_PRODUCTS 1

template <auto kKernel>
bool has_warpgroup_products() {
  return host_shim::warpgroup_products_there;
}

inline void warpgroup_fence() { host_shim::fence_products(); }
inline void end_products() { host_shim::end_products(); }
template <int kLeft>
void wait_for_products(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_products(kLeft, where);
}

template <class T>
void hold(T&) {}

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}

inline void named_barrier(int id, int threads, const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_named_barrier(id, threads, where);
}

template <class T, int kColumns>
struct WarpgroupProducts {
  static float value(uint16_t bits) { return widen(T{bits}); }

  static void start(float (&sums)[kColumns / 2], uint64_t a, uint64_t b, bool add,
                    const host_shim::Where& where = host_shim::Where::current()) {
    host_shim::start_product({sums, add, false, {}, a, b, kColumns, value}, where);
  }
  static void start(float (&sums)[kColumns / 2], const uint32_t* a, uint64_t b, bool add,
                    const host_shim::Where& where = host_shim::Where::current()) {
    host_shim::start_product({sums, add, true, {a[0], a[1], a[2], a[3]}, 0, b, kColumns, value}, where);
  }
};

}  // namespace effkernels::cuda
