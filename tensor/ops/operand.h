// What operations check about their operands before they start. Internal to tensor/ops.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// Throws InternalError, naming the operand ("rms_norm: weight"), unless it has this dtype and number of elements and
// lies on the context's device.
inline void check_size(const Context& context, const ConstTensor& operand, int64_t size, DType dtype,
                       const char* what) {
  TESSERA_CHECK(operand.size() == size && operand.dtype() == dtype,
                std::string(what) + " is " + operand.shape().str() + " " + name(operand.dtype()) + ", not " +
                    std::to_string(size) + " elements of " + name(dtype));
  TESSERA_CHECK(operand.device() == context.device(), std::string(what) + " lies on " + name(operand.device()) +
                                                          ", the context on " + name(context.device()));
}

// The same for an exact shape.
inline void check_operand(const Context& context, const ConstTensor& operand, const Shape& shape, DType dtype,
                          const char* what) {
  TESSERA_CHECK(operand.shape() == shape && operand.dtype() == dtype,
                std::string(what) + " is " + operand.shape().str() + " " + name(operand.dtype()) + ", not " +
                    shape.str() + " " + name(dtype));
  check_size(context, operand, shape.size(), dtype, what);
}

}  // namespace tessera
