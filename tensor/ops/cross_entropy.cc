#include "tensor/ops/cross_entropy.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/cross_entropy_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check_logits(const Context& context, const ConstTensor& logits, const ConstTensor& maximum) {
  TESSERA_CHECK_EQ(logits.rank(), 2, "cross_entropy: logits are a matrix");
  check_operand(context, logits, logits.shape(), accumulation_dtype(logits.dtype()), "cross_entropy: logits");
  check_operand(context, maximum, {logits.dim(0)}, logits.dtype(), "cross_entropy: maximum");
}

void check_target(const ConstTensor& logits, std::span<const int32_t> target) {
  TESSERA_CHECK_EQ(static_cast<int64_t>(target.size()), logits.dim(0), "cross_entropy: one target a token");
}

}  // namespace

void cross_entropy_maximum(const Context& context, const ConstTensor& logits, const Tensor& maximum) {
  check_logits(context, logits, maximum);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::cross_entropy_maximum(context, logits, maximum);
  }
  cpu::cross_entropy_maximum(context, logits, maximum);
}

void cross_entropy_sums(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                        int64_t first_column, const ConstTensor& maximum, const Tensor& sums) {
  check_logits(context, logits, maximum);
  check_target(logits, target);
  check_operand(context, sums, {2, logits.dim(0)}, logits.dtype(), "cross_entropy: sums");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::cross_entropy_sums(context, logits, target, first_column, maximum, sums);
  }
  cpu::cross_entropy_sums(context, logits, target, first_column, maximum, sums);
}

void cross_entropy_loss(const Context& context, std::span<const int32_t> target, const ConstTensor& sums,
                        const Tensor& loss) {
  check_operand(context, sums, {2, static_cast<int64_t>(target.size())}, accumulation_dtype(sums.dtype()),
                "cross_entropy: sums");
  check_operand(context, loss, {1}, DType::F64, "cross_entropy: loss");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::cross_entropy_loss(context, target, sums, loss);
  }
  cpu::cross_entropy_loss(context, target, sums, loss);
}

void cross_entropy_backward(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                            int64_t first_column, const ConstTensor& maximum, const ConstTensor& sums, double scale,
                            const Tensor& dlogits) {
  check_logits(context, logits, maximum);
  check_target(logits, target);
  check_operand(context, sums, {2, logits.dim(0)}, logits.dtype(), "cross_entropy: sums");
  check_operand(context, dlogits, logits.shape(), dlogits.dtype(), "cross_entropy: dlogits");
  TESSERA_CHECK(accumulation_dtype(dlogits.dtype()) == logits.dtype(),
                "cross_entropy: dlogits have the logits' dtype or one that accumulates in it");
  TESSERA_CHECK(dlogits.dtype() == logits.dtype() || dlogits.data() != logits.data() || dlogits.empty(),
                "cross_entropy: in place only in the same dtype");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::cross_entropy_backward(context, logits, target, first_column, maximum, sums, scale, dlogits);
  }
  cpu::cross_entropy_backward(context, logits, target, first_column, maximum, sums, scale, dlogits);
}

}  // namespace tessera
