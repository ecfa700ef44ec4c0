#include <algorithm>
#include <cmath>

#include "tensor/context/threads.h"
#include "tensor/ops/lanes.h"
#include "tensor/ops/norm_kernels.h"

namespace tessera {
namespace {

// Tokens whose contributions to dweight and dbias form one partial sum. Fixed, so that sums do not depend on threads.
constexpr int64_t kTokenBlock = 32;

enum class Kind { Rms, Layer };

int64_t token_grain(int64_t hidden) { return 1 + 16384 / hidden; }

template <Kind kind, class T>
void forward_token(const T* x, const T* weight, const T* bias, int64_t hidden, Acc<T> epsilon, T* y, Acc<T>* mean,
                   Acc<T>* rstd) {
  using A = Acc<T>;
  const A count = static_cast<A>(hidden);
  A m = 0;
  if constexpr (kind == Kind::Layer) {
    m = lane_sum<A>(hidden, [x](int64_t i) { return static_cast<A>(x[i]); }) / count;
    *mean = m;
  }
  const A variance = lane_sum<A>(hidden,
                                 [x, m](int64_t i) {
                                   const A centred = static_cast<A>(x[i]) - m;
                                   return centred * centred;
                                 }) /
                     count;
  const A r = A(1) / std::sqrt(variance + epsilon);
  *rstd = r;
#pragma omp simd
  for (int64_t i = 0; i < hidden; ++i) {
    A value = (static_cast<A>(x[i]) - m) * r * static_cast<A>(weight[i]);
    if constexpr (kind == Kind::Layer) value += static_cast<A>(bias[i]);
    y[i] = round_to<T>(value);
  }
}

// With n_i = (x_i - m) r and g_i = dy_i w_i:
//   dx_i = r (g_i - mean(g) - n_i mean(g n)) + residual_i      (RMSNorm: m = 0, and mean(g) does not occur)
//   dweight_i += dy_i n_i,   dbias_i += dy_i
template <Kind kind, bool has_residual, class T>
void backward_token(const T* dy, const T* x, const T* weight, Acc<T> m, Acc<T> r, const T* residual, int64_t hidden,
                    T* dx, Acc<T>* dweight, Acc<T>* dbias) {
  using A = Acc<T>;
  const std::array<A, 2> sums = lane_sums<A, 2>(
      hidden, [=](int64_t i) __attribute__((always_inline)) {
        const A g = static_cast<A>(dy[i]) * static_cast<A>(weight[i]);
        return std::array<A, 2>{g * ((static_cast<A>(x[i]) - m) * r), kind == Kind::Layer ? g : A(0)};
      });
  const A mean_gn = sums[0] / static_cast<A>(hidden), mean_g = sums[1] / static_cast<A>(hidden);
#pragma omp simd
  for (int64_t i = 0; i < hidden; ++i) {
    const A gradient = static_cast<A>(dy[i]);
    const A n = (static_cast<A>(x[i]) - m) * r;
    A value = r * (gradient * static_cast<A>(weight[i]) - mean_g - n * mean_gn);
    if constexpr (has_residual) value += static_cast<A>(residual[i]);
    dweight[i] += gradient * n;
    if constexpr (kind == Kind::Layer) dbias[i] += gradient;
    dx[i] = round_to<T>(value);
  }
}

// sums[i] += partial[0][i] + partial[1][i] + ..., each added in this order; rows are `stride` apart.
template <class A>
void add_partials(const Context& context, const A* partial, int64_t stride, int64_t rows, int64_t hidden, A* sums) {
  parallel_for(context, hidden, 4096, [=](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row) {
      const A* from = partial + row * stride;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) sums[i] += from[i];
    }
  });
}

template <Kind kind, bool has_residual, class T>
void backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
              const Acc<T>* mean, const Acc<T>* rstd, const T* residual, const Tensor& dx, Acc<T>* dweight,
              Acc<T>* dbias) {
  using A = Acc<T>;
  constexpr int64_t kSums = kind == Kind::Layer ? 2 : 1;
  const int64_t tokens = x.dim(0), hidden = x.dim(1), stride = kSums * hidden;
  const int64_t blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  const int64_t wave = norm_backward_partials(context.target(), hidden, x.dtype(), kSums);
  const T *dy_data = dy.as<T>(), *x_data = x.as<T>(), *w = weight.as<T>();
  T* dx_data = dx.as<T>();
  const ArenaScope scope(context.workspace());
  const Tensor rows = context.workspace().take({wave, kSums, hidden}, accumulation_dtype(x.dtype()));
  A* partial = rows.as<A>();
  for (int64_t first = 0; first < blocks; first += wave) {
    const int64_t count = std::min(wave, blocks - first);
    parallel_for(context, count, 1, [=](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        A *dw = partial + b * stride, *db = dw + hidden;
        std::fill_n(dw, stride, A(0));
        const int64_t first_token = (first + b) * kTokenBlock;
        for (int64_t t = first_token; t < std::min(tokens, first_token + kTokenBlock); ++t) {
          const int64_t at = t * hidden;
          backward_token<kind, has_residual, T>(dy_data + at, x_data + at, w, kind == Kind::Layer ? mean[t] : A(0),
                                                rstd[t], has_residual ? residual + at : nullptr, hidden, dx_data + at,
                                                dw, db);
        }
      }
    });
    add_partials(context, partial, stride, count, hidden, dweight);
    if constexpr (kind == Kind::Layer) add_partials(context, partial + hidden, stride, count, hidden, dbias);
  }
}

template <Kind kind>
void dispatch_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                       const ConstTensor* mean, const ConstTensor& rstd, const ConstTensor& residual, const Tensor& dx,
                       const Tensor& dweight, const Tensor* dbias) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const A* mean_data = mean ? mean->as<A>() : nullptr;
    A* dbias_data = dbias ? dbias->as<A>() : nullptr;
    if (residual.empty())
      backward<kind, false, T>(context, dy, x, weight, mean_data, rstd.as<A>(), nullptr, dx, dweight.as<A>(),
                               dbias_data);
    else
      backward<kind, true, T>(context, dy, x, weight, mean_data, rstd.as<A>(), residual.as<T>(), dx, dweight.as<A>(),
                              dbias_data);
  });
}

}  // namespace

void cpu::rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, double epsilon,
                   const Tensor& y, const Tensor& rstd) {
  const int64_t hidden = x.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *from = x.as<T>(), *w = weight.as<T>();
    T* to = y.as<T>();
    A* r = rstd.as<A>();
    parallel_for(context, x.dim(0), token_grain(hidden), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        forward_token<Kind::Rms, T>(from + t * hidden, w, nullptr, hidden, static_cast<A>(epsilon), to + t * hidden,
                                    nullptr, r + t);
      }
    });
  });
}

void cpu::layer_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, const ConstTensor& bias,
                     double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  const int64_t hidden = x.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *from = x.as<T>(), *w = weight.as<T>(), *b = bias.as<T>();
    T* to = y.as<T>();
    A *m = mean.as<A>(), *r = rstd.as<A>();
    parallel_for(context, x.dim(0), token_grain(hidden), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        forward_token<Kind::Layer, T>(from + t * hidden, w, b, hidden, static_cast<A>(epsilon), to + t * hidden, m + t,
                                      r + t);
      }
    });
  });
}

void cpu::rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                            const ConstTensor& rstd, const ConstTensor& residual_gradient, const Tensor& dx,
                            const Tensor& dweight) {
  dispatch_backward<Kind::Rms>(context, dy, x, weight, nullptr, rstd, residual_gradient, dx, dweight, nullptr);
}

void cpu::layer_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                              const ConstTensor& mean, const ConstTensor& rstd, const ConstTensor& residual_gradient,
                              const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  dispatch_backward<Kind::Layer>(context, dy, x, weight, &mean, rstd, residual_gradient, dx, dweight, &dbias);
}

}  // namespace tessera
