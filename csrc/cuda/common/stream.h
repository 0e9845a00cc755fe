#pragma once

// Where launchers launch their kernels.

#include <cstdint>
#include <vector>

namespace effkernels::cuda {

// A piece of memory.
struct MemoryRange {
  const void* begin;
  int64_t bytes;
};

// What a launch of a network is for.
struct LaunchPurpose {
  int step = 0;             // of the network
  const char* layer = "";   // of the step, where it has several
  int part = 1, parts = 1;  // of the images of a block
};

// What a launch does at least: bytes that it reads once and writes once, wherever they are; and FLOPs, two
// for a multiplication and an addition.
struct LaunchWork {
  int64_t bytes = 0, flops = 0;
};

// A launch as it was made.
struct LaunchRecord {
  const char* kernel;
  int64_t blocks;
  int threads;
  int64_t shared_bytes;
  int cluster;
  bool dependent;
  LaunchPurpose purpose{};
  LaunchWork work{};
};

class TensorMaps;   // see tensor_maps.h
class LaunchTimer;  // see launch_timer.h

// Tells a timer of a launch that was just made.
void after_launch(LaunchTimer& timer);

// Launches on one stream with nothing between them, of kernels that keep to these rules: all but the first
// may begin before the one before has ended (programmatic dependent launch). Until it has waited for it
// (`wait_for_previous_launch` in device.cuh) a kernel reads parameters alone, which none of the launches
// writes, and writes nothing; and each of its blocks waits, so that a launch has not ended before all those
// before it have. The first one begins when everything before it on the stream has ended.
class Sequence {
 public:
  // `dependent`: whether they may indeed; see `dependent_launches`. `records`: gets all launches, unless it
  // is null. `maps`: what the run before has left, or null. `timer`: is told of all launches, unless it is
  // null.
  explicit Sequence(bool dependent, std::vector<LaunchRecord>* records = nullptr, TensorMaps* maps = nullptr,
                    LaunchTimer* timer = nullptr)
      : dependent_(dependent), records_(records), maps_(maps), timer_(timer) {}

  bool next_is_dependent() const { return dependent_ && begun_; }
  TensorMaps* maps() const { return maps_; }
  void add(LaunchRecord record) {
    begun_ = true;
    record.purpose = purpose_;
    if (records_ != nullptr) records_->push_back(record);
    if (timer_ != nullptr) after_launch(*timer_);
  }

  // Of the launches from now on.
  void set_purpose(const LaunchPurpose& purpose) { purpose_ = purpose; }

 private:
  bool dependent_, begun_ = false;
  LaunchPurpose purpose_;
  std::vector<LaunchRecord>* records_;
  TensorMaps* maps_;
  LaunchTimer* timer_;
};

// A cudaStream_t, and the sequence that a launch belongs to, if any.
class Stream {
 public:
  Stream(void* handle, Sequence* sequence = nullptr) : handle_(handle), sequence_(sequence) {}

  void* handle() const { return handle_; }
  Sequence* sequence() const { return sequence_; }
  bool next_is_dependent() const { return sequence_ != nullptr && sequence_->next_is_dependent(); }

 private:
  void* handle_;
  Sequence* sequence_;
};

// Whether launches on the current device may be dependent: compute capability 9.0 or newer with device code
// for it, a driver of CUDA 12.3 or newer, since older ones do not capture them in graphs; and
// EFFKERNELS_DEPENDENT_LAUNCH is not 0.
bool dependent_launches();

}  // namespace effkernels::cuda
