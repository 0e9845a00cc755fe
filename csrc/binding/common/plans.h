#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace effkernels::binding {

// The plans of a network that is held, by all that they depend on but the tensors. For several threads at
// once.
template <class Key, class Plan>
class Plans {
 public:
  std::shared_ptr<const Plan> find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = plans_.find(key);
    return found == plans_.end() ? nullptr : found->second;
  }

  void keep(const Key& key, std::shared_ptr<const Plan> plan) {
    const std::lock_guard lock(mutex_);
    if (plans_.size() >= kMost) plans_.clear();
    plans_[key] = std::move(plan);
  }

 private:
  static constexpr size_t kMost = 64;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<const Plan>> plans_;
};

}  // namespace effkernels::binding
