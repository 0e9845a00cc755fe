#pragma once

// What csrc/cuda/common/tensor_memory.cuh has from CUDA. What a box will be written to holds NaN from when
// its copy is started; its bytes land when nothing but a wait for them is left to do. What a store reads must
// be as it was when the store was started until it is waited for, and must have been fenced where matrices
// were stored there.

namespace effkernels::cuda {

struct TensorMap {
  TensorBoxes boxes;
};

#define EFFKERNELS_GRID_CONSTANT const
#define EFFKERNELS_TENSOR_MEMORY 1

}  // namespace effkernels::cuda

namespace effkernels::host_shim {

// Whether kernels with tensor memory are said to be there.
extern bool tensor_memory_there;
// How many tensor maps were encoded.
extern int64_t encoded_maps;

// Coordinates of a box, innermost first.
struct Corner {
  int at[cuda::kMostSides];
  int sides;
};

void make_mbarrier(uint32_t barrier, int arrivals);
void fence_mbarriers();
void arrive(uint32_t barrier, int64_t bytes, const Where& where);
void wait_for_phase(uint32_t barrier, uint32_t parity, const Where& where);
void start_load(uint32_t to, const cuda::TensorMap& map, const Corner& corner, uint32_t barrier,
                const Where& where);
void start_store(const cuda::TensorMap& map, uint32_t from, const Corner& corner, const Where& where);
void fence_stored();
void end_group();
void wait_for_groups(size_t left, bool written);
// That this thread has written 16 bytes at this address, and has not fenced yet.
void note_stored(uint32_t address);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

template <auto kKernel>
bool has_tensor_memory() {
  return host_shim::tensor_memory_there;
}

inline void mbarrier_init(uint32_t barrier, int arrivals) { host_shim::make_mbarrier(barrier, arrivals); }
inline void mbarrier_init_fence() { host_shim::fence_mbarriers(); }
inline void mbarrier_arrive(uint32_t barrier, const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::arrive(barrier, 0, where);
}
inline void mbarrier_arrive_expecting(uint32_t barrier, int bytes,
                                      const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::arrive(barrier, bytes, where);
}
inline void mbarrier_wait(uint32_t barrier, uint32_t parity,
                          const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_phase(barrier, parity, where);
}

inline void tma_load(uint32_t to, const TensorMap& map, int i, int j, uint32_t barrier,
                     const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_load(to, map, {{i, j}, 2}, barrier, where);
}
inline void tma_load(uint32_t to, const TensorMap& map, int i, int j, int k, uint32_t barrier,
                     const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_load(to, map, {{i, j, k}, 3}, barrier, where);
}
inline void tma_load(uint32_t to, const TensorMap& map, int i, int j, int k, int l, uint32_t barrier,
                     const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_load(to, map, {{i, j, k, l}, 4}, barrier, where);
}

inline void fence_for_tma() { host_shim::fence_stored(); }

inline void tma_store(const TensorMap& map, uint32_t from, int i, int j,
                      const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_store(map, from, {{i, j}, 2}, where);
}
inline void tma_store(const TensorMap& map, uint32_t from, int i, int j, int k,
                      const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_store(map, from, {{i, j, k}, 3}, where);
}
inline void tma_store(const TensorMap& map, uint32_t from, int i, int j, int k, int l,
                      const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::start_store(map, from, {{i, j, k, l}, 4}, where);
}

inline void commit_group() { host_shim::end_group(); }
template <int kLeft>
void wait_for_groups_to_read() {
  host_shim::wait_for_groups(kLeft, false);
}
template <int kLeft>
void wait_for_groups() {
  host_shim::wait_for_groups(kLeft, true);
}

inline void store_matrices(uint32_t row, const uint32_t (&elements)[4],
                           const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes =
      host_shim::meet({row, elements[0], elements[1], elements[2], elements[3]}, where);
  // Each lane writes the row that it names.
  const int lane = thread_index() % kWarp;
  for (int i = 0; i < 4; ++i) {
    matrix_row(lanes[lane])->words[i] = lanes[lane % 8 * 4 + i][1 + lane / 8];
  }
  host_shim::note_stored(row);
}

}  // namespace effkernels::cuda
