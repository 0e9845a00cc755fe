#pragma once

// What the sources of the host shim share: the fibres, and how one of them waits.

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/common/device.cuh"
#include "stacks.h"

namespace effkernels::host_shim {

enum class State : uint8_t { kReady, kBlock, kWarp, kEvent, kDone };

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Fibre {
  Context context;
  std::unique_ptr<char[]> stack;
  void* fake_stack;
  Place place;
  State state;
  uint64_t site;                   // of kBlock and kWarp
  std::function<bool()> happened;  // of kEvent: whether what it waits for has
  std::string event;               // and what that is, for people
  int64_t exchanges;
  int64_t arrivals, waits;  // at barriers of the cluster
  std::vector<Copy> copies;
  std::vector<size_t> groups;  // copies before the end of each group that is open
};

struct Scheduler {
  Context context;
  void* fake_stack;
  const void* stack;
  size_t stack_bytes;
  std::vector<Fibre> fibres;  // kept: making stacks is slow
  int running;                // those of the cluster that runs
  std::vector<char*> shared;  // memory of each of its blocks
  std::vector<Words> slots;   // two a lane
  const std::function<void()>* kernel;
  Fibre* current;
  std::mt19937_64 random{1};
  std::string error;
};

// Of the process, in which one thread launches.
extern Scheduler scheduler;

// Stops the fibre until this has happened, which something else must bring about: another fibre, or a copy
// that lands. `event` says what it is, for the message where nothing does.
void wait_until(std::function<bool()> happened, std::string event);

// Ends the launch with this message.
[[noreturn]] void fail(std::string message);

// "file:line" in a kernel.
std::string place_of(const Where& where);

// Bytes of shared memory of the block at an address.
inline char* shared_pointer(uint32_t address) { return here().shared + (address - kSharedBase); }

// Of tensor_memory.cpp. For each block: what of the last one is forgotten; lets one of the copies that are
// waited for land, and says whether there was one; what was started and not waited for, or an empty text.
void start_copies(int threads);
bool land_a_copy();
std::string copies_left(int threads);

// Of dependent.cpp. For each block: hides what the launch before has written, where it may not be seen yet;
// lets those who wait for it see it, and says whether there are any; what a block has not done, or an empty
// text.
void start_block(const cuda::Stream& stream);
bool show_previous_launch();
std::string waits_left(const cuda::Stream& stream);
// Ends the launch if a copy that is started now, from or to this address, touches what is hidden.
void check_copy(const void* address, const std::string& place);

// Of clocks.cpp: the clocks go on by a launch.
void clock_launch(const cuda::Grid& grid, bool dependent);

// Of warpgroup.cpp: as start_copies and copies_left, of products.
void start_warpgroups(int threads);
std::string products_left(int threads);

}  // namespace effkernels::host_shim
