#include "tensor/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "tensor/cuda/runtime.h"
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

template <class T>
double add_losses(std::span<const int32_t> target, const T* sum, const T* target_logit, double loss) {
  for (size_t t = 0; t < target.size(); ++t) {
    if (target[t] >= 0) loss += std::log(static_cast<double>(sum[t])) - static_cast<double>(target_logit[t]);
  }
  return loss;
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

double cross_entropy_loss(const Context& context, std::span<const int32_t> target, const ConstTensor& sums) {
  const int64_t tokens = static_cast<int64_t>(target.size());
  check_operand(context, sums, {2, tokens}, accumulation_dtype(sums.dtype()), "cross_entropy: sums");
  return dispatch_float(sums.dtype(), [&]<class T>(T) {
    const T *sum = sums.as<T>(), *target_logit = sum + tokens;
    double loss = 0;
    if constexpr (kHasCuda) {
      if (context.device() == Device::Cuda) {
        const std::span<T> memory = context.cuda().result<T>();
        const int64_t most = static_cast<int64_t>(memory.size()) / 2;
        for (int64_t first = 0; first < tokens; first += most) {
          const int64_t count = std::min(most, tokens - first);
          context.cuda().fetch(sum + first, memory.first(count));
          context.cuda().fetch(target_logit + first, memory.subspan(most, count));
          loss = add_losses(target.subspan(first, count), memory.data(), memory.data() + most, loss);
        }
        return loss;
      }
    }
    return add_losses(target, sum, target_logit, loss);
  });
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
