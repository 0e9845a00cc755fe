// Products of warpgroups in the host shim, and named barriers.

#include "cuda/common/warpgroup.cuh"

#include <map>

#include "scheduler.h"

namespace effkernels::host_shim {

bool warpgroup_products_there = false;
int64_t warpgroup_products_started = 0;

namespace {

constexpr int kRowBytes = 128, kTerms = 16, kWarpRows = 16;

struct Started {
  Product product;
  std::vector<uint16_t> a, b;  // what it reads of shared memory, of the first lane alone
  std::string place;
};

// Of one thread.
struct Products {
  std::vector<Started> open;
  std::vector<std::vector<Started>> groups;
  bool fenced = false;
  int64_t count = 0;
};

struct NamedBarrier {
  int arrived = 0, threads = 0;
  uint64_t phase = 0;
};

struct Warpgroups {
  std::vector<Products> products;
  std::map<int, NamedBarrier> barriers;
};

Warpgroups warpgroups;

Products& own_products() { return warpgroups.products[here().thread]; }

// Rows [first, first + count) of an operand, 16 elements each. The hardware swizzles addresses, not rows.
std::vector<uint16_t> read_operand(uint64_t descriptor, int first, int count, const std::string& place) {
  const auto start = static_cast<uint32_t>((descriptor & 0x3fff) << 4);
  const auto eight_rows = static_cast<uint32_t>((descriptor >> 32 & 0x3fff) << 4);
  if (descriptor >> 62 != 1) fail("an operand of products without the swizzle of 128 bytes: " + place);
  if (start / kRowBytes % 8 != 0) fail("an operand of products is not aligned to 1024 bytes: " + place);
  std::vector<uint16_t> elements;
  for (int row = first; row < first + count; ++row) {
    for (int k = 0; k < kTerms; ++k) {
      const uint32_t at = start + static_cast<uint32_t>(row / 8) * eight_rows +
                          static_cast<uint32_t>(row % 8 * kRowBytes + k * 2);
      elements.push_back(
          *reinterpret_cast<const uint16_t*>(shared_pointer(cuda::swizzled(cuda::Swizzle::k128Bytes, at))));
    }
  }
  return elements;
}

void read_operands(Started& started) {
  const Product& product = started.product;
  started.b = read_operand(product.b_rows, 0, product.columns, started.place);
  if (product.in_registers) return;
  const int warp = here().thread % cuda::kWarpgroup / cuda::kWarp;
  started.a = read_operand(product.a_rows, warp * kWarpRows, kWarpRows, started.place);
}

// Where the first lane of this warp keeps the same product.
const Started& of_first_lane(size_t group, size_t i) {
  return warpgroups.products[here().thread / cuda::kWarp * cuda::kWarp].groups[group][i];
}

void multiply(const Product& own, const Started& shared, const Words* lanes) {
  const int lane = here().thread % cuda::kWarp;
  const auto a = [&](int row, int k) {
    if (!own.in_registers) return own.value(shared.a[row * kTerms + k]);
    const uint32_t word = lanes[row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8];
    return own.value(static_cast<uint16_t>(word >> 16 * (k % 2)));
  };
  float rows[2][kTerms];
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < kTerms; ++k) rows[half][k] = a(lane / 4 + half * 8, k);
  }
  for (int i = 0; i < own.columns / 2; ++i) {
    const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    float sum = own.add ? own.sums[i] : 0.0f;
    for (int k = 0; k < kTerms; ++k) sum += rows[i % 4 / 2][k] * own.value(shared.b[column * kTerms + k]);
    own.sums[i] = sum;
  }
}

}  // namespace

void start_warpgroups(int threads) {
  warpgroups = {};
  warpgroups.products.resize(threads);
}

std::string products_left(int threads) {
  for (int i = 0; i < threads; ++i) {
    const Products& own = warpgroups.products[i];
    if (!own.open.empty() || !own.groups.empty()) return "products were started and not waited for";
    if (own.count != warpgroups.products[i / cuda::kWarpgroup * cuda::kWarpgroup].count) {
      return "a warpgroup's product was missed: thread " + std::to_string(i) + " has started " +
             std::to_string(own.count);
    }
  }
  return {};
}

void fence_products() { own_products().fenced = true; }

void start_product(const Product& product, const Where& where) {
  Products& own = own_products();
  const std::string place = "thread " + std::to_string(here().thread) + " at " + place_of(where);
  if (!own.fenced) fail("products were started without warpgroup_fence: " + place);
  ++own.count;
  ++warpgroup_products_started;
  own.open.push_back({product, {}, {}, place});
  if (here().thread % cuda::kWarp == 0) read_operands(own.open.back());
}

void end_products() {
  Products& own = own_products();
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

void wait_for_products(size_t left, const Where& where) {
  Products& own = own_products();
  own.fenced = false;
  meet({}, where);  // all have started the same
  const size_t count = own.groups.size() > left ? own.groups.size() - left : 0;
  for (size_t group = 0; group < count; ++group) {
    for (size_t i = 0; i < own.groups[group].size(); ++i) {
      const Started& started = own.groups[group][i];
      if (here().thread % cuda::kWarp == 0) {
        Started now{started.product, {}, {}, started.place};
        read_operands(now);
        if (now.a != started.a || now.b != started.b) {
          fail("shared memory was written before products had read it: " + started.place);
        }
      }
      const Product& product = started.product;
      const Words* lanes = meet({product.a[0], product.a[1], product.a[2], product.a[3]}, where);
      multiply(product, of_first_lane(group, i), lanes);
    }
  }
  meet({}, where);  // the first lane's are not needed any more
  own.groups.erase(own.groups.begin(), own.groups.begin() + static_cast<std::ptrdiff_t>(count));
}

void wait_for_named_barrier(int id, int threads, const Where& where) {
  if (id < 1 || id > 15 || threads % cuda::kWarp != 0) fail("named barriers have numbers 1 to 15, and warps");
  NamedBarrier& barrier = warpgroups.barriers[id];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads) fail("two sizes of one named barrier at " + place_of(where));
  const uint64_t phase = barrier.phase;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.phase;
  }
  wait_until([=] { return warpgroups.barriers.at(id).phase != phase; },
             "named barrier " + std::to_string(id) + " at " + place_of(where));
}

}  // namespace effkernels::host_shim
