// Matrix products of 8-bit floats with one scale a matrix: C = (s_a A) (s_b B)^T [+ C] [+ bias], row-major.
//
// The sum runs along the rows of both A and B, since that is the one layout that the FP8 units of Hopper and Ada take
// ("TN" in the column-major words of cuBLASLt). So a product whose sum runs along columns needs a transposed copy,
// which quantise() makes. A linear layer's three products, with x [tokens, in] and w [out, in]:
//
//                        A                       B
//   y  = x w^T           x      [tokens, in]     w      [out, in]
//   dx = dy w            dy     [tokens, out]    w^T    [in, out]     transposed copy of w
//   dw += dy^T x         dy^T   [out, tokens]    x^T    [in, tokens]  transposed copies of both
//
// Products of two 8-bit floats are exact in F32, and sums are kept in F32; on Hopper the units themselves add with
// about 14 bits before cuBLASLt moves the sums to F32 at intervals (its fast accumulation, which never does, is off).
// On the CPU, for reference, sums are kept in double.
#pragma once

#include "tensor/ops/gemm/gemm.h"
#include "tensor/ops/quantise.h"

namespace tessera {

// a.values [m, k], b.values [n, k]: E4M3 or E5M2, not both E5M2. c [m, n]: BF16 or F32. bias: empty, or [n] in BF16,
// added to every row (only with Overwrite, and c in BF16). m, n and k are multiples of kFloat8Multiple; any may be
// zero, as in gemm(). On a GPU, which must have FP8 units, all operands are aligned to 16 bytes. c must not alias an
// operand.
void gemm_fp8(Context& context, const Quantised& a, const Quantised& b, const Tensor& c, Write write,
              const ConstTensor& bias = {});

// Finds the algorithm for these operands (their data may be null) without running it.
void gemm_fp8_prepare(Context& context, const Quantised& a, const Quantised& b, const ConstTensor& c, Write write,
                      const ConstTensor& bias = {});

}  // namespace tessera
