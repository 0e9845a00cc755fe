// effkernels_cuda: squeeze_excite_gate, squeeze_excite

#include "binding/cuda/call.h"

namespace effkernels::binding {
namespace {

// The weights of both products, and what lies between them.
struct Weights {
  const Tensor& reduce;
  const MaybeTensor& reduce_bias;
  const Tensor& expand;
  const MaybeTensor& expand_bias;
  const std::string& activation;
};

// Without images, pooled and gate.
SqueezeExciteGateArgs read(Arguments& arguments, const Weights& weights, int64_t channels) {
  const int64_t squeezed = weights.reduce.size(0);
  arguments.check(squeezed <= cuda::kMostHidden, "too many hidden channels");
  SqueezeExciteGateArgs args{};
  args.channels = static_cast<int>(channels);
  args.squeezed = static_cast<int>(squeezed);
  args.activation = arguments.activation(weights.activation);
  for (const auto& [to, from] :
       {std::pair{&args.reduce_weight, &weights.reduce}, std::pair{&args.expand_weight, &weights.expand}}) {
    *to = arguments.parameters(*from, squeezed * channels);
  }
  args.reduce_bias = arguments.parameters(weights.reduce_bias, squeezed);
  args.expand_bias = arguments.parameters(weights.expand_bias, channels);
  return args;
}

Tensor gate(const Tensor& pooled, const Tensor& reduce, const MaybeTensor& reduce_bias, const Tensor& expand,
            const MaybeTensor& expand_bias, const std::string& activation) {
  Call call("squeeze_excite_gate", pooled, reduce, reduce_bias, expand, expand_bias);
  call.arguments.check(pooled.dim() == 2, "pooled must be a matrix");
  const int64_t images = pooled.size(0), channels = pooled.size(1);
  SqueezeExciteGateArgs args = read(call.arguments, {reduce, reduce_bias, expand, expand_bias, activation}, channels);
  args.images = images;
  args.pooled = call.arguments.floats(pooled, images * channels);
  Tensor y = empty_floats(pooled, images, channels);
  args.gate = floats_of(y);
  call.launch(cuda::gate, args);
  return y;
}

Tensor squeeze_excite(const Tensor& x, const Tensor& reduce, const MaybeTensor& reduce_bias,
                      const Tensor& expand, const MaybeTensor& expand_bias, const std::string& activation) {
  Call call("squeeze_excite", x, reduce, reduce_bias, expand, expand_bias);
  const Map map = call.arguments.map(x);
  SqueezeExciteArgs args{map.shape, map.dtype, map.data, {}, nullptr};
  args.gate =
      read(call.arguments, {reduce, reduce_bias, expand, expand_bias, activation}, map.shape.channels);
  Tensor y = empty_map(x, args.in);
  args.y = y.mutable_data_ptr();
  Tensor workspace = call.workspace(cuda::squeeze_excite_workspace(args));
  call.launch(cuda::squeeze_excite, args, floats_of(workspace));
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("squeeze_excite_gate", TORCH_BOX(&effkernels::binding::gate));
  library.impl("squeeze_excite", TORCH_BOX(&effkernels::binding::squeeze_excite));
}
