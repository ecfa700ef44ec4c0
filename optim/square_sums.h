// Sums of squares of several tensors, which the host fetches from a device at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/context/context.h"
#include "tensor/memory/buffer.h"
#include "tensor/tensor.h"

namespace tessera {

class SquareSums {
 public:
  // On the device where the tensors lie.
  SquareSums(Device device, int64_t count);

  // All are 0.
  void clear(const Context& context);
  // Sum i becomes that of x, in double (tensor/ops/reduce.h).
  void make(const Context& context, int64_t i, const ConstTensor& x);
  // [count], on the host, until the next call; waits for a device once.
  std::span<double> fetch(const Context& context);

  int64_t bytes() const { return memory_.bytes(); }  // where the tensors lie
  static int64_t bytes(int64_t count) { return count * size_of(DType::F64); }

 private:
  Buffer memory_;
  Tensor made_;
  std::vector<double> fetched_;
};

}  // namespace tessera
