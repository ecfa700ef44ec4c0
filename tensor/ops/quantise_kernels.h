// The kernels behind quantise.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/quantise.h"

namespace tessera {

// run(x, values, transposed, scale): pointers of the operands' types, null for a result that is not wanted.
template <class Run>
void dispatch_quantise(const ConstTensor& x, const Tensor& values, const Tensor& transposed, const Tensor& scale,
                       Run&& run) {
  const bool straight = values.rank() == 2, turned = transposed.rank() == 2;
  dispatch_float8(straight ? values.dtype() : transposed.dtype(), [&]<class F8>(F8) {
    F8* const to = straight ? values.as<F8>() : nullptr;
    F8* const to_transposed = turned ? transposed.as<F8>() : nullptr;
    if (x.dtype() == DType::BF16)
      run(x.as<bf16>(), to, to_transposed, scale.as<float>());
    else
      run(x.as<float>(), to, to_transposed, scale.as<float>());
  });
}

}  // namespace tessera

namespace tessera::cpu {
decltype(tessera::quantise) quantise;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::quantise) quantise;
}  // namespace tessera::cuda
