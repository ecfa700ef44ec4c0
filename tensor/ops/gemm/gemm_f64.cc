// F64 matrix products for proofs: rows of C are split over threads and each element is summed in the order of k, so the
// result does not depend on the number of threads.
#include <algorithm>

#include "tensor/context/threads.h"
#include "tensor/ops/gemm/gemm_cpu.h"

namespace tessera {
namespace {

// Rows of C computed together, so that a row of B is read once for all of them.
constexpr int64_t kRows = 4;

// c[rows, n] += a[i, p] * b[p, :], with B stored [k, n].
void rows_times_matrix(const GemmShape& s, int64_t row, int64_t rows, const double* a, int64_t a_row, int64_t a_k,
                       const double* b, double* c) {
  for (int64_t p = 0; p < s.k; ++p) {
    const double* b_row = b + p * s.n;
    for (int64_t i = row; i < row + rows; ++i) {
      const double x = a[i * a_row + p * a_k];
      double* c_row = c + i * s.n;
#pragma omp simd
      for (int64_t j = 0; j < s.n; ++j) c_row[j] += x * b_row[j];
    }
  }
}

// c[i, j] += dot(a[i, :], b[j, :]), with B stored [n, k].
void rows_times_transposed(const GemmShape& s, int64_t row, int64_t rows, const double* a, int64_t a_row, int64_t a_k,
                           const double* b, double* c) {
  for (int64_t j = 0; j < s.n; ++j) {
    const double* b_row = b + j * s.k;
    for (int64_t i = row; i < row + rows; ++i) {
      const double* a_start = a + i * a_row;
      double sum = 0;
      if (a_k == 1) {
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < s.k; ++p) sum += a_start[p] * b_row[p];
      } else {
        for (int64_t p = 0; p < s.k; ++p) sum += a_start[p * a_k] * b_row[p];
      }
      c[i * s.n + j] += sum;
    }
  }
}

}  // namespace

void gemm_f64(const Context& context, const GemmShape& s, const double* a, const double* b, double* c,
              const GemmOptions& options, const double* bias) {
  const int64_t a_row = options.a == Transpose::Yes ? 1 : s.k;
  const int64_t a_k = options.a == Transpose::Yes ? s.m : 1;
  parallel_for(context, s.m, kRows, [&](int64_t begin, int64_t end) {
    if (options.c == Write::Overwrite) {
      for (int64_t i = begin; i < end; ++i) {
        if (bias != nullptr)
          std::copy(bias, bias + s.n, c + i * s.n);
        else
          std::fill(c + i * s.n, c + (i + 1) * s.n, 0.0);
      }
    }
    for (int64_t row = begin; row < end; row += kRows) {
      const int64_t rows = std::min(kRows, end - row);
      if (options.b == Transpose::Yes)
        rows_times_transposed(s, row, rows, a, a_row, a_k, b, c);
      else
        rows_times_matrix(s, row, rows, a, a_row, a_k, b, c);
    }
  });
}

}  // namespace tessera
