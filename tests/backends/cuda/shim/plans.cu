// How kernels would be chosen and cut on a device, and where buffers would lie, for the tests.

#include "cuda/common/depthwise_rows.cuh"
#include "cuda/common/memory_plan.h"
#include "cuda/common/tensor_maps.h"
#include "cuda/depthwise_tensor_core.h"
#include "cuda/expand_depthwise_conv_bn_act.h"
#include "cuda/pointwise/kernels.h"
#include "cuda/pointwise/warpgroup_means_plan.cuh"
#include "cuda/pointwise/warpgroup_plan.cuh"

#define EXPORT extern "C" __attribute__((visibility("default")))

// `shape` is images, channels, height and width of the input, kernel, stride, padding above and below (as on
// the left and on the right). Writes parts, groups, abreast, rows, stages, shares, unit, the table's stages,
// blocks and bytes of shared memory of a block. A GPU's table has 256 stages.
EXPORT void effkernels_depthwise_plan(const int64_t* shape, int multiprocessors, int64_t block_bytes,
                                      int64_t multiprocessor_bytes, int64_t* plan) {
  using namespace effkernels;
  DepthwiseConvBnActArgs a{};
  const auto side = [&](int i) { return static_cast<int>(shape[i]); };
  a.in = {shape[0], side(2), side(3), side(1)};
  const int kernel = side(4), stride = side(5), around = side(6) + side(7);
  const auto windowed = [&](int length) { return (length + around - kernel) / stride + 1; };
  a.out = {shape[0], windowed(side(2)), windowed(side(3)), side(1)};
  a.dtype = Dtype::kHalf;
  a.window = {kernel, kernel, stride, stride, side(6), side(6), 1, 1};
  const cuda::depthwise_rows::Plan p =
      cuda::depthwise_rows::make_plan(a, {multiprocessors, block_bytes, multiprocessor_bytes}, 256);
  const int64_t found[] = {p.parts,       p.groups, p.abreast,
                           p.rows,        p.stages, p.shares,
                           p.unit,        p.table,  int64_t{p.shares} * p.strips * p.chunks,
                           p.shared_bytes};
  for (const int64_t value : found) *plan++ = value;
}

// Partial sums of an image where one kernel expands and convolves, else 0. `shape` is images, input and
// expanded channels, height and width, kernel, stride, padding on each side.
EXPORT int effkernels_expand_depthwise_parts(const int64_t* shape) {
  using namespace effkernels;
  ExpandDepthwiseConvBnActArgs args{};
  const auto side = [&](int i) { return static_cast<int>(shape[i]); };
  const int kernel = side(5), stride = side(6), padding = side(7);
  const auto windowed = [&](int length) { return (length + 2 * padding - kernel) / stride + 1; };
  args.in_channels = side(1);
  DepthwiseConvBnActArgs& a = args.depthwise;
  a.in = {shape[0], side(3), side(4), side(2)};
  a.out = {shape[0], windowed(side(3)), windowed(side(4)), side(2)};
  a.dtype = Dtype::kHalf;
  a.window = {kernel, kernel, stride, stride, padding, padding, 1, 1};
  a.activation = Activation::kSilu;
  return cuda::expand_depthwise_conv_bn_act_parts(args);
}

namespace {

// A 1x1 convolution: `shape` is images, input and output channels, height, width, and whether there are
// gates.
effkernels::PointwiseConvBnActArgs pointwise_of(const int64_t* shape) {
  using namespace effkernels;
  static const float gate = 0.0f;
  PointwiseConvBnActArgs a{};
  const auto side = [&](int i) { return static_cast<int>(shape[i]); };
  a.in = {shape[0], side(3), side(4), side(1)};
  a.out_channels = side(2);
  a.dtype = Dtype::kHalf;
  a.gate = shape[5] != 0 ? &gate : nullptr;
  return a;
}

}  // namespace

// Whether few_pixels.cu would take such a convolution on the device.
EXPORT bool effkernels_has_few_pixels(const int64_t* shape) {
  return effkernels::cuda::pointwise::has_few_pixels(pointwise_of(shape));
}

// How warpgroups.cu would compute one: writes columns of a warpgroup, warpgroups, groups of rows and of
// columns, buffers of results, stages, and whether weights stay. Returns whether there is a plan.
EXPORT bool effkernels_warpgroup_plan(const int64_t* shape, int64_t* plan) {
  using namespace effkernels::cuda::pointwise;
  const effkernels::PointwiseConvBnActArgs a = pointwise_of(shape);
  return with_warpgroup_config(a, [&](auto config, auto) {
    using Config = decltype(config);
    WarpgroupPlan p{};
    if (!make_warpgroup_plan<Config>(a, p)) return false;
    const int64_t found[] = {
        Config::kColumns, Config::kWarpgroups, Config::kRowGroups, Config::kColumnGroups, p.buffers,
        p.stages,         p.resident};
    for (const int64_t value : found) *plan++ = value;
    return true;
  });
}

// The same of means by warpgroup_means.cu: segments of a block, columns of a segment, groups of output
// channels, units of a block, stages.
EXPORT bool effkernels_means_plan(const int64_t* shape, int64_t* plan) {
  using namespace effkernels::cuda::pointwise;
  return with_means_plan(pointwise_of(shape), false, [&](auto config, const MeansPlan& p) {
    using Config = decltype(config);
    for (const int64_t value : {Config::kSegments, Config::kWidth, p.groups, p.units, p.stages})
      *plan++ = value;
    return true;
  });
}

// Whether kernels with tensor memory are there from now on.
EXPORT void effkernels_set_tensor_memory(bool there) { effkernels::host_shim::tensor_memory_there = there; }

// How many tensor maps were encoded so far.
EXPORT int64_t effkernels_encoded_maps() { return effkernels::host_shim::encoded_maps; }

// Two runs of `count` maps each, one after the other, with maps that are kept: 8 rows of 8 floats, beginning
// at the given numbers of 16 bytes. Returns whether each map that a launch got was for what it asked for.
EXPORT bool effkernels_keep_maps(const int64_t* first, const int64_t* second, int64_t count) {
  using namespace effkernels;
  using namespace effkernels::cuda;
  TensorMapPool pool;
  alignas(16) static float data[1024];
  for (const int64_t* run : {first, second}) {
    std::unique_ptr<TensorMaps> maps = pool.take();
    maps->begin();
    Sequence sequence(false, nullptr, maps.get());
    const Stream stream(nullptr, &sequence);
    for (int64_t i = 0; i < count; ++i) {
      const TensorBoxes boxes{data + 4 * run[i], Dtype::kFloat, 2, {8, 8}, {0, 32}, {8, 8}, Swizzle::kNone};
      TensorMap map;
      if (encode(boxes, stream, map) != nullptr || !(map.boxes == boxes)) return false;
    }
    pool.leave(std::move(maps));
  }
  return true;
}

// Where `count` buffers lie, from three numbers of each: bytes, first and last call. Returns bytes of all.
EXPORT int64_t effkernels_plan_memory(const int64_t* uses, int64_t count, int64_t* offsets) {
  using namespace effkernels::cuda;
  std::vector<BufferUse> buffers;
  for (int64_t i = 0; i < count; ++i) {
    buffers.push_back({uses[3 * i], static_cast<int>(uses[3 * i + 1]), static_cast<int>(uses[3 * i + 2])});
  }
  const MemoryPlan plan = plan_memory(buffers);
  std::copy(plan.offsets.begin(), plan.offsets.end(), offsets);
  return plan.bytes;
}
