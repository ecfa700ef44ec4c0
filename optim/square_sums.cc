#include "optim/square_sums.h"

#include "tensor/context/copy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace tessera {

SquareSums::SquareSums(Device device, int64_t count)
    : memory_(device, bytes(count), "sums of squares"),
      made_(memory_.data(), {count}, DType::F64, device),
      fetched_(static_cast<size_t>(count)) {}

void SquareSums::clear(const Context& context) { zero(context, made_); }

void SquareSums::make(const Context& context, int64_t i, const ConstTensor& x) {
  sum_of_squares(context, x, made_.rows(i, i + 1));
}

std::span<double> SquareSums::fetch(const Context& context) {
  copy(context, made_, Tensor(std::span<double>(fetched_), made_.shape()));
  return fetched_;
}

}  // namespace tessera
