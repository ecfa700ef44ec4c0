#include "tensor/ops/norm.h"

#include <algorithm>

#include "tensor/has_cuda.h"
#include "tensor/ops/norm_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check_input(const Context& context, const ConstTensor& x, const ConstTensor& weight) {
  TESSERA_CHECK_EQ(x.rank(), 2, "norm: x is a matrix");
  TESSERA_CHECK(x.dim(1) > 0, "norm: rows have at least one element");
  check_size(context, x, x.size(), x.dtype(), "norm: x");
  check_operand(context, weight, {x.dim(1)}, x.dtype(), "norm: weight");
}

void check_statistic(const Context& context, const ConstTensor& x, const ConstTensor& statistic, const char* what) {
  check_operand(context, statistic, {x.dim(0)}, accumulation_dtype(x.dtype()), what);
}

void check_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                    const ConstTensor& rstd, const ConstTensor& residual_gradient, const Tensor& dx,
                    const Tensor& dweight) {
  check_input(context, x, weight);
  check_statistic(context, x, rstd, "norm: rstd");
  check_operand(context, dy, x.shape(), x.dtype(), "norm: dy");
  check_operand(context, dx, x.shape(), x.dtype(), "norm: dx");
  check_operand(context, dweight, weight.shape(), accumulation_dtype(x.dtype()), "norm: dweight");
  if (!residual_gradient.empty()) {
    check_operand(context, residual_gradient, x.shape(), x.dtype(), "norm: residual_gradient");
  }
}

}  // namespace

void rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, double epsilon, const Tensor& y,
              const Tensor& rstd) {
  check_input(context, x, weight);
  check_operand(context, y, x.shape(), x.dtype(), "norm: y");
  check_statistic(context, x, rstd, "norm: rstd");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::rms_norm(context, x, weight, epsilon, y, rstd);
  }
  cpu::rms_norm(context, x, weight, epsilon, y, rstd);
}

void layer_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, const ConstTensor& bias,
                double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  check_input(context, x, weight);
  check_operand(context, bias, weight.shape(), x.dtype(), "norm: bias");
  check_operand(context, y, x.shape(), x.dtype(), "norm: y");
  check_statistic(context, x, mean, "norm: mean");
  check_statistic(context, x, rstd, "norm: rstd");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::layer_norm(context, x, weight, bias, epsilon, y, mean, rstd);
  }
  cpu::layer_norm(context, x, weight, bias, epsilon, y, mean, rstd);
}

void rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                       const ConstTensor& rstd, const ConstTensor& residual_gradient, const Tensor& dx,
                       const Tensor& dweight) {
  check_backward(context, dy, x, weight, rstd, residual_gradient, dx, dweight);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::rms_norm_backward(context, dy, x, weight, rstd, residual_gradient, dx, dweight);
  }
  cpu::rms_norm_backward(context, dy, x, weight, rstd, residual_gradient, dx, dweight);
}

void layer_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                         const ConstTensor& mean, const ConstTensor& rstd, const ConstTensor& residual_gradient,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  check_backward(context, dy, x, weight, rstd, residual_gradient, dx, dweight);
  check_statistic(context, x, mean, "norm: mean");
  check_operand(context, dbias, weight.shape(), accumulation_dtype(x.dtype()), "norm: dbias");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::layer_norm_backward(context, dy, x, weight, mean, rstd, residual_gradient, dx, dweight, dbias);
  }
  cpu::layer_norm_backward(context, dy, x, weight, mean, rstd, residual_gradient, dx, dweight, dbias);
}

int64_t norm_backward_partials(Target target, int64_t hidden, DType compute, int64_t sums) {
  if (target.device == Device::Cpu) return 2 * target.threads;
  // As many blocks as fit on each of 128 multiprocessors with Hopper's shared memory, where the sums are kept, and
  // about 1024 threads (of 16 bytes of a row, 256 at most): the same on all GPUs, so that sums and plans are too.
  constexpr int64_t kMultiprocessors = 128, kSharedBytes = 227 << 10, kReserved = 2 << 10, kMost = 8;
  const int64_t shared = sums * hidden * size_of(accumulation_dtype(compute)) + kReserved;
  const int64_t threads = std::clamp<int64_t>(hidden * size_of(compute) / 16, 32, 256);
  return kMultiprocessors * std::clamp<int64_t>(std::min(kSharedBytes / shared, 1024 / threads), 1, kMost);
}

int64_t norm_backward_workspace(Target target, int64_t hidden, DType compute, int64_t sums) {
  return Arena::bytes({norm_backward_partials(target, hidden, compute, sums), sums, hidden},
                      accumulation_dtype(compute));
}

}  // namespace tessera
