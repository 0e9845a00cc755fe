// Events of the host shim, on two clocks: the host's, which goes on with each call of CUDA, and the device's,
// which goes on with what is in its queue, and never runs ahead of what the host has put there.

#include "cuda/common/events.h"

#include <algorithm>

#include "scheduler.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace effkernels {
namespace {

// Nanoseconds.
constexpr int64_t kRecording = 1000;  // of the host, for an event
constexpr int64_t kEvent = 700;       // of the device
constexpr int64_t kLaunching = 3000;  // of the host, for a launch
constexpr int64_t kOverlap = 400;     // less for a launch that need not wait for the one before

int64_t host = 0, device = 0;
int64_t launching = kLaunching;

struct Event {
  int64_t reached = -1;  // by the device; -1 until it is recorded
};

Event& as_event(void* event) { return *static_cast<Event*>(event); }

// The host puts something into the queue, which takes the device so long.
int64_t enqueue(int64_t host_time, int64_t device_time) {
  host += host_time;
  device = std::max(device, host) + device_time;
  return device;
}

}  // namespace

namespace host_shim {

void clock_launch(const cuda::Grid& grid, bool dependent) {
  enqueue(launching, 1000 + 10 * grid.blocks + grid.threads - (dependent ? kOverlap : 0));
}

}  // namespace host_shim

namespace cuda {

Events::~Events() {
  for (void* event : events_) delete &as_event(event);
}

const char* Events::make(size_t count) {
  while (events_.size() < count) events_.push_back(new Event);
  return nullptr;
}

const char* Events::record(size_t event, void*) {
  Event& own = as_event(events_.at(event));
  if (own.reached >= 0) return "an event is recorded twice";
  own.reached = enqueue(kRecording, kEvent);
  return nullptr;
}

bool Events::passed(size_t event) const { return as_event(events_.at(event)).reached <= host; }

const char* Events::wait(size_t event) const {
  host = std::max(host, as_event(events_.at(event)).reached);
  return nullptr;
}

const char* Events::milliseconds(size_t from, size_t to, float& found) const {
  const Event &first = as_event(events_.at(from)), &last = as_event(events_.at(to));
  if (first.reached < 0 || last.reached < 0) return "an event is not recorded";
  if (first.reached > host || last.reached > host) return "an event is not waited for";
  found = static_cast<float>(1e-6 * static_cast<double>(last.reached - first.reached));
  return nullptr;
}

const char* hold_up(void*, int64_t microseconds) {
  enqueue(kLaunching, 1000 * microseconds);
  return nullptr;
}

}  // namespace cuda

// Nanoseconds of the host for a launch, from now on; as at first where 0.
EXPORT void effkernels_set_launching(int64_t nanoseconds) {
  launching = nanoseconds == 0 ? kLaunching : nanoseconds;
}

}  // namespace effkernels
