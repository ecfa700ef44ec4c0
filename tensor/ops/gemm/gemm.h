// Matrix products: C = op(A) op(B) [+ C] [+ bias], row-major.
//
// A linear layer's three products, with x [tokens, in], dy [tokens, out] and a weight stored [out, in]
// (column-parallel) or [in, out] (row-parallel):
//   forward          y  = x W^T  or  x W
//   input gradient   dx = dy W   or  dy W^T
//   weight gradient  dW += dy^T x  or  x^T dy
//
// F32 and BF16 go through oneDNN, F64 through a plain blocked kernel. Sums are kept in the accumulation dtype; A and B
// share a dtype, C has that dtype or its accumulation dtype. Primitives are generated once per shape and kept in the
// context's MatrixLibrary; call gemm_prepare before step one for each shape, so that a step generates nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

enum class Transpose : uint8_t { No, Yes };
enum class Write : uint8_t { Overwrite, Accumulate };

struct GemmOptions {
  Transpose a = Transpose::No;  // A is stored [m, k], or [k, m] with Yes
  Transpose b = Transpose::No;  // B is stored [k, n], or [n, k] with Yes
  Write c = Write::Overwrite;
};

// a, b: rank 2 (use reshape). c [m, n]. bias: empty, or [n] in A's dtype, added to every row (only with Overwrite).
// c must not alias a, b or bias. Any of m, n, k may be zero (k = 0 writes zeros or bias, or leaves C when
// accumulating).
void gemm(Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& c, const GemmOptions& options,
          const ConstTensor& bias = {});

// Generates the primitive for these operands (their data may be null) without running it.
void gemm_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
                  const GemmOptions& options, const ConstTensor& bias = {});

// 2 m n k.
int64_t gemm_flops(int64_t m, int64_t n, int64_t k);

}  // namespace tessera
