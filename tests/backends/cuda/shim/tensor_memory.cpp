// Tensor memory in the host shim: mbarriers, loads and stores of boxes.

#include "cuda/common/tensor_memory.cuh"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "scheduler.h"

namespace effkernels::host_shim {

bool tensor_memory_there = true;
int64_t encoded_maps = 0;

namespace {

using cuda::Swizzle;
using cuda::TensorBoxes;

struct Mbarrier {
  int arrivals, awaited;  // in a phase, and of this one still
  int64_t bytes = 0;      // still expected; below 0 what has come before it was
  uint64_t phase = 0;
  bool fenced = false;
  int maker;

  void end_phase_if_all_came() {
    if (awaited > 0 || bytes != 0) return;
    ++phase;
    awaited = arrivals;
  }
};

struct Load {
  TensorBoxes boxes;
  uint32_t to, barrier;
  Corner corner;
};

struct Store {
  TensorBoxes boxes;
  uint32_t from;
  Corner corner;
  std::vector<char> bytes;  // as they were when it was started
  std::string place;
};

using Group = std::vector<Store>;

// Of one thread: what is not waited for yet.
struct Stores {
  Group open;
  std::vector<Group> unread, unwritten;
  std::set<uint32_t> unfenced;  // addresses of 16 bytes
};

struct TensorMemory {
  std::map<uint32_t, Mbarrier> mbarriers;
  std::set<uint32_t> waited_for;
  std::vector<Load> loads;
  std::vector<Stores> stores;
};

TensorMemory memory;

Stores& own_stores() { return memory.stores[here().thread]; }

int64_t bytes_of(const TensorBoxes& boxes) {
  int64_t bytes = size_of(boxes.dtype);
  for (int i = 0; i < boxes.sides; ++i) bytes *= boxes.box[i];
  return bytes;
}

// Calls f(place in shared memory, place in the tensor or null, bytes of an element) for each element of a
// box.
template <class F>
void for_elements(const TensorBoxes& boxes, uint32_t start, const Corner& corner, const F& f) {
  const int size = size_of(boxes.dtype);
  const int64_t count = bytes_of(boxes) / size;
  int at[cuda::kMostSides] = {};
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    bool inside = true;
    for (int side = 0; side < boxes.sides; ++side) {
      const int64_t index = int64_t{corner.at[side]} + at[side];
      inside = inside && index >= 0 && index < boxes.size[side];
      offset += index * (side == 0 ? size : boxes.stride[side]);
    }
    const uint32_t address = cuda::swizzled(boxes.swizzle, start + static_cast<uint32_t>(i * size));
    const char* data = static_cast<const char*>(boxes.data);
    f(address, inside ? data + offset : nullptr, size);
    for (int side = 0; side < boxes.sides && ++at[side] == boxes.box[side]; ++side) at[side] = 0;
  }
}

std::string thread_at(const Where& where) {
  return "thread " + std::to_string(here().thread) + " at " + place_of(where);
}

// What a copy of a box asks of its arguments, but for a barrier.
void check_box(const cuda::TensorMap& map, uint32_t address, const Corner& corner, const Where& where) {
  if (corner.sides != map.boxes.sides) fail("the box has another number of sides: " + thread_at(where));
  check_copy(map.boxes.data, thread_at(where));
  if (address % 128 != 0) fail("the box is not aligned to 128 bytes of shared memory: " + thread_at(where));
}

Mbarrier& mbarrier_at(uint32_t barrier, const Where& where) {
  const auto found = memory.mbarriers.find(barrier);
  if (found == memory.mbarriers.end()) fail("no mbarrier was made there: " + thread_at(where));
  return found->second;
}

void land(const Load& load) {
  for_elements(load.boxes, load.to, load.corner, [](uint32_t to, const char* from, int size) {
    if (from != nullptr) {
      std::memcpy(shared_pointer(to), from, size);
    } else {
      std::memset(shared_pointer(to), 0, size);
    }
  });
  Mbarrier& mbarrier = memory.mbarriers.at(load.barrier);
  mbarrier.bytes -= bytes_of(load.boxes);
  mbarrier.end_phase_if_all_came();
}

// Bytes of the box in shared memory, in the order of the tensor.
std::vector<char> bytes_in_shared(const TensorBoxes& boxes, uint32_t from, const Corner& corner) {
  std::vector<char> bytes;
  for_elements(boxes, from, corner, [&](uint32_t address, const char*, int size) {
    bytes.insert(bytes.end(), shared_pointer(address), shared_pointer(address) + size);
  });
  return bytes;
}

void check_read(const Group& group) {
  for (const Store& store : group) {
    if (bytes_in_shared(store.boxes, store.from, store.corner) != store.bytes) {
      fail("shared memory was written before a store had read it: " + store.place);
    }
  }
}

void write(const Group& group) {
  for (const Store& store : group) {
    const char* from = store.bytes.data();
    for_elements(store.boxes, store.from, store.corner, [&](uint32_t, const char* to, int size) {
      if (to != nullptr) std::memcpy(const_cast<char*>(to), from, size);
      from += size;
    });
  }
}

}  // namespace

void make_mbarrier(uint32_t barrier, int arrivals) {
  if (barrier % 8 != 0 || arrivals < 1) fail("an mbarrier must be aligned to 8 bytes, and wait for a thread");
  std::memset(shared_pointer(barrier), 0, 8);
  memory.mbarriers[barrier] = Mbarrier{.arrivals = arrivals, .awaited = arrivals, .maker = here().thread};
}

void fence_mbarriers() {
  for (auto& [address, mbarrier] : memory.mbarriers) {
    if (mbarrier.maker == here().thread) mbarrier.fenced = true;
  }
}

void arrive(uint32_t barrier, int64_t bytes, const Where& where) {
  Mbarrier& mbarrier = mbarrier_at(barrier, where);
  mbarrier.bytes += bytes;
  if (--mbarrier.awaited < 0) fail("more threads arrive than an mbarrier was made for: " + thread_at(where));
  mbarrier.end_phase_if_all_came();
}

void wait_for_phase(uint32_t barrier, uint32_t parity, const Where& where) {
  mbarrier_at(barrier, where);
  wait_until(
      [=] {
        const bool ended = memory.mbarriers.at(barrier).phase % 2 != parity;
        if (!ended) memory.waited_for.insert(barrier);
        return ended;
      },
      "an mbarrier with parity " + std::to_string(parity) + " at " + place_of(where));
}

void start_load(uint32_t to, const cuda::TensorMap& map, const Corner& corner, uint32_t barrier,
                const Where& where) {
  check_box(map, to, corner, where);
  if (!mbarrier_at(barrier, where).fenced) {
    fail("a copy uses an mbarrier before mbarrier_init_fence: " + thread_at(where));
  }
  for_elements(map.boxes, to, corner, [](uint32_t address, const char*, int size) {
    std::memset(shared_pointer(address), 0xff, size);
  });
  memory.loads.push_back({map.boxes, to, barrier, corner});
}

void start_store(const cuda::TensorMap& map, uint32_t from, const Corner& corner, const Where& where) {
  check_box(map, from, corner, where);
  const auto end = from + static_cast<uint32_t>(bytes_of(map.boxes));
  for (size_t i = 0; i < memory.stores.size(); ++i) {
    const auto& unfenced = memory.stores[i].unfenced;
    const auto first = unfenced.lower_bound(from);
    if (first != unfenced.end() && *first < end) {
      fail("a store reads what thread " + std::to_string(i) + " has not fenced: " + thread_at(where));
    }
  }
  own_stores().open.push_back(
      {map.boxes, from, corner, bytes_in_shared(map.boxes, from, corner), thread_at(where)});
}

void note_stored(uint32_t address) { own_stores().unfenced.insert(address / 16 * 16); }

void fence_stored() { own_stores().unfenced.clear(); }

void end_group() {
  Stores& own = own_stores();
  own.unread.push_back(std::move(own.open));
  own.open.clear();
}

void wait_for_groups(size_t left, bool written) {
  Stores& own = own_stores();
  while (own.unread.size() > left) {
    check_read(own.unread.front());
    own.unwritten.push_back(std::move(own.unread.front()));
    own.unread.erase(own.unread.begin());
  }
  while (written && own.unread.size() + own.unwritten.size() > left) {
    write(own.unwritten.front());
    own.unwritten.erase(own.unwritten.begin());
  }
}

void start_copies(int threads) {
  memory = {};
  memory.stores.resize(threads);
}

bool land_a_copy() {
  std::vector<size_t> waited;
  for (size_t i = 0; i < memory.loads.size(); ++i) {
    if (memory.waited_for.contains(memory.loads[i].barrier)) waited.push_back(i);
  }
  memory.waited_for.clear();
  if (waited.empty()) return false;
  const size_t i = waited[scheduler.random() % waited.size()];
  land(memory.loads[i]);
  memory.loads.erase(memory.loads.begin() + static_cast<std::ptrdiff_t>(i));
  return true;
}

std::string copies_left(int threads) {
  if (!memory.loads.empty()) return "loads of boxes were started and not waited for";
  for (int i = 0; i < threads; ++i) {
    Stores& stores = memory.stores[i];
    stores.unread.push_back(stores.open);
    for (const Group& group : stores.unread) {
      if (!group.empty()) return "a store was started and not waited for: " + group.front().place;
    }
    for (const Group& group : stores.unwritten) write(group);
  }
  return {};
}

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

// Refuses what the driver does.
const char* encode(const TensorBoxes& boxes, TensorMap& map) {
  const int size = size_of(boxes.dtype);
  if (boxes.sides < 1 || boxes.sides > kMostSides) return "a tensor map has 1 to 5 sides";
  if (reinterpret_cast<uintptr_t>(boxes.data) % 16 != 0) return "a tensor map is aligned to 16 bytes";
  for (int i = 0; i < boxes.sides; ++i) {
    if (boxes.size[i] < 1 || boxes.size[i] > int64_t{1} << 32) return "sides of a tensor map: 1 to 2^32";
    if (boxes.box[i] < 1 || boxes.box[i] > 256) return "sides of a box: 1 to 256";
    if (i > 0 && (boxes.stride[i] % 16 != 0 || boxes.stride[i] >= int64_t{1} << 40 || boxes.stride[i] < 0)) {
      return "strides of a tensor map: multiples of 16 bytes below 2^40";
    }
  }
  const int inner = boxes.box[0] * size;
  const int most = boxes.swizzle == Swizzle::k32Bytes ? 32 : boxes.swizzle == Swizzle::k64Bytes ? 64 : 128;
  if (inner % 16 != 0) return "the inner side of a box: multiples of 16 bytes";
  if (boxes.swizzle != Swizzle::kNone && inner > most)
    return "the inner side of a box is longer than its swizzle";
  map.boxes = boxes;
  ++host_shim::encoded_maps;
  return nullptr;
}

}  // namespace effkernels::cuda
