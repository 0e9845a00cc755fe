// Tensor maps, encoded by the driver. Its library is not linked with: a machine that builds, or that has no
// GPU, may lack it.

#include <cuda.h>

#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
  const bool there = status == cudaSuccess && result == cudaDriverEntryPointSuccess;
  return there ? reinterpret_cast<Encode>(found) : nullptr;
}

CUtensorMapDataType type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case Dtype::kBFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case Dtype::kHalf:
      break;
  }
  return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
}

CUtensorMapSwizzle swizzle_of(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::kNone:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
    case Swizzle::k32Bytes:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::k64Bytes:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k128Bytes:
      break;
  }
  return CU_TENSOR_MAP_SWIZZLE_128B;
}

}  // namespace

const char* encode(const TensorBoxes& boxes, TensorMap& map) {
  static const Encode encode_tiled = find_encode();
  if (encode_tiled == nullptr) return "the driver has no cuTensorMapEncodeTiled";
  cuuint64_t sizes[kMostSides], strides[kMostSides];
  cuuint32_t box[kMostSides], steps[kMostSides];
  for (int i = 0; i < boxes.sides; ++i) {
    sizes[i] = static_cast<cuuint64_t>(boxes.size[i]);
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(boxes.stride[i]);
    box[i] = static_cast<cuuint32_t>(boxes.box[i]);
    steps[i] = 1;
  }
  // Zeros for what lies outside; L2 fetches whole lines of 128 bytes.
  const CUresult result = encode_tiled(
      reinterpret_cast<CUtensorMap*>(&map), type_of(boxes.dtype), static_cast<cuuint32_t>(boxes.sides),
      const_cast<void*>(boxes.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      swizzle_of(boxes.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refuses a tensor map";
}

}  // namespace effkernels::cuda
