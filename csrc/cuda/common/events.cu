// Events of the CUDA runtime. The tests have a stand-in.

#include "cuda/common/events.h"

#include <cuda_runtime.h>

namespace effkernels::cuda {
namespace {

const char* message_of(cudaError_t status) {
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // clears it: the next launch would report it otherwise
  return cudaGetErrorString(status);
}

cudaEvent_t as_event(void* event) { return static_cast<cudaEvent_t>(event); }

__device__ uint64_t nanoseconds_now() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// One thread, which looks at the clock until it is time.
__global__ void hold_up_kernel(uint64_t nanoseconds) {
  const uint64_t begin = nanoseconds_now();
  while (nanoseconds_now() - begin < nanoseconds) {
  }
}

}  // namespace

Events::~Events() {
  for (void* event : events_) cudaEventDestroy(as_event(event));
}

const char* Events::make(size_t count) {
  while (events_.size() < count) {
    cudaEvent_t event = nullptr;
    if (const char* error = message_of(cudaEventCreate(&event))) return error;
    events_.push_back(event);
  }
  return nullptr;
}

const char* Events::record(size_t event, void* stream) {
  return message_of(cudaEventRecord(as_event(events_[event]), static_cast<cudaStream_t>(stream)));
}

bool Events::passed(size_t event) const {
  const cudaError_t status = cudaEventQuery(as_event(events_[event]));
  if (status != cudaSuccess) cudaGetLastError();  // "not ready" counts as an error, too
  return status == cudaSuccess;
}

const char* Events::wait(size_t event) const {
  return message_of(cudaEventSynchronize(as_event(events_[event])));
}

const char* Events::milliseconds(size_t from, size_t to, float& found) const {
  return message_of(cudaEventElapsedTime(&found, as_event(events_[from]), as_event(events_[to])));
}

const char* hold_up(void* stream, int64_t microseconds) {
  hold_up_kernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<uint64_t>(microseconds) * 1000);
  return message_of(cudaGetLastError());
}

}  // namespace effkernels::cuda
