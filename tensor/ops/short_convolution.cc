#include "tensor/ops/short_convolution.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/operand.h"
#include "tensor/ops/segments_kernels.h"
#include "tensor/ops/short_convolution_kernels.h"

namespace tessera {
namespace {

void check(const Context& context, const TokenSegments& segments, const ConstTensor& x, const ConstTensor& weight,
           const ConstTensor& halo) {
  TESSERA_CHECK(x.rank() == 2 && weight.rank() == 2,
                "short_convolution: x is [tokens, channels] and weight [channels, width]");
  const int64_t width = weight.dim(1);
  TESSERA_CHECK(width >= 1 && width <= kMostConvolutionWidth, "short_convolution: a filter has 1 to 8 weights");
  check_operand(context, x, x.shape(), x.dtype(), "short_convolution: x");
  check_operand(context, weight, {x.dim(1), width}, x.dtype(), "short_convolution: weight");
  check_segments(context, segments, x.dim(0), "short_convolution");
  if (!halo.empty())
    check_operand(context, halo, {row_count(halo), width - 1, x.dim(1)}, x.dtype(), "short_convolution: halo");
  // A filter of one weight looks at nothing before its token.
  if (width > 1) check_segment_rows(segments.initial, segments.count(), row_count(halo), "short_convolution: halo");
}

}  // namespace

void short_convolution(const Context& context, const TokenSegments& segments, const ConstTensor& x,
                       const ConstTensor& weight, const ConstTensor& halo, const Tensor& y) {
  check(context, segments, x, weight, halo);
  check_operand(context, y, x.shape(), x.dtype(), "short_convolution: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::short_convolution(context, segments, x, weight, halo, y);
  }
  cpu::short_convolution(context, segments, x, weight, halo, y);
}

void short_convolution_backward(Context& context, const TokenSegments& segments, const ConstTensor& dy,
                                const ConstTensor& x, const ConstTensor& weight, const ConstTensor& halo,
                                const Tensor& dx, const Tensor& dhalo, const Tensor& dweight) {
  check(context, segments, x, weight, halo);
  check_operand(context, dy, x.shape(), x.dtype(), "short_convolution: dy");
  check_operand(context, dx, x.shape(), x.dtype(), "short_convolution: dx");
  if (!halo.empty()) check_operand(context, dhalo, halo.shape(), x.dtype(), "short_convolution: dhalo");
  check_operand(context, dweight, weight.shape(), accumulation_dtype(x.dtype()), "short_convolution: dweight");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::short_convolution_backward(context, segments, dy, x, weight, halo, dx, dhalo, dweight);
  }
  cpu::short_convolution_backward(context, segments, dy, x, weight, halo, dx, dhalo, dweight);
}

int64_t short_convolution_backward_workspace(const Target& target, int64_t channels, int64_t width, DType compute) {
  if constexpr (kHasCuda) {
    if (target.device == Device::Cuda)
      return cuda::short_convolution_backward_workspace(target, channels, width, compute);
  }
  return 0;
}

}  // namespace tessera
