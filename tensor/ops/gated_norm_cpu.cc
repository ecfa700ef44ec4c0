#include <algorithm>
#include <cmath>

#include "tensor/context/threads.h"
#include "tensor/ops/gated_norm_kernels.h"
#include "tensor/ops/lanes.h"
#include "tensor/ops/simd_math.h"

namespace tessera {
namespace {

// Rows whose contributions to dweight form one partial sum. Fixed, so that sums do not depend on threads.
constexpr int64_t kRowBlock = 128;

// With n = x r, s = silu(g) and m = dy w s:
//   dx = r (m - n mean(m n)),   dg = dy n w silu'(g),   dw += dy n s,   silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g)))
template <class T>
void backward_row(const T* dy, const T* x, const T* gate, const T* weight, Acc<T> r, int64_t dim, T* dx, T* dgate,
                  Acc<T>* dweight) {
  using A = Acc<T>;
  const auto silu = [](A g) __attribute__((always_inline)) { return g * simd::sigmoid(g); };
  const A mean = lane_sum<A>(
                     dim,
                     [=](int64_t i) __attribute__((always_inline)) {
                       const A m = static_cast<A>(dy[i]) * static_cast<A>(weight[i]) * silu(static_cast<A>(gate[i]));
                       return m * (static_cast<A>(x[i]) * r);
                     }) /
                 static_cast<A>(dim);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const A gradient = static_cast<A>(dy[i]), w = static_cast<A>(weight[i]), g = static_cast<A>(gate[i]);
    const A n = static_cast<A>(x[i]) * r, s = simd::sigmoid(g), open = g * s;
    dweight[i] += gradient * n * open;
    dx[i] = round_to<T>(r * (gradient * w * open - n * mean));
    dgate[i] = round_to<T>(gradient * n * w * (s + open * (A(1) - s)));
  }
}

}  // namespace

void cpu::gated_rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& gate,
                         const ConstTensor& weight, double epsilon, const Tensor& y, const Tensor& rstd) {
  const int64_t dim = x.dim(2), rows = x.dim(0) * x.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *from = x.as<T>(), *gates = gate.as<T>(), *w = weight.as<T>();
    T* to = y.as<T>();
    A* statistic = rstd.as<A>();
    parallel_for(context, rows, 1 + 8192 / dim, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T *in = from + row * dim, *g = gates + row * dim;
        const A squares = lane_sum<A>(dim, [in](int64_t i) { return static_cast<A>(in[i]) * static_cast<A>(in[i]); });
        const A r = A(1) / std::sqrt(squares / static_cast<A>(dim) + static_cast<A>(epsilon));
        statistic[row] = r;
        T* out = to + row * dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) {
          const A open = static_cast<A>(g[i]);
          out[i] = round_to<T>(static_cast<A>(in[i]) * r * static_cast<A>(w[i]) * (open * simd::sigmoid(open)));
        }
      }
    });
  });
}

void cpu::gated_rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x,
                                  const ConstTensor& gate, const ConstTensor& weight, const ConstTensor& rstd,
                                  const Tensor& dx, const Tensor& dgate, const Tensor& dweight) {
  const int64_t dim = x.dim(2), rows = x.dim(0) * x.dim(1);
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock, wave = gated_norm_partials(context.target());
  const ArenaScope scope(context.workspace());
  const Tensor sums = context.workspace().take({wave, dim}, dweight.dtype());
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *gradient = dy.as<T>(), *from = x.as<T>(), *gates = gate.as<T>(), *w = weight.as<T>();
    const A* statistic = rstd.as<A>();
    T *to_x = dx.as<T>(), *to_gate = dgate.as<T>();
    A *partial = sums.as<A>(), *total = dweight.as<A>();
    for (int64_t first = 0; first < blocks; first += wave) {
      const int64_t count = std::min(wave, blocks - first);
      parallel_for(context, count, 1, [=](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          std::fill_n(partial + b * dim, dim, A(0));
          const int64_t from_row = (first + b) * kRowBlock;
          for (int64_t row = from_row; row < std::min(rows, from_row + kRowBlock); ++row) {
            const int64_t at = row * dim;
            backward_row<T>(gradient + at, from + at, gates + at, w, statistic[row], dim, to_x + at, to_gate + at,
                            partial + b * dim);
          }
        }
      });
      for (int64_t b = 0; b < count; ++b) {
        for (int64_t i = 0; i < dim; ++i) total[i] += partial[b * dim + i];
      }
    }
  });
}

}  // namespace tessera
