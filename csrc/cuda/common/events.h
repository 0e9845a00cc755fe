#pragma once

// Points in the work of a stream, and the time that the device takes from one to another. The tests have a
// stand-in.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace effkernels::cuda {

// Functions return nullptr, or CUDA's error message.
class Events {
 public:
  Events() = default;
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Makes events until there are so many, for streams of the current device.
  const char* make(size_t count);
  size_t count() const { return events_.size(); }

  // Where the work ends that the stream has so far. An event is recorded once.
  const char* record(size_t event, void* stream);
  // Whether the device has come there. The event is recorded.
  bool passed(size_t event) const;
  // Waits until it has.
  const char* wait(size_t event) const;
  // Between events that the device has passed.
  const char* milliseconds(size_t from, size_t to, float& found) const;

 private:
  std::vector<void*> events_;  // each a cudaEvent_t
};

// Lets what comes next on a stream begin so many microseconds later.
const char* hold_up(void* stream, int64_t microseconds);

}  // namespace effkernels::cuda
