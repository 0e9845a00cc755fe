#include "binding/common/held.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace effkernels::binding {
namespace {

// A call of torch's C interface for each property: torch::stable::Tensor's own methods make objects of them.
template <class Result, class Get>
Result get(Get get_from, const Tensor& tensor) {
  Result result{};
  TORCH_ERROR_CODE_CHECK(get_from(tensor.get(), &result));
  return result;
}

bool equal(const int64_t* now, const Ints& then) { return std::equal(then.begin(), then.end(), now); }

Ints copied(const int64_t* values, int64_t count) { return Ints(values, values + count); }

struct Registry {
  std::mutex mutex;
  int64_t next = 1;
  std::unordered_map<int64_t, std::shared_ptr<const Held>> held;
};

Registry& registry() {
  static auto* registry = new Registry();  // never destroyed: threads may run until the process ends
  return *registry;
}

}  // namespace

TensorState state_of(const Tensor& tensor) {
  TensorState state{get<int32_t>(aoti_torch_get_dtype, tensor),
                    get<int32_t>(aoti_torch_get_device_type, tensor),
                    get<int32_t>(aoti_torch_get_device_index, tensor),
                    get<int64_t>(aoti_torch_get_dim, tensor),
                    get<int32_t>(aoti_torch_get_layout, tensor) == aoti_torch_layout_strided(),
                    nullptr,
                    {},
                    {}};
  state.sizes = copied(get<int64_t*>(aoti_torch_get_sizes, tensor), state.dimensions);
  if (state.strided) {
    state.data = get<const void*>(torch_get_const_data_ptr, tensor);
    state.strides = copied(get<int64_t*>(aoti_torch_get_strides, tensor), state.dimensions);
  }
  return state;
}

bool same_kind(const Tensor& tensor, const TensorState& then) {
  return get<int32_t>(aoti_torch_get_dtype, tensor) == then.type &&
         get<int64_t>(aoti_torch_get_dim, tensor) == then.dimensions &&
         equal(get<int64_t*>(aoti_torch_get_sizes, tensor), then.sizes) &&
         get<int32_t>(aoti_torch_get_device_type, tensor) == then.device_type &&
         get<int32_t>(aoti_torch_get_device_index, tensor) == then.device_index;
}

bool same_layout(const Tensor& tensor, const TensorState& then, const void*& data) {
  if (!then.strided || !same_kind(tensor, then) ||
      !equal(get<int64_t*>(aoti_torch_get_strides, tensor), then.strides)) {
    return false;
  }
  data = get<const void*>(torch_get_const_data_ptr, tensor);
  constexpr uintptr_t kAlignment = 16;
  return (reinterpret_cast<uintptr_t>(data) - reinterpret_cast<uintptr_t>(then.data)) % kAlignment == 0;
}

Held::Held(std::vector<Tensor> tensors, Ints numbers, std::vector<double> eps)
    : tensors_(std::move(tensors)), numbers_(std::move(numbers)), eps_(std::move(eps)) {
  for (const Tensor& tensor : tensors_) states_.push_back(state_of(tensor));
}

bool Held::same_kinds() const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!same_kind(tensors_[i], states_[i])) return false;
  }
  return true;
}

bool Held::same_memory() const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const void* data = nullptr;
    if (!same_layout(tensors_[i], states_[i], data) || data != states_[i].data) return false;
  }
  return true;
}

int64_t hold(std::vector<Tensor> tensors, Ints numbers, std::vector<double> eps) {
  auto made = std::make_shared<const Held>(std::move(tensors), std::move(numbers), std::move(eps));
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.held.emplace(all.next, std::move(made));
  return all.next++;
}

std::shared_ptr<const Held> held(int64_t number) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.held.find(number);
  if (found == all.held.end()) fail("effkernels: no tensors are held by the number ", number);
  return found->second;
}

void release(int64_t number) {
  std::shared_ptr<const Held> last;  // freed when the lock is open again
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.held.find(number);
  if (found == all.held.end()) return;
  last = std::move(found->second);
  all.held.erase(found);
}

}  // namespace effkernels::binding
