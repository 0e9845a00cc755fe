#pragma once

// How long the launches of a run take on the device, by events on its stream.
//
// The host takes several microseconds for a launch, as long as many kernels, so that a device that waits for
// it would be timed waiting. Therefore the stream is held up until the host has launched everything. Then
// the device finds each launch, and each event, in its queue.
//
// Each launch is made once in a run, in its place, and not several times in a row between two events: what it
// reads would be in the L2 cache from the second time on, weights too, and a run would find it there only in
// part. An event takes about as long as the smallest kernels; that is measured in each run, by two events
// with nothing between them.

#include <vector>

#include "cuda/common/events.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// What is timed of a run.
enum class Timed : int64_t {
  kEachLaunch = 1,  // there is an event after each, and none begins before the one before has ended
  kLaunchesApart,   // the whole run; as above, but without events between launches
  kWhole,           // the whole run, whose launches overlap where they do without a timer
};

// Times in milliseconds.
struct RunTimes {
  float nothing = 0.0f;  // from an event to the next with nothing between them
  float whole = 0.0f;    // from the event before the first launch to the one after the last
  // Whether the device began after the host had launched everything. Else it may have waited for it.
  bool queued = false;
  std::vector<float> each;  // from the event before a launch to the one after it; of kEachLaunch alone
  std::vector<LaunchRecord> launches;
};

// Of one run. Functions return nullptr, or a message that says what is wrong.
class LaunchTimer {
 public:
  // `hold_up`: microseconds by which the first launch begins later.
  LaunchTimer(Timed timed, int64_t hold_up) : timed_(timed), hold_up_(hold_up) {}

  // Whether the launches must not overlap.
  bool launches_apart() const { return timed_ != Timed::kWhole; }

  // On the current device, before the first launch. About `launches` will come.
  const char* begin(void* stream, size_t launches);
  void after_launch();
  // After the last one. Waits until they have ended.
  const char* end(std::vector<LaunchRecord> launches);

  const RunTimes& times() const { return times_; }

 private:
  const char* record();

  Timed timed_;
  int64_t hold_up_;
  void* stream_ = nullptr;
  Events events_;        // two with nothing between them, then those after launches
  size_t recorded_ = 0;  // of the events
  const char* error_ = nullptr;
  RunTimes times_;
};

}  // namespace effkernels::cuda
