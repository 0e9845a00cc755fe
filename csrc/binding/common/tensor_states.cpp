#include "binding/common/tensor_states.h"

#include <algorithm>

namespace effkernels::binding {
namespace {

// A call of torch's C interface for each property: torch::stable::Tensor's own methods make objects of them.
template <class Result, class Get>
Result get(Get get_from, const Tensor& tensor) {
  Result result{};
  TORCH_ERROR_CODE_CHECK(get_from(tensor.get(), &result));
  return result;
}

// A network's weights drive the tensors' properties out of the caches, and waiting for memory then takes ten
// times as long as comparing them: so the cache lines around the sizes, where torch keeps the other
// properties too, are prefetched while the tensor this many before is compared.
constexpr size_t kAhead = 16;

void prefetch_around(const int64_t* sizes) {
  const char* line = reinterpret_cast<const char*>(sizes);
  for (const int offset : {-64, 0, 64}) __builtin_prefetch(line + offset);
}

}  // namespace

TensorStates::TensorStates(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    State state{get<int32_t>(aoti_torch_get_dtype, tensor),
                get<int32_t>(aoti_torch_get_device_type, tensor),
                get<int32_t>(aoti_torch_get_device_index, tensor),
                get<int32_t>(aoti_torch_get_layout, tensor) == aoti_torch_layout_strided(),
                get<int64_t>(aoti_torch_get_dim, tensor),
                nullptr,
                get<int64_t*>(aoti_torch_get_sizes, tensor)};
    const int64_t* strides = state.sizes;  // in the place of those that there are not
    if (state.strided) {
      state.data = get<const void*>(torch_get_const_data_ptr, tensor);
      strides = get<int64_t*>(aoti_torch_get_strides, tensor);
    }
    for (const int64_t* values : {state.sizes, strides}) {
      sizes_and_strides_.insert(sizes_and_strides_.end(), values, values + state.dimensions);
    }
    states_.push_back(state);
  }
}

// `same` is called with each tensor of the same kind, its state and its strides.
template <class Same>
bool TensorStates::all_same(const std::vector<Tensor>& tensors, const Same& same) const {
  if (tensors.size() != states_.size()) return false;
  const int64_t* sizes = sizes_and_strides_.data();
  for (size_t i = 0; i < states_.size(); ++i) {
    if (i + kAhead < states_.size()) prefetch_around(states_[i + kAhead].sizes);
    const Tensor& tensor = tensors[i];
    const State& then = states_[i];
    const int64_t* strides = sizes + then.dimensions;
    if (get<int64_t>(aoti_torch_get_dim, tensor) != then.dimensions ||
        !std::equal(sizes, strides, get<int64_t*>(aoti_torch_get_sizes, tensor)) ||
        get<int32_t>(aoti_torch_get_dtype, tensor) != then.type ||
        get<int32_t>(aoti_torch_get_device_type, tensor) != then.device_type ||
        get<int32_t>(aoti_torch_get_device_index, tensor) != then.device_index ||
        !same(tensor, then, strides)) {
      return false;
    }
    sizes = strides + then.dimensions;
  }
  return true;
}

bool TensorStates::same_kinds(const std::vector<Tensor>& tensors) const {
  return all_same(tensors, [](const Tensor&, const State&, const int64_t*) { return true; });
}

bool TensorStates::same_memory(const std::vector<Tensor>& tensors) const {
  std::vector<const void*> addresses;
  if (!same_layouts(tensors, addresses)) return false;
  return std::equal(addresses.begin(), addresses.end(), states_.begin(),
                    [](const void* now, const State& then) { return now == then.data; });
}

bool TensorStates::same_layouts(const std::vector<Tensor>& tensors,
                                std::vector<const void*>& addresses) const {
  addresses.clear();
  addresses.reserve(tensors.size());
  return all_same(tensors, [&](const Tensor& tensor, const State& then, const int64_t* strides) {
    if (!then.strided ||
        !std::equal(strides, strides + then.dimensions, get<int64_t*>(aoti_torch_get_strides, tensor))) {
      return false;
    }
    const void* now = get<const void*>(torch_get_const_data_ptr, tensor);
    addresses.push_back(now);
    return (reinterpret_cast<uintptr_t>(now) - reinterpret_cast<uintptr_t>(then.data)) % 16 == 0;
  });
}

}  // namespace effkernels::binding
