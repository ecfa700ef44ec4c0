#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/context/threads.h"
#include "tensor/ops/cross_entropy_kernels.h"
#include "tensor/ops/lanes.h"
#include "tensor/ops/simd_math.h"

namespace tessera {
namespace {

int64_t token_grain(int64_t columns) { return 1 + 8192 / (columns + 1); }

// The target's column here, or -1 when another rank holds it or the token has none.
int64_t local_column(int32_t target, int64_t first_column, int64_t columns) {
  const int64_t column = target - first_column;
  return target >= 0 && 0 <= column && column < columns ? column : -1;
}

template <class A, class T>
void gradient_row(const A* logits, int64_t columns, A maximum, A sum, A scale, int64_t column, T* dlogits) {
  const A factor = scale / sum;
  const A target_logit = column >= 0 ? logits[column] : A(0);  // read before an update in place
#pragma omp simd
  for (int64_t i = 0; i < columns; ++i) dlogits[i] = round_to<T>(simd::exp(logits[i] - maximum) * factor);
  if (column >= 0) dlogits[column] = round_to<T>(scale * (simd::exp(target_logit - maximum) / sum - A(1)));
}

}  // namespace

void cpu::cross_entropy_maximum(const Context& context, const ConstTensor& logits, const Tensor& maximum) {
  const int64_t columns = logits.dim(1);
  dispatch_float(logits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const A* from = logits.as<A>();
    A* to = maximum.as<A>();
    parallel_for(context, logits.dim(0), token_grain(columns), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const A* row = from + t * columns;
        to[t] = lane_max(columns, -std::numeric_limits<A>::infinity(), [row](int64_t i) { return row[i]; });
      }
    });
  });
}

void cpu::cross_entropy_sums(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                             int64_t first_column, const ConstTensor& maximum, const Tensor& sums) {
  const int64_t tokens = logits.dim(0), columns = logits.dim(1);
  dispatch_float(logits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const A *from = logits.as<A>(), *most = maximum.as<A>();
    A *sum = sums.as<A>(), *target_logit = sum + tokens;
    parallel_for(context, tokens, token_grain(columns), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const A* row = from + t * columns;
        const A shift = most[t];
        sum[t] = lane_sum<A>(columns, [row, shift](int64_t i) { return simd::exp(row[i] - shift); });
        const int64_t column = local_column(target[t], first_column, columns);
        target_logit[t] = column >= 0 ? row[column] - shift : A(0);
      }
    });
  });
}

void cpu::cross_entropy_loss(const Context&, std::span<const int32_t> target, const ConstTensor& sums,
                             const Tensor& loss) {
  dispatch_float(sums.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const A *sum = sums.as<A>(), *target_logit = sum + target.size();
    double tile = 0;
    for (size_t t = 0; t < target.size(); ++t) {
      if (target[t] >= 0) tile += std::log(static_cast<double>(sum[t])) - static_cast<double>(target_logit[t]);
    }
    *loss.as<double>() += tile;
  });
}

void cpu::cross_entropy_backward(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                                 int64_t first_column, const ConstTensor& maximum, const ConstTensor& sums,
                                 double scale, const Tensor& dlogits) {
  const int64_t columns = logits.dim(1);
  dispatch_float(dlogits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const A *from = logits.as<A>(), *most = maximum.as<A>(), *sum = sums.as<A>();
    T* to = dlogits.as<T>();
    parallel_for(context, logits.dim(0), token_grain(columns), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        T* out = to + t * columns;
        if (target[t] < 0)
          std::fill_n(out, columns, round_to<T>(A(0)));
        else
          gradient_row(from + t * columns, columns, most[t], sum[t], static_cast<A>(scale),
                       local_column(target[t], first_column, columns), out);
      }
    });
  });
}

}  // namespace tessera
