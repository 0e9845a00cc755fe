// The plan of depthwise_tensor_core.cu: a table of measured configurations, and what fits the device.

#include "cuda/common/depthwise_rows.cuh"

namespace effkernels::cuda::depthwise_rows {
namespace {

constexpr int kWidest = 0;  // groups: as many as the channels fill

struct Rule {
  int kernel, stride;
  int columns;  // of the result, at least
  int groups;   // of a chunk
  int rows, stages;
  int blocks;  // on a multiprocessor, at most
  int waves;   // shares of the images: so many for each block that runs at a time
  bool whole;  // whole images, if there are enough of them
};

// The first that fits. Large maps want wide chunks, and one block on a multiprocessor; small ones several,
// and one wave of them. The share of the byte bound that an H100 (132 multiprocessors, 227 KiB) reached with
// it or with its nearest measured relative stands behind each, with channels and columns of the input.
constexpr Rule kRules[] = {
    {3, 1, 33, kWidest, 8, 3, 1, 1, false},  // 144 at 56: 87 %; 240 at 114: 95 %; 48 at 228: 94 %
    {3, 1, 33, 4, 4, 2, 5, 4, false},        // 32 at 112: 91 %
    {3, 1, 17, kWidest, 5, 3, 1, 1, false},  // 768 at 29: 88 %
    {3, 1, 9, 4, 4, 3, 5, 1, false},         // 480 at 14: 74 %; 3072 at 15: 88 %
    {3, 1, 1, 4, 4, 3, 5, 1, true},          // 1152 at 7: 68 %
    {3, 2, 17, kWidest, 8, 2, 1, 1, false},  // 96 at 112: 96 %; 144 at 228: 98 %
    {3, 2, 9, kWidest, 4, 2, 2, 1, false},   // 240 at 28: 82 %
    {3, 2, 1, 4, 4, 2, 5, 1, true},          // as 5x5
    {5, 1, 33, kWidest, 8, 3, 1, 1, false},  // 384 at 57: 86 %
    {5, 1, 9, 4, 4, 2, 4, 1, false},         // 240 at 28: 76 %; 672 at 14: 67 %; 1824 at 15: 74 %
    {5, 1, 1, 4, 4, 2, 3, 1, true},          // 1152 at 7: 54 %
    {5, 2, 33, kWidest, 5, 2, 1, 1, false},  // 240 at 114: 99 %
    {5, 2, 17, 4, 8, 3, 1, 1, false},        // 144 at 56: 85 %
    {5, 2, 9, 4, 5, 2, 2, 1, false},         // 1824 at 29: 95 %
    {5, 2, 1, 4, 3, 2, 3, 1, false},         // 672 at 14: 69 %
};

int filled(int channels, int groups) { return round_up(channels, groups * kGroup); }

// Groups of the widest chunks that leave at most 8 % of their channels empty; else of those that leave the
// fewest.
int widest(int channels) {
  for (const int groups : {8, 6}) {
    if (int64_t{filled(channels, groups)} * 100 <= int64_t{channels} * 108) return groups;
  }
  int best = 8;
  for (const int groups : {6, 4}) {
    if (filled(channels, groups) < filled(channels, best)) best = groups;
  }
  return best;
}

const Rule* rule_of(const DepthwiseConvBnActArgs& a) {
  for (const Rule& rule : kRules) {
    if (rule.kernel != a.window.kernel_h || rule.stride != a.window.stride_h) continue;
    // Few channels fill no wide chunk: of the rows for these widths the next.
    if (a.out.width < rule.columns) continue;
    if (rule.groups == kWidest && widest(a.in.channels) == 4 && (&rule)[1].kernel == rule.kernel &&
        (&rule)[1].stride == rule.stride && (&rule)[1].groups == 4) {
      continue;
    }
    return &rule;
  }
  return nullptr;
}

// Sizes in shared memory, from groups, rows and stages; returns those of all but the table.
int64_t lay_out(const DepthwiseConvBnActArgs& a, Plan& p) {
  const int stride = a.window.stride_h, kernel = a.window.kernel_h;
  const int pixel = p.groups * kPieceBytes;
  p.swizzle = p.groups == 4 ? Swizzle::k64Bytes : p.groups == 8 ? Swizzle::k128Bytes : Swizzle::kNone;
  p.chunks = divide_up(a.in.channels, p.groups * kGroup);
  const int completed = divide_up(p.rows, stride);  // by the rows of a stage
  const int below_image = smaller(larger(0, a.out.height - p.done), (kernel - 1) / stride);
  p.out_rows = completed + 1 + below_image;
  p.box_rows = p.strips == 1 ? larger(1, p.rows / stride) : 1;
  p.row_bytes = p.columns * pixel;
  p.slab_bytes = p.rows * p.row_bytes;
  p.stage_bytes = p.abreast * p.slab_bytes;
  p.out_row_bytes = p.out_columns() * pixel;
  p.out_slab_bytes = p.out_rows * p.out_row_bytes;
  p.out_stage_bytes = p.abreast * p.out_slab_bytes;
  return kBoxAlignment + int64_t{p.stages} * p.stage_bytes + 2 * int64_t{p.out_stage_bytes} + kMbarrierBytes;
}

// Makes what does not fit smaller: more than two stages help least.
bool shrink(Plan& p) {
  if (p.stages > 2) {
    --p.stages;
  } else if (p.rows > 2) {
    --p.rows;
  } else if (p.groups > 4) {
    p.groups = 4;
  } else {
    return false;
  }
  return true;
}

// Stages of a block at most.
int64_t stages_of_share(const DepthwiseConvBnActArgs& a, const Plan& p) {
  const int64_t rows = (int64_t{p.units.each} + (p.units.larger > 0)) * p.unit;
  const int64_t whole = p.image_stages;
  if (p.unit > 1) return rows / a.out.height * whole;
  const int64_t part = smaller<int64_t>(rows, a.out.height);
  const int64_t part_rows = smaller<int64_t>(a.in.height, (part - 1) * a.window.stride_h + a.window.kernel_h);
  return rows / a.out.height * whole + 2 * divide_up<int64_t>(part_rows, p.rows);
}

// Cuts the rows into so many shares, or into more, so that a block's stages fit its table; false where none
// do.
bool share_out(const DepthwiseConvBnActArgs& a, int64_t wanted, int64_t table, Plan& p) {
  const int64_t units = int64_t{p.image_groups} * (a.out.height / p.unit);
  int64_t shares = larger<int64_t>(1, smaller(wanted, p.unit == 1 ? units / 2 : units));
  for (;;) {
    p.shares = static_cast<int>(shares);
    p.units = EvenShares::of(static_cast<int>(units), p.shares);
    const int64_t stages = stages_of_share(a, p);
    if (stages <= table) {
      p.table = static_cast<int>(stages);
      return true;
    }
    if (shares == units) return false;
    shares = smaller(units, larger(shares + 1, shares * stages / table));
  }
}

// Blocks that rows of one image are spread over, at most.
int most_parts(const DepthwiseConvBnActArgs& a, const Plan& p) {
  return p.shares == 1 || p.unit > 1 ? 1 : p.units.most_of_run(a.out.height);
}

}  // namespace

Plan make_plan(const DepthwiseConvBnActArgs& a, const DeviceLimits& device, int most_stages) {
  Plan p{};
  const Rule* rule = rule_of(a);
  if (rule == nullptr) return p;
  const int kernel = a.window.kernel_h, stride = a.window.stride_h;
  p.below = kernel - 1 - a.window.top;
  // Rounded down, also below 0: by no more than the kernel is high.
  p.done = (a.in.height - 1 - p.below + stride * kernel) / stride - kernel + 1;
  p.abreast = a.out.images < 4 || a.out.width > 16 ? 1 : a.out.width > 8 ? 2 : 4;
  p.image_groups = static_cast<int>(divide_up<int64_t>(a.out.images, p.abreast));
  p.strips = divide_up(a.out.width, p.out_columns());
  p.strip = divide_up(a.out.width, p.strips);
  p.strips = divide_up(a.out.width, p.strip);
  p.columns = round_up((p.strip - 1) * stride + kernel, 8);
  p.groups = rule->groups == kWidest ? widest(a.in.channels) : rule->groups;
  p.rows = smaller(rule->rows, a.in.height);
  p.stages = rule->stages;
  constexpr int64_t kLeastTable = 16 * sizeof(Stage);
  int64_t bytes = lay_out(a, p);
  while (bytes + kLeastTable > device.block_shared_bytes) {
    if (!shrink(p)) return Plan{};
    bytes = lay_out(a, p);
  }
  p.image_stages = segment_of(a, p, 0, a.out.height).stages;
  // Blocks that run at a time on a multiprocessor.
  int64_t blocks = device.multiprocessor_shared_bytes / (bytes + kLeastTable + kReservedBytes);
  blocks = larger<int64_t>(1, smaller<int64_t>(smaller<int64_t>(blocks, rule->blocks),
                                               threads_at_a_time(kernel) / (p.groups * kWarp)));
  const int64_t room =
      smaller(device.block_shared_bytes, device.multiprocessor_shared_bytes / blocks - kReservedBytes) -
      bytes;
  const int64_t table = smaller<int64_t>(most_stages, room / static_cast<int64_t>(sizeof(Stage)));
  const int64_t each = int64_t{p.chunks} * p.strips, at_a_time = blocks * device.multiprocessors;
  const int64_t wanted = at_a_time * rule->waves / each;
  const bool whole = rule->whole && p.image_groups * each >= at_a_time;
  p.unit = whole ? a.out.height : 1;
  if (!share_out(a, wanted, table, p)) {
    p.unit = 1;
    if (!whole || !share_out(a, wanted, table, p)) return Plan{};
  }
  const int parts = most_parts(a, p);
  if (parts > kMostParts || p.shares * each > kMostBlocks) return Plan{};
  p.parts = parts * p.strips;
  p.shared_bytes = bytes + p.table * static_cast<int64_t>(sizeof(Stage));
  return p;
}

}  // namespace effkernels::cuda::depthwise_rows
