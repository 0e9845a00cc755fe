// The fibres of the host shim.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "scheduler.h"

#ifdef EFFKERNELS_SANITIZED
#include <sanitizer/asan_interface.h>
#else
// AddressSanitizer must be told of changes of stacks; without it there is nothing to tell.
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#endif

namespace effkernels::host_shim {

Scheduler scheduler;

namespace {

constexpr size_t kStackBytes = 128 * 1024;

// What `cuda::device_limits` says: of the smallest GPUs, and few multiprocessors, so that small cases too are
// more than it runs at once.
constexpr cuda::DeviceLimits kSmall{2, cuda::kMostSharedBytes, cuda::kMostSharedBytes + cuda::kReservedBytes};
cuda::DeviceLimits device = kSmall;

uint64_t site_of(const Where& where) {
  const uint64_t file = reinterpret_cast<uintptr_t>(where.file_name());
  return file ^ uint64_t{where.line()} << 48 ^ uint64_t { where.column() } << 40;
}

void yield(State state, uint64_t site) {
  Fibre& fibre = *scheduler.current;
  fibre.state = state;
  fibre.site = site;
  const bool done = state == State::kDone;
  __sanitizer_start_switch_fiber(done ? nullptr : &fibre.fake_stack, scheduler.stack, scheduler.stack_bytes);
  switch_stacks(fibre.context, scheduler.context);
  __sanitizer_finish_switch_fiber(fibre.fake_stack, nullptr, nullptr);
}

void fibre_main() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.stack_bytes);
  (*scheduler.kernel)();
  yield(State::kDone, 0);
}

void resume(Fibre& fibre) {
  scheduler.current = &fibre;
  __sanitizer_start_switch_fiber(&scheduler.fake_stack, fibre.stack.get(), kStackBytes);
  switch_stacks(scheduler.context, fibre.context);
  __sanitizer_finish_switch_fiber(scheduler.fake_stack, nullptr, nullptr);
}

void start(Fibre& fibre, const Place& place) {
  if (!fibre.stack) fibre.stack.reset(new char[kStackBytes]);
  fibre.place = place;
  fibre.state = State::kReady;
  fibre.exchanges = fibre.arrivals = fibre.waits = 0;
  fibre.copies.clear();
  fibre.groups.clear();
  fibre.fake_stack = nullptr;
  begin_on(fibre.context, fibre.stack.get(), kStackBytes, fibre_main);
}

// Lets go on those in [begin, end) that all wait in `state` at one site, and says whether they did. With
// `what`, where they cannot, leaves a message.
bool release(State state, int begin, int end, const char* what = nullptr) {
  int waiting = 0;
  uint64_t site = 0;
  bool same = true;
  for (int i = begin; i < end; ++i) {
    const Fibre& fibre = scheduler.fibres[i];
    if (fibre.state != state) continue;
    same = same && (waiting == 0 || fibre.site == site);
    site = fibre.site;
    ++waiting;
  }
  if (waiting == 0) return false;
  if (!same || waiting < end - begin) {
    if (what != nullptr) {
      scheduler.error = std::string(what) + " missed: " + std::to_string(waiting) + " of " +
                        std::to_string(end - begin) + " threads wait" + (same ? "" : ", at different ones");
    }
    return false;
  }
  for (int i = begin; i < end; ++i) scheduler.fibres[i].state = State::kReady;
  return true;
}

bool release_warps(int threads, const char* what = nullptr) {
  bool any = false;
  for (int first = 0; first < threads && scheduler.error.empty(); first += cuda::kWarp) {
    any = release(State::kWarp, first, std::min(threads, first + cuda::kWarp), what) || any;
  }
  return any;
}

// Lets go on those whose event has happened.
bool release_events(int threads) {
  bool any = false;
  for (int i = 0; i < threads; ++i) {
    Fibre& fibre = scheduler.fibres[i];
    if (fibre.state != State::kEvent || !fibre.happened()) continue;
    fibre.state = State::kReady;
    any = true;
  }
  return any;
}

// Those of `count` fibres, block by block.
bool release_blocks(int threads, int count, const char* what = nullptr) {
  bool any = false;
  for (int first = 0; first < count && scheduler.error.empty(); first += threads) {
    any = release(State::kBlock, first, first + threads, what) || any;
  }
  return any;
}

// Nothing can go on: a message that says why, unless all are done. `threads` of each of `count` fibres are of
// a block.
void complain(int threads, int count) {
  int waiting = 0;
  const Fibre* first = nullptr;
  for (int i = 0; i < count; ++i) {
    const Fibre& fibre = scheduler.fibres[i];
    if (fibre.state != State::kEvent) continue;
    if (first == nullptr) first = &fibre;
    ++waiting;
  }
  if (first != nullptr) {
    scheduler.error = "deadlock: " + std::to_string(waiting) + " of " + std::to_string(count) +
                      " threads wait, thread " + std::to_string(first->place.thread) + " for " + first->event;
    return;
  }
  release_warps(count, "a warp's exchange was");
  if (scheduler.error.empty()) release_blocks(threads, count, "a barrier was");
}

// Runs the fibres of the blocks of a cluster, of so many threads each, to their end.
bool run_fibres(int threads, std::vector<int>& order) {
  const auto count = static_cast<int>(order.size());
  for (;;) {
    std::shuffle(order.begin(), order.end(), scheduler.random);
    for (const int i : order) {
      if (scheduler.fibres[i].state != State::kReady) continue;
      resume(scheduler.fibres[i]);
      if (!scheduler.error.empty()) return false;
    }
    // What was launched before can be seen, and copies land, last, when all others that can have gone on:
    // whoever does not wait reads something else.
    if (release_events(count) || release_warps(count) || release_blocks(threads, count) ||
        show_previous_launch() || land_a_copy()) {
      continue;
    }
    complain(threads, count);
    return scheduler.error.empty();
  }
}

}  // namespace

void wait_until(std::function<bool()> happened, std::string event) {
  if (happened()) return;
  scheduler.current->happened = std::move(happened);
  scheduler.current->event = std::move(event);
  yield(State::kEvent, 0);
}

void fail(std::string message) {
  scheduler.error = std::move(message);
  for (;;) yield(State::kDone, 0);
}

std::string place_of(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

const Place& here() { return scheduler.current->place; }

void wait_for_block(const Where& where) { yield(State::kBlock, site_of(where)); }

const Words* meet(const Words& shown, const Where& where) {
  // In turns: who is late still reads one when who is early writes the other.
  const int thread = here().rank * here().threads + here().thread,
            turn = static_cast<int>(scheduler.current->exchanges++ % 2);
  Words* slots = scheduler.slots.data() + turn * (scheduler.slots.size() / 2);
  slots[thread] = shown;
  yield(State::kWarp, site_of(where));
  return slots + thread / cuda::kWarp * cuda::kWarp;
}

// Most of what the shim does: compiled as fast as it can be, since it reads nothing but the words of a warp.
[[gnu::optimize("O3"), gnu::no_sanitize("address", "undefined")]] void add_products(const Words* lanes,
                                                                                    int terms,
                                                                                    float (*value)(uint16_t),
                                                                                    float (&sums)[4]) {
  const int lane = here().thread % cuda::kWarp;
  // Two rows of a, and two columns of b.
  float rows[2][16], columns[2][16];
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4, column = lane % 4 * 2 + i;
    for (int k = 0; k < terms; ++k) {
      const int quarter = k % 8 / 2, upper = k / 8, shift = k % 2 * 16;
      rows[i][k] = value(static_cast<uint16_t>(lanes[row * 4 + quarter].data()[2 * upper + i] >> shift));
      columns[i][k] = value(static_cast<uint16_t>(lanes[column * 4 + quarter].data()[4 + upper] >> shift));
    }
  }
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < terms; ++k) sums[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

void start_copy(void* to, const void* from, bool valid) {
  // Made when they are waited for: whoever does not wait reads something else.
  if (valid) check_copy(from, "thread " + std::to_string(here().thread));
  scheduler.current->copies.push_back({to, from, valid});
}

namespace {

// Makes the first `count` copies of the fibre.
void finish_first_copies(size_t count) {
  struct alignas(16) Sixteen {
    uint64_t words[2];
  };
  std::vector<Copy>& copies = scheduler.current->copies;
  for (size_t i = 0; i < count; ++i) {
    const Copy& copy = copies[i];
    // As an aligned access, which UndefinedBehaviorSanitizer checks.
    *static_cast<Sixteen*>(copy.to) = copy.valid ? *static_cast<const Sixteen*>(copy.from) : Sixteen{};
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace

void end_copy_group() { scheduler.current->groups.push_back(scheduler.current->copies.size()); }

void finish_copies_but(int newest_groups) {
  std::vector<size_t>& groups = scheduler.current->groups;
  const auto open = static_cast<size_t>(newest_groups);
  if (groups.size() <= open) return;
  const size_t ended = groups.size() - open, count = groups[ended - 1];
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(ended));
  for (size_t& end : groups) end -= count;
  finish_first_copies(count);
}

void finish_copies() {
  finish_first_copies(scheduler.current->copies.size());
  scheduler.current->groups.clear();
}

void set_seed(uint64_t seed) { scheduler.random.seed(seed); }

void set_device(const cuda::DeviceLimits* limits) { device = limits == nullptr ? kSmall : *limits; }

const char* run(const std::function<void()>& kernel, const cuda::Grid& grid, const cuda::Stream& stream) {
  if (grid.blocks > cuda::kMostBlocks) return "the tensors are too large for one launch";
  if (grid.blocks < 1 || grid.threads < 1 || grid.threads > 1024 || grid.shared_bytes < 0 ||
      grid.shared_bytes > device.block_shared_bytes || grid.cluster < 1 || grid.cluster > 8 ||
      grid.blocks % grid.cluster != 0 || (grid.cluster > 1 && grid.threads % cuda::kWarp != 0)) {
    return "invalid configuration argument";  // CUDA's words
  }
  scheduler.kernel = &kernel;
  if (!scheduler.error.empty()) {
    // Of a launch that was ended, in the middle of functions.
    for ([[maybe_unused]] const Fibre& fibre : scheduler.fibres) {
      ASAN_UNPOISON_MEMORY_REGION(fibre.stack.get(), fibre.stack ? kStackBytes : 0);
    }
    scheduler.error.clear();
  }
  const int running = grid.threads * grid.cluster;
  scheduler.running = running;
  scheduler.fibres.resize(std::max<size_t>(scheduler.fibres.size(), running));
  Words unseen;
  unseen.fill(UINT32_MAX);  // NaN
  scheduler.slots.assign(2 * cuda::kWarp * ((running + cuda::kWarp - 1) / cuda::kWarp), unseen);
  std::vector<int64_t> blocks(grid.blocks / grid.cluster);  // the first of each cluster, in clusters
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), scheduler.random);
  std::vector<int> order(running);
  std::iota(order.begin(), order.end(), 0);
  for (const int64_t block : blocks) {
    std::vector<std::unique_ptr<void, decltype(&std::free)>> owners;
    scheduler.shared.clear();
    for (int rank = 0; rank < grid.cluster; ++rank) {
      // At an address that is aligned to 16 bytes and to no more, as kSharedBase says.
      constexpr size_t kAlignment = 1024, kBefore = kSharedBase % kAlignment;
      void* memory = nullptr;
      if (posix_memalign(&memory, kAlignment, kBefore + grid.shared_bytes) != 0) return "out of memory";
      owners.emplace_back(memory, &std::free);
      char* shared = static_cast<char*>(memory) + kBefore;
      std::memset(shared, 0xff, grid.shared_bytes);
      scheduler.shared.push_back(shared);
      for (int i = 0; i < grid.threads; ++i) {
        start(scheduler.fibres[rank * grid.threads + i],
              {i, grid.threads, block * grid.cluster + rank, shared, rank});
      }
    }
    start_copies(grid.threads);
    start_warpgroups(grid.threads);
    start_block(stream);
    if (!run_fibres(grid.threads, order)) return scheduler.error.c_str();
    for (int i = 0; i < running; ++i) {
      if (scheduler.fibres[i].arrivals != scheduler.fibres[i].waits) {
        return "a barrier of a cluster was arrived at and not waited for";
      }
      if (!scheduler.fibres[i].copies.empty()) return "copies were started and not waited for";
    }
    scheduler.error = copies_left(grid.threads);
    if (scheduler.error.empty()) scheduler.error = products_left(grid.threads);
    if (scheduler.error.empty()) scheduler.error = waits_left(stream);
    if (!scheduler.error.empty()) return scheduler.error.c_str();
  }
  clock_launch(grid, stream.next_is_dependent());
  if (stream.sequence() != nullptr) stream.sequence()->add(grid.record(stream.next_is_dependent()));
  return nullptr;
}

}  // namespace effkernels::host_shim

effkernels::cuda::DeviceLimits effkernels::cuda::device_limits() { return host_shim::device; }

namespace effkernels::host_shim {

uint16_t half_bits(float x) {
  const auto sign = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16 & 0x8000);
  const double size = std::fabs(static_cast<double>(x));
  if (std::isnan(x)) return 0x7fff;
  if (size >= 65520.0) return sign | 0x7c00;
  if (size == 0.0) return sign;
  // In units of the last place, rounded to the nearest, ties to even.
  const int exponent = std::max(std::ilogb(size), -14);
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + units);
}

namespace {

float compute_half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float size = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                     : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

}  // namespace

float half_value(uint16_t bits) {
  static const std::vector<float> values = [] {
    std::vector<float> made(1 << 16);
    for (size_t i = 0; i < made.size(); ++i) made[i] = compute_half_value(static_cast<uint16_t>(i));
    return made;
  }();
  return values[bits];
}

}  // namespace effkernels::host_shim
