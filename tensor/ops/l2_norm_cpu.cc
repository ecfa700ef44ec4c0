#include <cmath>
#include <cstring>

#include "tensor/context/threads.h"
#include "tensor/ops/l2_norm_kernels.h"
#include "tensor/ops/lanes.h"

namespace tessera {
namespace {

// Calls row(wide, narrow, statistic) with the offsets of each head of each token in x, in y and in rstd.
template <class F>
void for_rows(const Context& context, const ConstTensor& wide, int64_t first_column, const ConstTensor& heads,
              F&& row) {
  const int64_t count = heads.dim(0), tokens = heads.dim(1), dim = heads.dim(2), width = wide.dim(1);
  parallel_for(context, tokens, 1 + 16384 / (count * dim + 1), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < count; ++h)
        row(t * width + first_column + h * dim, (h * tokens + t) * dim, h * tokens + t);
    }
  });
}

}  // namespace

void cpu::l2_norm_heads(const Context& context, const ConstTensor& x, int64_t first_column, double epsilon,
                        const Tensor& y, const Tensor& rstd) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* from = x.as<T>();
    T* to = y.as<T>();
    A* r = rstd.as<A>();
    const int64_t dim = y.dim(2);
    for_rows(context, x, first_column, y, [=](int64_t wide, int64_t narrow, int64_t at) {
      const T* in = from + wide;
      const A squares = lane_sum<A>(dim, [in](int64_t i) { return static_cast<A>(in[i]) * static_cast<A>(in[i]); });
      r[at] = A(1) / std::sqrt(squares + static_cast<A>(epsilon));
      const A scale = r[at];
      T* out = to + narrow;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) out[i] = round_to<T>(static_cast<A>(in[i]) * scale);
    });
  });
}

void cpu::l2_norm_heads_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x,
                                 int64_t first_column, const ConstTensor& rstd, const Tensor& dx) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *gradients = dy.as<T>(), *from = x.as<T>();
    const A* statistic = rstd.as<A>();
    T* to = dx.as<T>();
    const int64_t dim = dy.dim(2);
    for_rows(context, x, first_column, dy, [=](int64_t wide, int64_t narrow, int64_t at) {
      const T *gradient = gradients + narrow, *in = from + wide;
      const A r = statistic[at];
      const A along =
          lane_sum<A>(dim, [=](int64_t i) { return static_cast<A>(gradient[i]) * (static_cast<A>(in[i]) * r); });
      T* out = to + wide;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i)
        out[i] = round_to<T>(r * (static_cast<A>(gradient[i]) - static_cast<A>(in[i]) * r * along));
    });
  });
}

void cpu::split_columns(const Context& context, const ConstTensor& x, int64_t first_column, const Tensor& y) {
  const char* from = static_cast<const char*>(x.data());
  char* to = static_cast<char*>(y.data());
  const int64_t element = size_of(x.dtype()), dim = y.dim(2);
  for_rows(context, x, first_column, y, [=](int64_t wide, int64_t narrow, int64_t) {
    std::memcpy(to + narrow * element, from + wide * element, static_cast<size_t>(dim * element));
  });
}

void cpu::split_columns_backward(const Context& context, const ConstTensor& dy, int64_t first_column,
                                 const Tensor& dx) {
  const char* from = static_cast<const char*>(dy.data());
  char* to = static_cast<char*>(dx.data());
  const int64_t element = size_of(dy.dtype()), dim = dy.dim(2);
  for_rows(context, dx, first_column, dy, [=](int64_t wide, int64_t narrow, int64_t) {
    std::memcpy(to + wide * element, from + narrow * element, static_cast<size_t>(dim * element));
  });
}

}  // namespace tessera
