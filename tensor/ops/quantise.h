// A matrix as 8-bit floats with one scale: x = scale * values, nearly. What gemm_fp8 multiplies.
//
// Current scaling: the factor comes from the matrix itself, not from those of earlier steps, so a call depends on
// nothing but its operand (Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 4, on scaling).
//
//   amax   = max |x|                                     exact in any order
//   factor = min(largest number of the format / amax, 2^126), and 1 where amax is 0
//   values = factor x, rounded to nearest even, no larger than the largest number
//   scale  = 1 / factor
//
// With u the format's unit roundoff (2^-4 for E4M3, 2^-3 for E5M2), h half its smallest number (2^-10, 2^-17) and u32 =
// 2^-24: |scale values - x| <= u |x| + h scale + 4 u32 |x|; h scale is 2.2e-6 amax for E4M3 and 1.3e-10 amax for E5M2.
// An amax that is not finite makes the scale and all values NaN, so that what is computed with them is found out.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// Rows and columns of a quantised matrix are multiples of this, as the products of GPUs need them.
constexpr int64_t kFloat8Multiple = 16;

struct Quantised {
  ConstTensor values;  // [rows, columns], E4M3 or E5M2
  ConstTensor scale;   // [1] F32
};

// x [rows, columns], BF16 or F32. Overwrites values [rows, columns] and transposed [columns, rows] (both of one format;
// either may be empty, not both) and scale [1], all on the context's device, without a wait of the host. x is read
// twice. On a GPU all operands are aligned to 16 bytes.
void quantise(const Context& context, const ConstTensor& x, const Tensor& values, const Tensor& transposed,
              const Tensor& scale);

// What an element is multiplied by, from its matrix's amax; NaN where that is not finite.
constexpr float float8_factor(float amax, float largest) {
  if (!(amax <= 0x1.fffffep127f)) return amax - amax;  // infinity less itself
  if (amax == 0) return 1;
  const float factor = largest / amax;
  return factor < 0x1p126f ? factor : 0x1p126f;
}

}  // namespace tessera
