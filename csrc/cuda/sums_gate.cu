// The gate of squeeze-excitation from sums over parts of images, in one launch on tensor cores: adds the
// sums, and multiplies twice.
//
// A cluster of blocks takes 8 images, and each of its blocks a share of the channels: it adds the parts'
// sums, multiplies the means with its columns of the first weights, sends these sums to all blocks of the
// cluster, and computes the gates of its own channels from all of them. Weights are 16 bits wide; the means
// and the hidden values, which are not, are cut into two or three 16-bit numbers that add up to them.

#include "cuda/sums_gate.h"

#include "cuda/common/cluster.cuh"
#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kImages = 8;  // of a cluster: columns of a product
constexpr int kRows = 16;   // of a product: hidden channels of the first, channels of the second
// Terms that a lane loads at once, and those of the four lanes of a row: two products' worth.
constexpr int kLaneTerms = 8, kTerms = 4 * kLaneTerms;
// Elements between rows of shared memory: eight rows' 16 bytes lie in different banks.
constexpr int kGap = 8;
// Steps of kTerms of the first weights that are asked for before the sums are added; and of the second, of
// two tiles of rows, before the hidden values are there.
constexpr int kAhead = 2, kHiddenAhead = 3;

// How many 16-bit numbers a float becomes: 24 bits of bfloat16's 8, 22 of float16's 11.
template <class T>
constexpr int kPieces = 2;
template <>
constexpr int kPieces<BFloat16> = 3;

// How one call is cut into blocks.
struct Cut {
  int chunk;                // channels of a block
  int terms, hidden_terms;  // of both products, whole kTerms
  int row_tiles, shares;    // of the first product: tiles of kRows hidden channels, shares of its terms
  bool together;            // whether kLaneTerms of the second weights may be read at once
  int hidden, parts, sums;  // offsets in shared memory, in bytes
  int64_t bytes;

  EFFKERNELS_HOST_DEVICE int pitch() const { return terms + kGap; }
  EFFKERNELS_HOST_DEVICE int hidden_pitch() const { return hidden_terms + kGap; }
};

using Words = Elements<uint32_t, 4>;

// kLaneTerms weights of a row from term `k` on, zeros from `end` on: a multiple of kLaneTerms where they may
// be read `together`, of 2 elsewhere.
template <class T>
EFFKERNELS_DEVICE Words load_weights(const T* row, int k, int end, bool together) {
  Words words{};
  if (together) {
    if (k < end) words = *reinterpret_cast<const Words*>(row + k);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (k + 2 * i < end) words.at[i] = *reinterpret_cast<const uint32_t*>(row + k + 2 * i);
    }
  }
  return words;
}

// Writes a float as pieces: each is what is left of it after the ones before, rounded. `pitch` elements are
// between pieces.
template <class T>
EFFKERNELS_DEVICE void cut_up(float x, T* to, int pitch) {
#pragma unroll
  for (int i = 0; i < kPieces<T>; ++i) {
    narrow(x, to[i * pitch]);
    const float piece = widen(to[i * pitch]);
    // Of infinity nothing is left: not NaN.
    x = fabsf(piece) == INFINITY ? 0.0f : x - piece;
  }
}

// Adds the products of two rows of kTerms weights with the pieces of each image's values:
// [image][pieces][pitch].
template <class T>
EFFKERNELS_DEVICE void multiply(const Words& first, const Words& second, const T* values, int pitch,
                                float (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < kPieces<T>; ++i) {
    const Words of_image = *reinterpret_cast<const Words*>(values + i * pitch);
#pragma unroll
    for (int half = 0; half < 4; half += 2) {
      const uint32_t rows[4] = {first.at[half], second.at[half], first.at[half + 1], second.at[half + 1]};
      multiply_add<T>(rows, of_image.at[half], of_image.at[half + 1], sums);
    }
  }
}

template <class T, int kCluster, int kWarps>
EFFKERNELS_KERNEL(kWarps* kWarp, 512 / (kWarps * kWarp))
sums_gate_fwd_kernel(const SqueezeExciteGateArgs a, const PartialSums partial, const Cut cut) {
#if EFFKERNELS_CLUSTERS
  constexpr bool kHasBody = true;
#else
  constexpr bool kHasBody = kCluster == 1;
#endif
  if constexpr (kHasBody) {
    constexpr int kThreads = kWarps * kWarp, kSums = kRows * kImages;
    let_next_launch_begin();
    const int warp = thread_index() / kWarp, lane = thread_index() % kWarp;
    // Of a product's operands a lane has row `row` and the one 8 further, and image `row`, with the terms
    // from `term` on; of its sums those rows of two images.
    const int row = lane / 4, term = lane % 4 * kLaneTerms, own_image = lane % 4 * 2;
    int rank = 0;
    if constexpr (kCluster > 1) {
      rank = cluster_rank();
      cluster_arrive();
    }
    const int64_t image = block_index() / kCluster * kImages;
    const int images = static_cast<int>(smaller<int64_t>(kImages, a.images - image));
    const int channel = rank * cut.chunk, channels = larger(0, smaller(cut.chunk, a.channels - channel));

    T* means = reinterpret_cast<T*>(shared_memory());                      // [image][piece][pitch]
    T* hidden = reinterpret_cast<T*>(shared_memory() + cut.hidden);        // [image][piece][hidden_pitch]
    float* parts = reinterpret_cast<float*>(shared_memory() + cut.parts);  // [share][row tile][kSums]
    float* sums = reinterpret_cast<float*>(shared_memory() + cut.sums);    // [rank][row tile][kSums]
    const T* reduce_weight = static_cast<const T*>(a.reduce_weight.data) + channel;
    const T* expand_weight = static_cast<const T*>(a.expand_weight.data) + int64_t{channel} * a.squeezed;

    // A warp's tile of rows and share of the terms in the first product. Weights depend on nothing: some are
    // on their way while the sums are added.
    const int tile = warp % cut.row_tiles, share = warp / cut.row_tiles;
    const auto reduce_row = [&](int r, int k) {
      const int there = r < a.squeezed ? channels : 0;
      return load_weights(reduce_weight + int64_t{smaller(r, a.squeezed - 1)} * a.channels, k, there, true);
    };
    Words ahead[kAhead][2];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int first = (share + i * cut.shares) * kTerms;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool there = share < cut.shares && first < cut.terms;
        ahead[i][h] = there ? reduce_row(tile * kRows + row + h * 8, first + term) : Words{};
      }
    }

    wait_for_previous_launch();
    constexpr int kWide = 4;  // sums that are read at once
    const auto pixels = static_cast<float>(partial.pixels);
    for (int i = thread_index(); i < kImages * cut.terms / kWide; i += kThreads) {
      const int of = i / (cut.terms / kWide), c = i % (cut.terms / kWide) * kWide;
      float total[kWide] = {};
      if (of < images && c < channels) {
        const float* from = partial.sums + (image + of) * partial.parts * a.channels + channel + c;
#pragma unroll 4
        for (int part = 0; part < partial.parts; ++part) {
          float some[kWide];
          load(from + int64_t{part} * a.channels, true, kWide, some);
#pragma unroll
          for (int e = 0; e < kWide; ++e) total[e] += some[e];
        }
      }
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        cut_up(total[e] / pixels, means + of * kPieces<T> * cut.pitch() + c + e, cut.pitch());
      }
    }
    barrier();

    const T* of_image = means + row * kPieces<T> * cut.pitch();
    for (int t = tile; t < cut.row_tiles && share < cut.shares; t += kWarps) {
      float dots[4] = {};
      int first = share * kTerms;
      if (t == tile) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i, first += cut.shares * kTerms) {
          if (first < cut.terms)
            multiply(ahead[i][0], ahead[i][1], of_image + first + term, cut.pitch(), dots);
        }
      }
#pragma unroll 4
      for (; first < cut.terms; first += cut.shares * kTerms) {
        const int r = t * kRows + row;
        multiply(reduce_row(r, first + term), reduce_row(r + 8, first + term), of_image + first + term,
                 cut.pitch(), dots);
      }
      float* to = parts + (share * cut.row_tiles + t) * kSums + row * kImages + own_image;
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i / 2 * 8 * kImages + i % 2] = dots[i];
    }
    // What the end needs of weights and biases depends on nothing either: it is on its way from here on.
    const auto expand_row = [&](int r, int k) {
      const T* from = expand_weight + int64_t{smaller(r, larger(channels, 1) - 1)} * a.squeezed;
      return load_weights(from, k, r < channels ? a.squeezed : 0, cut.together);
    };
    // Biases stay as they are in memory until they are used: widening them would wait for each.
    const auto bias_bits = [](const Parameters& bias, int i, bool there) {
      return there && bias.data != nullptr ? parameter_bits(bias, i) : 0;
    };
    const auto expand_bias = [&](int r) { return bias_bits(a.expand_bias, channel + r, r < channels); };
    Words expand_ahead[2][kHiddenAhead][2];
    uint32_t bias_ahead[2][2];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = (warp + n * kWarps) * kRows + row + h * 8;
        bias_ahead[n][h] = expand_bias(r);
#pragma unroll
        for (int i = 0; i < kHiddenAhead; ++i) expand_ahead[n][i][h] = expand_row(r, i * kTerms + term);
      }
    }
    const int own_hidden = thread_index() / kImages;
    const uint32_t reduce_bias = bias_bits(a.reduce_bias, own_hidden, own_hidden < a.squeezed);
    barrier();

    // All blocks get the sums of this one's channels.
    if constexpr (kCluster > 1) cluster_wait();
    const int count = cut.row_tiles * kSums;
    for (int i = thread_index(); i < count; i += kThreads) {
      float total = 0.0f;
#pragma unroll 4
      for (int s = 0; s < cut.shares; ++s) total += parts[s * count + i];
      if constexpr (kCluster > 1) {
#pragma unroll
        for (int b = 0; b < kCluster; ++b) store_to_block(b, sums + rank * count + i, total);
      } else {
        sums[i] = total;
      }
    }
    if constexpr (kCluster > 1) {
      cluster_arrive();
      cluster_wait();
    } else {
      barrier();
    }
    for (int i = thread_index(); i < cut.hidden_terms * kImages; i += kThreads) {
      const int r = i / kImages, of = i % kImages;
      float total[1] = {};
      if (r < a.squeezed) {
        const uint32_t bias = r == own_hidden ? reduce_bias : bias_bits(a.reduce_bias, r, true);
        total[0] = parameter_of(bias, a.reduce_bias.dtype);
#pragma unroll
        for (int b = 0; b < kCluster; ++b) total[0] += sums[b * count + i];
        activate(a.activation, total);
      }
      cut_up(total[0], hidden + of * kPieces<T> * cut.hidden_pitch() + r, cut.hidden_pitch());
    }
    barrier();

    const T* hidden_of_image = hidden + row * kPieces<T> * cut.hidden_pitch();
    for (int n = 0, first = warp * kRows; first < channels; ++n, first += kWarps * kRows) {
      float dots[4] = {};
      int k = term;
      if (n < 2) {
#pragma unroll
        for (int i = 0; i < kHiddenAhead; ++i, k += kTerms) {
          if (i * kTerms >= cut.hidden_terms) continue;
          multiply(expand_ahead[0][i][0], expand_ahead[0][i][1], hidden_of_image + k, cut.hidden_pitch(),
                   dots);
        }
      }
#pragma unroll 1
      for (; k < cut.hidden_terms; k += kTerms) {
        multiply(expand_row(first + row, k), expand_row(first + row + 8, k), hidden_of_image + k,
                 cut.hidden_pitch(), dots);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = first + row + h * 8;
        const float bias = parameter_of(n < 2 ? bias_ahead[0][h] : expand_bias(r), a.expand_bias.dtype);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (r >= channels || own_image + i >= images) continue;
          a.gate[(image + own_image + i) * a.channels + channel + r] = sigmoid(dots[2 * h + i] + bias);
        }
        // On to the second tile.
        bias_ahead[0][h] = bias_ahead[1][h];
#pragma unroll
        for (int i = 0; i < kHiddenAhead; ++i) expand_ahead[0][i][h] = expand_ahead[1][i][h];
      }
    }
  }
}

template <class T>
Cut make_cut(const SqueezeExciteGateArgs& a, int cluster, int warps) {
  Cut cut;
  cut.chunk = round_up(divide_up(a.channels, cluster), kLaneTerms);
  cut.terms = round_up(cut.chunk, kTerms);
  cut.hidden_terms = round_up(a.squeezed, kTerms);
  cut.row_tiles = divide_up(a.squeezed, kRows);
  cut.shares = larger(1, warps / cut.row_tiles);
  cut.together = a.squeezed % kLaneTerms == 0 && reinterpret_cast<uintptr_t>(a.expand_weight.data) % 16 == 0;
  const int size = kImages * kPieces<T> * static_cast<int>(sizeof(T));
  const int tiles = cut.row_tiles * kRows * kImages * static_cast<int>(sizeof(float));
  cut.hidden = size * cut.pitch();
  cut.parts = cut.hidden + size * cut.hidden_pitch();
  cut.sums = cut.parts + cut.shares * tiles;
  cut.bytes = int64_t{cut.sums} + int64_t{cluster} * tiles;
  return cut;
}

// Launches, or says that it does not.
template <class T, int kCluster, int kWarps>
bool try_launch(const SqueezeExciteGateArgs& a, const PartialSums& sums, const Stream& stream,
                const char*& error) {
  constexpr auto kKernel = sums_gate_fwd_kernel<T, kCluster, kWarps>;
  const Cut cut = make_cut<T>(a, kCluster, kWarps);
  if (cut.bytes > device_limits().block_shared_bytes) return false;
  if (kCluster > 1 && !has_tensor_memory<kKernel>()) return false;
  const int64_t blocks = divide_up<int64_t>(a.images, kImages) * kCluster;
  error =
      launch(kKernel, {"sums_gate_fwd", blocks, kWarps * kWarp, cut.bytes, kCluster}, stream, a, sums, cut);
  return true;
}

// Channels from which on more blocks and warps were faster. Microseconds on an H100 for 128 images, in blocks
// of a cluster and warps of each:
//   channels      1x8   4x8   4x16   8x16
//        32       3.1
//       144       4.1   3.6    4.2
//       240       4.3   3.6    4.3    7.9
//       480       6.8   3.9    4.4    7.8
//       672       8.4   4.5    4.4    8.0
//      1152             7.1    5.4    8.5
//      1824                    8.7    7.0 (64 images)
//      3072                   15.3   11.5 (64 images)
constexpr int kFour = 144, kSixteenWarps = 672, kEight = 1536;

template <class T>
bool try_all(const SqueezeExciteGateArgs& a, const PartialSums& sums, const Stream& stream,
             const char*& error) {
  const int c = a.channels;
  if (c >= kEight && try_launch<T, 8, 16>(a, sums, stream, error)) return true;
  if (c >= kSixteenWarps && try_launch<T, 4, 16>(a, sums, stream, error)) return true;
  if (c >= kFour && try_launch<T, 4, 8>(a, sums, stream, error)) return true;
  return try_launch<T, 1, 8>(a, sums, stream, error);
}

}  // namespace

bool try_sums_gate(const SqueezeExciteGateArgs& a, const PartialSums& sums, const Stream& stream,
                   const char*& error) {
  const auto aligned_to = [](const void* p, int bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
  };
  if (a.reduce_weight.dtype == Dtype::kFloat || a.expand_weight.dtype != a.reduce_weight.dtype) return false;
  if (a.channels % kLaneTerms != 0 || a.squeezed % 2 != 0 || a.squeezed == 0) return false;
  if (!aligned_to(a.reduce_weight.data, 16) || !aligned_to(a.expand_weight.data, 4)) return false;
  if (!aligned_to(sums.sums, 16)) return false;
  return a.reduce_weight.dtype == Dtype::kHalf ? try_all<Half>(a, sums, stream, error)
                                               : try_all<BFloat16>(a, sums, stream, error);
}

}  // namespace effkernels::cuda
