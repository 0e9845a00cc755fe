#pragma once

#include <vector>

#include "binding/common/arguments.h"

namespace effkernels::binding {

// Types, devices, shapes, strides and addresses of some tensors when this was made, to compare them with
// later. Each comparison is given the same tensors again.
class TensorStates {
 public:
  explicit TensorStates(const std::vector<Tensor>& tensors);

  // Whether types, devices and shapes are as they were.
  bool same_kinds(const std::vector<Tensor>& tensors) const;
  // Whether strides and addresses are also as they were; false for sparse and opaque tensors.
  bool same_memory(const std::vector<Tensor>& tensors) const;
  // The same, but addresses need only be the same modulo 16: `addresses` gets those of now.
  bool same_layouts(const std::vector<Tensor>& tensors, std::vector<const void*>& addresses) const;

 private:
  struct State {
    int32_t type, device_type, device_index;
    bool strided;
    int64_t dimensions;
    const void* data;
    const int64_t* sizes;  // where torch kept them then
  };

  template <class Same>
  bool all_same(const std::vector<Tensor>& tensors, const Same& same) const;

  std::vector<State> states_;
  Ints sizes_and_strides_;  // of one tensor after the other
};

}  // namespace effkernels::binding
