#include "cpu/isa/dense.h"

#include "cpu/isa/activation.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/pairs.h"
#include "cpu/isa/product.h"
#include "cpu/runtime/clock.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Rows that are multiplied, activated and stored together: their results stay in the first-level cache.
constexpr int kStripRows = 24;
// The same of products of pairs.
constexpr int kPairStripRows = PairProduct::kRows;

// How a product is split: into groups of rows, and each group into chunks of output channels.
struct Cut {
  bool gate_rows;      // multiply the gate into the rows; else into the weights, per image
  int64_t group_rows;  // one image if packed weights or means differ per image; else as many as stay in the
                       // second-level cache with their results, of which each chunk writes a part
  int64_t groups;
  int width, chunks;
  int packing_rows;  // multiplying so many rows with a chunk costs as much as packing its weights
  int strip_rows;
  int workers;
};

// Measured with a product of floats and with tiles.
constexpr int kPackingRows = 8, kPairPackingRows = 32;

Cut cut(const Dense& d, int threads) {
  Cut c;
  const int64_t rows = d.images * d.pixels;
  const bool pairs = by_pairs(d.dtype);
  c.packing_rows = pairs ? kPairPackingRows : kPackingRows;
  c.strip_rows = pairs ? kPairStripRows : kStripRows;
  // Images with few pixels are not worth packing weights for each of them. Pairs of weights stay as they are.
  c.gate_rows = d.gate != nullptr && (pairs || (d.images > 1 && d.pixels < 128));
  const bool by_image = d.mean != nullptr || (d.gate != nullptr && !c.gate_rows);
  c.group_rows =
      by_image ? d.pixels
               : smaller(rows, larger<int64_t>(512, (int64_t{1} << 17) / (d.in_channels + d.out_channels)));
  c.groups = divide_up(rows, c.group_rows);
  c.width = chunk_width(d.out_channels);
  c.chunks = divide_up(d.out_channels, c.width);
  const int64_t chunks = c.groups * c.chunks;
  c.workers = static_cast<int>(smaller<int64_t>(
      threads, d.mean != nullptr ? chunks : divide_up<int64_t>(rows, c.packing_rows) * c.chunks));
  return c;
}

// Whether rows are converted before they are multiplied.
bool converts(const Dense& d, const Cut& c) {
  return c.gate_rows || d.x_dtype != (by_pairs(d.dtype) ? Dtype::kBFloat16 : Dtype::kFloat);
}

// Rows that are converted to pairs serve all chunks of their group.
int64_t kept_rows(const Cut& c) {
  return c.chunks > 1 ? round_up<int64_t>(c.group_rows, c.strip_rows) : c.strip_rows;
}

// Elements from one converted row to the next.
int64_t converted_stride(const Dense& d) {
  return by_pairs(d.dtype) ? round_up(d.in_channels, kNarrowTerms) : d.in_channels;
}

struct Memory {
  float *packed, *scale, *shift, *strip, *sums;
  float* rows;      // converted
  bool* converted;  // which strips of the group are in `rows`
  Clock clock;
};

Memory memory(Scratch& scratch, const Dense& d, const Cut& c) {
  Memory m;
  m.packed = scratch.take(packed_floats(d.in_channels, c.width, d.dtype));
  m.scale = scratch.take(c.width);
  m.shift = scratch.take(c.width);
  m.sums = scratch.take(c.width);
  m.strip = scratch.take(c.strip_rows * c.width);
  const bool pairs = by_pairs(d.dtype);
  const int64_t rows = pairs ? kept_rows(c) / 2 : c.strip_rows;
  m.rows = scratch.take(converts(d, c) ? rows * converted_stride(d) : 0);
  m.converted = reinterpret_cast<bool*>(scratch.take(pairs ? kept_rows(c) / c.strip_rows : 0));
  return m;
}

// The gate of a row, if it is multiplied into rows.
const float* gate_of(const Dense& d, const Cut& c, int64_t row) {
  return c.gate_rows ? d.gate + row / d.pixels * d.in_channels : nullptr;
}

// The rows of a strip as pairs, from row `begin` of the group that starts at row `group`. The whole strip is
// converted, from its row `first` on: other chunks may need its other rows.
PairRows pair_rows(const Dense& d, const Cut& c, const Memory& m, int64_t group, int64_t begin) {
  if (!converts(d, c)) {
    return {static_cast<const BFloat16*>(d.x) + (group + begin) * d.row_stride, d.row_stride, d.in_channels};
  }
  const int64_t stride = converted_stride(d), strip = begin / c.strip_rows, first = strip * c.strip_rows;
  auto* rows = reinterpret_cast<BFloat16*>(m.rows) + (c.chunks > 1 ? first * stride : 0);
  if (c.chunks == 1 || !m.converted[strip]) {
    const int64_t end = smaller(smaller(first + c.strip_rows, c.group_rows), d.images * d.pixels - group);
    for (int64_t i = first; i < end; ++i) {
      narrow_row(d.x, d.x_dtype, (group + i) * d.row_stride, d.in_channels, gate_of(d, c, group + i),
                 rows + (i - first) * stride);
    }
    if (c.chunks > 1) m.converted[strip] = true;
  }
  return {rows + (begin - first) * stride, stride, d.in_channels};
}

// Multiplies `count` rows of a group from `begin` by a chunk's packed weights, into m.strip. Results of pairs
// are activated there, too.
void multiply_strip(const Dense& d, const Cut& c, const Memory& m, PairProduct& product, int64_t group,
                    int64_t begin, int count, int width, Ahead& ahead) {
  if (by_pairs(d.dtype)) {
    const PairRows rows = pair_rows(d, c, m, group, begin);
    m.clock.lap(Work::kRows);
    product.multiply(rows, count, m.packed, width, m.strip, ahead);
    m.clock.lap(Work::kProduct);
    activate_scaled(d.activation, d.dtype, m.strip, count, width, m.scale, m.shift, m.strip);
    return m.clock.lap(Work::kActivation);
  }
  const int64_t first = group + begin;
  const float* x = static_cast<const float*>(d.x) + first * d.row_stride;
  Rows rows{&x, 1, d.in_channels, d.row_stride};
  if (converts(d, c)) {
    for (int i = 0; i < count; ++i) {
      widen_row(d.x, d.x_dtype, (first + i) * d.row_stride, d.in_channels, gate_of(d, c, first + i),
                m.rows + i * d.in_channels);
    }
    x = m.rows;
    rows.row_stride = d.in_channels;
    m.clock.lap(Work::kRows);
  }
  multiply(rows, 0, count, m.packed, width, m.shift, m.strip, width, ahead);
  m.clock.lap(Work::kProduct);
}

// Whether results are floats that nothing is added to, in whole vectors: they are stored as they are
// activated.
bool stores_activated(const Dense& d, int channels) {
  return d.dtype == Dtype::kFloat && d.y != nullptr && d.mean == nullptr && d.residual == nullptr &&
         channels % kLanes == 0;
}

// Stores the activations of a strip's results in rows of y, `stride` apart.
void activate_rows(Activation activation, const float* strip, int count, int width, float* y,
                   int64_t stride) {
  with_vectors(width, [&](auto vectors) {
    constexpr int kVectors = vectors;
    for (int i = 0; i < count; ++i, strip += kVectors * kLanes, y += stride) {
      Vec row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = load(strip + v * kLanes);
      activate(activation, Dtype::kFloat, row);
      for (int v = 0; v < kVectors; ++v) store(y + v * kLanes, row[v]);
    }
  });
}

void run_strip(const Dense& d, const Cut& c, const Memory& m, PairProduct& product, int64_t group,
               int64_t begin, int count, int64_t channel, int channels, Ahead& ahead) {
  const int width = round_up(channels, kLanes);
  multiply_strip(d, c, m, product, group, begin, count, width, ahead);
  const int64_t at = (group + begin) * d.out_channels + channel;
  if (stores_activated(d, channels)) {
    activate_rows(d.activation, m.strip, count, width, static_cast<float*>(d.y) + at, d.out_channels);
    return m.clock.lap(d.activation == Activation::kIdentity ? Work::kOutput : Work::kActivation);
  }
  if (!by_pairs(d.dtype)) {
    activate(d.activation, d.dtype, m.strip, static_cast<int64_t>(count) * width, m.strip);
    m.clock.lap(Work::kActivation);
  }
  if (d.y != nullptr) {
    store_rows(d.dtype, m.strip, count, width, channels, d.residual, d.y, at, d.out_channels);
  }
  if (d.mean != nullptr) {
    for (int v = 0; v < width; v += kLanes) {
      Vec total = broadcast(0.0f);
      for (int i = 0; i < count; ++i) total = total + load(m.strip + i * width + v);
      store(m.sums + v, load(m.sums + v) + total);
    }
  }
  m.clock.lap(Work::kOutput);
}

// Multiplies rows [begin, end) of a group of rows by the weights of one chunk.
void run_chunk(const Dense& d, const Cut& c, const Memory& m, PairProduct& product, int64_t group, int chunk,
               int64_t begin, int64_t end) {
  const int64_t channel = static_cast<int64_t>(chunk) * c.width;
  const int channels = smaller<int>(c.width, static_cast<int>(d.out_channels - channel));
  const int width = round_up(channels, kLanes);
  const float* gate = d.gate == nullptr || c.gate_rows ? nullptr : d.gate + group * d.in_channels;
  pack_product(d.weight, d.dtype, channel, channels, d.in_channels, d.norm, gate, width, m.packed, m.scale,
               m.shift);
  m.clock.lap(Work::kPacking);
  if (d.mean != nullptr) {
    for (int v = 0; v < width; v += kLanes) store(m.sums + v, broadcast(0.0f));
  }
  const int64_t next_channel = channel + channels;
  prefetch_norm(d.norm, next_channel,
                static_cast<int>(smaller<int64_t>(c.width, d.out_channels - next_channel)));
  Ahead ahead = weights_ahead(d.weight, d.dtype, next_channel, d.out_channels, d.in_channels, c.width);
  // Strips of pairs begin where they were converted.
  const int64_t align = by_pairs(d.dtype) ? c.strip_rows : 1;
  for (int64_t row = begin, next; row < end; row = next) {
    next = smaller(end, row - row % align + c.strip_rows);
    run_strip(d, c, m, product, group * c.group_rows, row, static_cast<int>(next - row), channel, channels,
              ahead);
  }
  if (d.mean != nullptr) {
    const float factor = 1.0f / static_cast<float>(d.pixels);
    for (int i = 0; i < channels; ++i) d.mean[group * d.out_channels + channel + i] = m.sums[i] * factor;
  }
}

// The row of a chunk at which a worker's part begins. Workers get equal shares of the work, counted in rows
// times vectors; in that count chunks follow each other, and `offset` is where this one begins. Both
// neighbours of a boundary compute it from the same numbers.
int64_t boundary(const Dense& d, const Cut& c, int64_t share, int64_t offset, int64_t rows, int vectors) {
  const int64_t within = larger<int64_t>(0, share - offset) / vectors;
  if (d.mean != nullptr)
    return 2 * within < rows + c.packing_rows ? 0 : rows;  // one worker computes all sums of a chunk
  if (within >= rows + c.packing_rows) return rows;
  return smaller(rows, round_up<int64_t>(larger<int64_t>(0, within - c.packing_rows / 2), c.packing_rows));
}

void run_worker(const Dense& d, const Cut& c, const Memory& m, int worker) {
  const int64_t all_rows = d.images * d.pixels;
  const int64_t vectors = divide_up(d.out_channels, kLanes);
  const int64_t work = (all_rows + c.groups * c.packing_rows) * vectors;
  const int64_t from = work * worker / c.workers, to = work * (worker + 1) / c.workers;
  int64_t offset = 0;
  PairProduct product;
  for (int64_t group = 0; group < c.groups && offset < to; ++group) {
    const int64_t rows = smaller(c.group_rows, all_rows - group * c.group_rows);
    if (by_pairs(d.dtype)) {
      for (int64_t i = 0; i < kept_rows(c) / c.strip_rows; ++i) m.converted[i] = false;
    }
    for (int chunk = 0; chunk < c.chunks; ++chunk) {
      const int width =
          smaller<int>(c.width / kLanes, static_cast<int>(vectors - chunk * (c.width / kLanes)));
      const int64_t begin = boundary(d, c, from, offset, rows, width);
      const int64_t end = worker + 1 == c.workers ? rows : boundary(d, c, to, offset, rows, width);
      if (begin < end) run_chunk(d, c, m, product, group, chunk, begin, end);
      offset += (rows + c.packing_rows) * width;
    }
  }
}

}  // namespace

int chunk_width(int channels) {
  int best = kLanes;
  int64_t best_cost = INT64_MAX;
  for (int vectors = 1; vectors <= kMaxChunkVectors; ++vectors) {
    const int width = vectors * kLanes;
    const int64_t chunks = divide_up(channels, width);
    // A chunk costs its vectors, plus loading the rows once more.
    const int64_t whole = divide_up(channels, kLanes);
    const int64_t cost = whole * 8 + chunks * 3;
    if (cost < best_cost) best = width, best_cost = cost;
  }
  return best;
}

int64_t dense_scratch(const Dense& d, int threads) {
  const Cut c = cut(d, threads);
  Scratch one(nullptr);
  memory(one, d, c);
  return one.used() * c.workers;
}

void run_dense(const Dense& d, float* scratch, const Threads& threads) {
  const Cut c = cut(d, threads.count);
  share_evenly(c.workers, threads, [&](int64_t, int64_t, int worker) {
    Scratch mine(nullptr);
    memory(mine, d, c);
    mine = Scratch(scratch + mine.used() * worker);
    Memory m = memory(mine, d, c);
    m.clock = Clock(threads, worker);
    run_worker(d, c, m, worker);
  });
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
