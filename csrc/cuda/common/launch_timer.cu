// Times of launches; see launch_timer.h.

#include "cuda/common/launch_timer.h"

#include <utility>

namespace effkernels::cuda {
namespace {

constexpr size_t kBefore = 2;  // events before the first launch

}  // namespace

void after_launch(LaunchTimer& timer) { timer.after_launch(); }

const char* LaunchTimer::record() {
  const char* error = events_.make(recorded_ + 1);
  return error != nullptr ? error : events_.record(recorded_++, stream_);
}

const char* LaunchTimer::begin(void* stream, size_t launches) {
  stream_ = stream;
  // Before the device is held up: making one takes as long as a launch.
  error_ = events_.make(kBefore + (timed_ == Timed::kEachLaunch ? launches : 1));
  if (error_ == nullptr) error_ = hold_up(stream, hold_up_);
  for (size_t i = 0; i < kBefore && error_ == nullptr; ++i) error_ = record();
  return error_;
}

void LaunchTimer::after_launch() {
  if (timed_ == Timed::kEachLaunch && error_ == nullptr) error_ = record();
}

const char* LaunchTimer::end(std::vector<LaunchRecord> launches) {
  if (timed_ != Timed::kEachLaunch && error_ == nullptr) error_ = record();
  if (error_ != nullptr) return error_;
  const size_t last = recorded_ - 1;
  times_.queued = !events_.passed(0);
  error_ = events_.wait(last);
  if (error_ == nullptr) error_ = events_.milliseconds(0, 1, times_.nothing);
  if (error_ == nullptr) error_ = events_.milliseconds(1, last, times_.whole);
  if (timed_ == Timed::kEachLaunch) {
    times_.each.resize(launches.size());
    for (size_t i = 0; i < launches.size() && error_ == nullptr; ++i) {
      error_ = events_.milliseconds(i + kBefore - 1, i + kBefore, times_.each[i]);
    }
  }
  times_.launches = std::move(launches);
  return error_;
}

}  // namespace effkernels::cuda
