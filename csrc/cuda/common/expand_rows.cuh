#pragma once

// How expand_depthwise_conv_bn_act.cu cuts a call into blocks, on the host and in the prologue of the kernel.
//
// A block takes a chunk of expanded channels and a strip of columns of the result, and goes down the rows of
// its share of all images in steps. In a step it computes the rows of the expanded map that the next rows of
// the result lie over and that it does not have yet, and then these rows of the result.

#include "args/expand_depthwise_conv_bn_act.h"
#include "cuda/common/even_shares.cuh"

namespace effkernels::cuda::expand_rows {

constexpr int kChannels = 48;  // of a chunk
constexpr int kWarps = 12;
constexpr int kThreads = kWarps * kWarp;
constexpr int kPieceElements = 8;                 // elements of 16 bytes
constexpr int kPatches = 16;                      // patches of the result that one product computes
constexpr int kPatchRows = 2, kPatchColumns = 4;  // of the result in a patch
constexpr int kPieceBytes = 16;
constexpr int kMostStepRows = 12;  // of x, or of the result

// The code that a block runs, by the 16-byte pieces of a pixel of x, the depthwise kernel and its stride.
// Sizes in bytes are those of shared memory.
template <class T_, int kPieces_, int kKernel_, int kStride_>
struct Config {
  using T = T_;
  static constexpr int kPieces = kPieces_, kKernel = kKernel_, kStride = kStride_;

  // Patches are `kAcross` side by side, in `kDown` rows; and `kStacked` under each other share the rows of
  // the expanded map that they both lie over.
  static constexpr int kDown = kKernel == 5 ? 2 : 1, kAcross = kPatches / kDown;
  static constexpr int kStacked = kStride == 2 ? 1 : kPieces <= 3 ? 4 : 3;
  static constexpr int kRows = kDown * kStacked * kPatchRows;  // of the result, in a step
  static constexpr int kMostColumns = kAcross * kPatchColumns;

  // Of the expanded map: rows under a step's rows of the result, an even number. They are a ring.
  static constexpr int kOverlap = kKernel - kStride;  // rows under those of two steps
  static constexpr int kRing = round_up(kRows * kStride + kOverlap, 2);
  // A product of the depthwise convolution: of each patch's window, four neighbouring columns for each of
  // four lanes. A window has two or three such fours in a row.
  static constexpr int kFours = kStride == 1 ? 2 : 3;
  static constexpr int kProducts = kStride == 1 ? 2 : kKernel == 3 ? 4 : 6;
  static constexpr int kColumns = (kAcross - 1) * kPatchColumns * kStride + kFours * 4;
  static_assert(kStride == 2 || kKernel == 3);

  // A channel's rows of the ring: even ones, then odd ones. Two neighbouring rows lie 17 banks of 4 bytes
  // apart, two channels 4, so that few accesses of a warp meet two different words of one bank.
  static constexpr int kRowBytes = kColumns * 2;
  static constexpr int kHalfBytes = (kRing / 2 * kRowBytes + 59) / 128 * 128 + 68;
  static constexpr int kChannelBytes = 2 * kHalfBytes + 8;
  static constexpr int kNowhere = 2 * kHalfBytes;  // in these 8 bytes: for pixels that are none
  static_assert(kHalfBytes >= kRing / 2 * kRowBytes && kRowBytes % 8 == 0);

  // The depthwise weights of a channel as products take them, where registers do not hold them: for each row
  // of the kernel and each four of a window, what four results make of it; and zeros.
  static constexpr bool kTapsInRegisters = kStride == 1;
  static constexpr int kFourBytes = 4 * 2 * kPatchColumns;
  // Where those of a row and a four are: the first two fours of each row, then the third of each, so that
  // what one product reads lies together.
  EFFKERNELS_HOST_DEVICE static int taps_at(int row, int four) {
    return four < 2 ? (row * 2 + four) * kFourBytes : (kKernel * 2 + row) * kFourBytes;
  }
  static constexpr int kZerosBytes = 16;
  static constexpr int kTapBytes = kTapsInRegisters ? 0 : kKernel * kFours * kFourBytes + kZerosBytes;

  // Eight pixels of x side by side lie in different banks.
  static constexpr int kPixelBytes = kPieces * kPieceBytes + (kPieces % 2 == 0 ? kPieceBytes : 0);
  // A pixel of the result that waits to be stored, which takes threads as many as it has pieces. A step's
  // results take `kStores` such pieces a thread.
  static constexpr int kResultBytes = kChannels * 2 + kPieceBytes;
  static constexpr int kResults = kStacked * kPatches * kPatchRows * kPatchColumns;
  static constexpr int kPiecesOfResult = kChannels / kPieceElements;
  static constexpr int kStores = kResults * kPiecesOfResult / kThreads;

  static constexpr int kTapsAt = kChannels * kChannelBytes;
  static constexpr int kResultsAt = kTapsAt + kChannels * kTapBytes;
  static constexpr int kPixelsAt = kResultsAt + kResults * kResultBytes;
};

// Columns of a block.
struct Strip {
  int from, to;   // of the result
  int first, in;  // the first column of x, and how many: an even number
  // The first of a step's columns of the expanded map is column `from * stride - left - lead` of x, and
  // `column` that of the strip's first: an even number, so that two columns of x are one word.
  int lead, column;
};

// How one call is cut into blocks.
struct Plan {
  int chunks, strips;  // of channels, of columns
  EvenShares columns;  // of the result, by strip
  int steps;           // of an image
  EvenShares shares;   // of the steps of all images
  int blocks;          // shares
  int parts;           // partial sums of an image
  int stage_pixels;    // of x, in a step at most; a multiple of 8
  int64_t shared_bytes;
};

template <class C>
EFFKERNELS_HOST_DEVICE Strip strip_of(const DepthwiseConvBnActArgs& a, const Plan& p, int index) {
  const int stride = C::kStride, left = a.window.left;
  Strip s{p.columns.begin(index), p.columns.begin(index + 1), 0, 0, 0, 0};
  s.first = larger(0, s.from * stride - left);
  int end = smaller(a.in.width, (s.to - 1) * stride - left + C::kKernel);
  if ((end - s.first) % 2 != 0) {
    if (end < a.in.width) {
      ++end;
    } else {
      --s.first;
    }
  }
  s.in = end - s.first;
  s.column = s.first - (s.from * stride - left);
  s.lead = s.column & 1;
  s.column += s.lead;
  return s;
}

// A step of a block, and what it adds to the ring. Rows are counted from the first one of padding.
template <class C>
struct Step {
  int image, index;  // the step within the image
  int base;          // place in the ring of the image's row 0
  int rows_of_image;

  EFFKERNELS_HOST_DEVICE Step(const Plan& p, int step)
      : image(step / p.steps),
        index(step % p.steps),
        base(0),
        rows_of_image(round_up(p.steps * C::kRows * C::kStride + C::kOverlap, 2)) {}

  EFFKERNELS_HOST_DEVICE void advance(const Plan& p) {
    if (++index < p.steps) return;
    index = 0;
    ++image;
    base = place(rows_of_image);
  }
  // The first row of the expanded map under the step.
  EFFKERNELS_HOST_DEVICE int top() const { return index * C::kRows * C::kStride; }
  EFFKERNELS_HOST_DEVICE int end() const { return top() + C::kRows * C::kStride + C::kOverlap; }
  // The first row that the steps before have not computed. A block's share that begins within an image has
  // before it the rows that two steps lie over: `warming_up`.
  EFFKERNELS_HOST_DEVICE int begin(bool warming_up) const {
    return warming_up ? end() - C::kOverlap : index == 0 ? 0 : top() + C::kOverlap;
  }
  EFFKERNELS_HOST_DEVICE int place(int row) const {
    return static_cast<int>(static_cast<uint32_t>(base + row) % uint32_t{C::kRing});
  }
};

// Rows of x, from a row of the padded image to another one.
struct RowsOfX {
  int first, count;

  EFFKERNELS_HOST_DEVICE RowsOfX(const DepthwiseConvBnActArgs& a, int from, int to)
      : first(smaller(larger(from - a.window.top, 0), a.in.height)),
        count(smaller(larger(to - a.window.top, 0), a.in.height) - first) {}
};

// How a call is cut on a device; a plan without parts where a block would not fit its shared memory.
template <class C>
Plan make_plan(const DepthwiseConvBnActArgs& a, const DeviceLimits& device) {
  Plan p{};
  const int least = divide_up(a.out.width, C::kMostColumns);
  // A strip of an odd width takes a column of its neighbour, so that two columns of x are one word.
  p.strips = larger(least, a.in.width % 2 != 0 ? 2 : 1);
  p.steps = divide_up(a.out.height, C::kRows);
  for (; p.strips <= 2 * least && p.strips <= a.out.width; ++p.strips) {
    p.columns = EvenShares::of(a.out.width, p.strips);
    int columns = 0;
    bool fits = true;
    for (int i = 0; i < p.strips && fits; ++i) {
      const Strip strip = strip_of<C>(a, p, i);
      columns = larger(columns, strip.in);
      fits = strip.in >= 2 && strip.in % 2 == 0 && strip.first >= 0 && strip.column >= 0 &&
             strip.column + strip.in <= C::kColumns && strip.to - strip.from <= C::kMostColumns;
    }
    if (!fits) continue;
    // An image's first step has the rows that two steps lie over beside its own.
    const Step<C> first(p, 0);
    const int rows = larger(RowsOfX(a, first.begin(false), first.end()).count,
                            p.steps > 1 ? smaller(C::kRows * C::kStride, a.in.height) : 0);
    p.stage_pixels = round_up(rows * columns, 8);
    p.shared_bytes = C::kPixelsAt + int64_t{2} * p.stage_pixels * C::kPixelBytes + 2 * p.stage_pixels;
    if (p.shared_bytes <= device.block_shared_bytes) break;
  }
  if (p.shared_bytes == 0 || p.shared_bytes > device.block_shared_bytes || p.strips > a.out.width) return {};
  p.chunks = a.out.channels / kChannels;
  const auto steps = static_cast<int>(a.out.images * p.steps);
  p.blocks = larger(1, smaller(steps, device.multiprocessors / (p.chunks * p.strips)));
  p.shares = EvenShares::of(steps, p.blocks);
  p.parts = p.strips * smaller(p.blocks, p.shares.most_of_run(p.steps));
  return p;
}

}  // namespace effkernels::cuda::expand_rows
