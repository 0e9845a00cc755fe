#include "binding/common/held.h"

#include <mutex>
#include <unordered_map>
#include <utility>

namespace effkernels::binding {
namespace {

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

Held::Held(std::vector<Tensor> tensors, Ints numbers, std::vector<double> eps)
    : tensors_(std::move(tensors)), numbers_(std::move(numbers)), eps_(std::move(eps)), states_(tensors_) {}

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
