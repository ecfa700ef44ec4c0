#include <cstring>

#include "tensor/context/threads.h"
#include "tensor/ops/embedding_kernels.h"

namespace tessera {
namespace {

int64_t token_grain(int64_t hidden) { return 1 + 16384 / (hidden + 1); }

// The row of a table of `rows` rows from first_row on for this index, or -1.
int64_t local_row(int32_t index, int64_t first_row, int64_t rows) {
  const int64_t row = index - first_row;
  return index >= 0 && 0 <= row && row < rows ? row : -1;
}

}  // namespace

void cpu::embedding(const Context& context, std::span<const int32_t> index, const ConstTensor& table, int64_t first_row,
                    const Tensor& y) {
  const int64_t rows = table.dim(0), row_bytes = y.dim(1) * size_of(y.dtype());
  if (row_bytes == 0) return;  // there may be no memory behind the pointers
  const char* from = static_cast<const char*>(table.data());
  char* to = static_cast<char*>(y.data());
  parallel_for(context, y.dim(0), token_grain(y.dim(1)), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = local_row(index[t], first_row, rows);
      if (row >= 0)
        std::memcpy(to + t * row_bytes, from + row * row_bytes, static_cast<size_t>(row_bytes));
      else
        std::memset(to + t * row_bytes, 0, static_cast<size_t>(row_bytes));
    }
  });
}

void cpu::embedding_add(const Context& context, std::span<const int32_t> index, const ConstTensor& table,
                        int64_t first_row, const Tensor& y) {
  const int64_t rows = table.dim(0), hidden = y.dim(1);
  dispatch_float(y.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* from = table.as<T>();
    T* to = y.as<T>();
    parallel_for(context, y.dim(0), token_grain(hidden), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = local_row(index[t], first_row, rows);
        if (row < 0) continue;
        const T* add = from + row * hidden;
        T* out = to + t * hidden;
#pragma omp simd
        for (int64_t i = 0; i < hidden; ++i) out[i] = round_to<T>(static_cast<A>(out[i]) + static_cast<A>(add[i]));
      }
    });
  });
}

void cpu::embedding_backward(const Context& context, std::span<const int32_t> index, const ConstTensor& dy,
                             int64_t first_row, const Tensor& dtable) {
  const int64_t rows = dtable.dim(0), tokens = dy.dim(0), hidden = dy.dim(1);
  dispatch_float(dy.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* from = dy.as<T>();
    A* to = dtable.as<A>();
    // A thread owns columns (whole cache lines of them) of every row and goes through the tokens in order.
    parallel_for(context, hidden, 64, [=](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t row = local_row(index[t], first_row, rows);
        if (row < 0) continue;
        const T* gradient = from + t * hidden;
        A* sum = to + row * hidden;
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) sum[i] += static_cast<A>(gradient[i]);
      }
    });
  });
}

}  // namespace tessera
