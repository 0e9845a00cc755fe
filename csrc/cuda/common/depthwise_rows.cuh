#pragma once

// How depthwise_tensor_core.cu cuts a call into blocks and a block's share into stages, on the host and in
// the prologue of the kernel.
//
// A block takes a chunk of channels, 8 a warp, and a strip of up to 32 columns of the result: of one image,
// or 16 of each of two, or 8 of each of four. It streams down the rows of its share of all images. A stage is
// a few rows of the input that are copied at once.

#include "args/depthwise_conv_bn_act.h"
#include "cuda/common/even_shares.cuh"
#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda::depthwise_rows {

constexpr int kGroup = 8;        // channels of a warp: what one product of the tensor cores has
constexpr int kColumns = 32;     // of results of a warp: two products of 16 pixels
constexpr int kMostGroups = 8;   // of a chunk
constexpr int kPieceBytes = 16;  // of a pixel's 8 channels
constexpr int kMbarrierBytes = 64;
constexpr int kMostStages = 4;  // in shared memory at a time
constexpr int kBoxAlignment = 1024;
// Stages of a block at most: what its table in shared memory holds. Few in the host shim, so that small cases
// reach it.
#ifdef EFFKERNELS_HOST_SHIM
constexpr int kTable = 24;
#else
constexpr int kTable = 256;
#endif

// Threads that a multiprocessor has registers for: 96 each for 3x3, so that two blocks of 8 groups are there
// at a time, or 5 of 4 groups; 128 for 5x5, so that 2 or 4 are. With fewer the kernels spill, and 5x5
// takes 1.7 times as long.
EFFKERNELS_HOST_DEVICE int threads_at_a_time(int kernel) { return kernel == 3 ? 640 : 512; }

// How one call is cut into blocks. Bytes are of shared memory.
struct Plan {
  int groups;          // of 8 channels of a chunk: 4, 6 or 8
  int abreast;         // images side by side: 1, 2 or 4
  int chunks, strips;  // of channels, of columns
  int strip;           // columns of the result of a strip of an image
  Swizzle swizzle;
  // All images are a column of rows of the result, images side by side being one, which `shares` blocks share
  // by units; a unit is a row, or a whole image.
  int image_groups, unit, shares;
  EvenShares units;
  // Row y of the result is complete with row y * stride + below of the input. `done` rows of an image need no
  // row below it; it may be negative.
  int below, done;
  int rows, columns, stages;  // of the input in a stage, and how many of these are in shared memory
  int image_stages;           // of a whole image
  int table;                  // stages of a block, at most
  int out_rows;               // of the result that a stage completes, at most
  int box_rows;               // of these, stored at once
  int parts;                  // partial sums of an image
  int row_bytes, slab_bytes, stage_bytes;              // of the input: one image's part of a stage is a slab
  int out_row_bytes, out_slab_bytes, out_stage_bytes;  // of the result
  int64_t shared_bytes;

  EFFKERNELS_HOST_DEVICE int out_columns() const { return kColumns / abreast; }
};

// A part of a block's share that lies in one image: rows `from` to `to` of the result, and `first` to `last`
// of the input.
struct Segment {
  int from, to, first, last, stages;
};

EFFKERNELS_HOST_DEVICE Segment segment_of(const DepthwiseConvBnActArgs& a, const Plan& p, int from, int to) {
  const int stride = a.window.stride_h;
  Segment s{from, to, larger(0, from * stride - a.window.top),
            smaller(a.in.height, (to - 1) * stride - a.window.top + a.window.kernel_h), 0};
  s.stages = divide_up(s.last - s.first, p.rows);
  return s;
}

// What a block does with a stage.
struct alignas(16) Stage {
  int image_group;
  uint32_t in;     // the first row of the input, and how many << 16
  uint32_t out;    // the first row of the result that it completes, and how many << 16
  uint32_t flags;  // see below

  // Of its rows of the input the last `emitting` find the result of the row before complete.
  static EFFKERNELS_HOST_DEVICE uint32_t flags_of(int emitting, bool odd, int flush_from, int flush_to,
                                                  bool first, bool last, bool pending, int part) {
    return static_cast<uint32_t>(emitting) | uint32_t{odd} << 8 | static_cast<uint32_t>(flush_from) << 9 |
           static_cast<uint32_t>(flush_to) << 12 | uint32_t{first} << 15 | uint32_t{last} << 16 |
           uint32_t{pending} << 17 | static_cast<uint32_t>(part) << 18;
  }
  EFFKERNELS_HOST_DEVICE int first_row() const { return static_cast<int>(in & 0xffff); }
  EFFKERNELS_HOST_DEVICE int rows() const { return static_cast<int>(in >> 16); }
  EFFKERNELS_HOST_DEVICE int out_row() const { return static_cast<int>(out & 0xffff); }
  EFFKERNELS_HOST_DEVICE int out_rows() const { return static_cast<int>(out >> 16); }
  EFFKERNELS_HOST_DEVICE int emitting() const { return static_cast<int>(flags & 0xff); }
  // Whether the first row lies between those that complete a row of the result of stride 2.
  EFFKERNELS_HOST_DEVICE bool odd() const { return flags >> 8 & 1; }
  // Below the image: accumulators that hold rows of the result.
  EFFKERNELS_HOST_DEVICE int flush_from() const { return static_cast<int>(flags >> 9 & 7); }
  EFFKERNELS_HOST_DEVICE int flush_to() const { return static_cast<int>(flags >> 12 & 7); }
  EFFKERNELS_HOST_DEVICE bool first() const { return flags >> 15 & 1; }  // of a segment
  EFFKERNELS_HOST_DEVICE bool last() const { return flags >> 16 & 1; }
  // Whether the last row that was completed is still to be written at the end of the segment.
  EFFKERNELS_HOST_DEVICE bool pending() const { return flags >> 17 & 1; }
  EFFKERNELS_HOST_DEVICE int part() const { return static_cast<int>(flags >> 18); }
};

constexpr int kMostRows = 0xffff;          // of an image: what a stage names
constexpr int kMostParts = (1 << 14) - 1;  // the same

// The share of a block, in rows of all images.
struct Share {
  int from, to;         // rows
  int group, segments;  // the first group of images, and in how many it lies

  EFFKERNELS_HOST_DEVICE static int begin(const Plan& p, int index) { return p.units.begin(index) * p.unit; }
  EFFKERNELS_HOST_DEVICE static Share of(const DepthwiseConvBnActArgs& a, const Plan& p, int index) {
    Share s{begin(p, index), begin(p, index + 1), 0, 0};
    s.group = s.from / a.out.height;
    s.segments = (s.to - 1) / a.out.height - s.group + 1;
    return s;
  }
  EFFKERNELS_HOST_DEVICE Segment segment(const DepthwiseConvBnActArgs& a, const Plan& p, int i) const {
    const int image = (group + i) * a.out.height;
    return segment_of(a, p, i == 0 ? from - image : 0, smaller(a.out.height, to - image));
  }
  // Stages of all segments: those between the first and the last are whole images.
  EFFKERNELS_HOST_DEVICE int stages(const DepthwiseConvBnActArgs& a, const Plan& p) const {
    const int head = segment(a, p, 0).stages;
    if (segments == 1) return head;
    return head + (segments - 2) * p.image_stages + segment(a, p, segments - 1).stages;
  }
};

// The first of the blocks that have rows of a group of images.
EFFKERNELS_HOST_DEVICE int first_share(const DepthwiseConvBnActArgs& a, const Plan& p, int group) {
  return p.units.share_of(group * (a.out.height / p.unit));
}

// Writes the stages of a segment to table[0], ...
EFFKERNELS_HOST_DEVICE void write_stages(const DepthwiseConvBnActArgs& a, const Plan& p, int group,
                                         const Segment& s, int part, Stage* table) {
  const int stride = a.window.stride_h;
  int out = s.from;
  for (int k = 0; k < s.stages; ++k) {
    const int row = s.first + k * p.rows, end = smaller(s.last, row + p.rows), rows = end - row;
    const bool last = k + 1 == s.stages;
    const int emitting = smaller(rows, larger(0, end - ((s.from + 1) * stride + p.below)));
    // The rows of the result that are complete and not the last such one: that is written a row later.
    const int complete = end - 1 >= p.below ? (end - 1 - p.below) / stride : 0;
    const int out_end = last ? s.to : larger(out, smaller(s.to, complete));
    table[k].image_group = group;
    table[k].in = static_cast<uint32_t>(row) | static_cast<uint32_t>(rows) << 16;
    table[k].out = static_cast<uint32_t>(out) | static_cast<uint32_t>(out_end - out) << 16;
    table[k].flags = Stage::flags_of(emitting, (row + a.window.top) % 2 != 0 && stride == 2,
                                     last ? larger(0, smaller(7, s.from - p.done)) : 0,
                                     last ? larger(0, s.to - p.done) : 0, k == 0, last,
                                     smaller(p.done, s.to) > s.from, part);
    out = out_end;
  }
}

// The plan for these arguments on a device, with at most so many stages of a block; one without parts where
// there is none.
Plan make_plan(const DepthwiseConvBnActArgs& a, const DeviceLimits& device, int table);

}  // namespace effkernels::cuda::depthwise_rows
