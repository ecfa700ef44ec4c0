// A warp has one row: a head of a token. Bytes moved an element: forward 3 times its size, backward 5.
#include <algorithm>
#include <cmath>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/column_sums.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/gated_norm_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int kWarps = kElementThreads / 32;

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + std::exp(-x));
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    gated_norm_kernel(const T* x, const T* gate, const T* weight, Acc<T> epsilon, int64_t rows, int32_t dim, T* y,
                      Acc<T>* rstd) {
  using A = Acc<T>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; row < rows; row += int64_t{gridDim.x} * kWarps) {
    const int64_t at = row * dim;
    A squares = A(0);
    for (int32_t i = lane; i < dim; i += 32) squares += static_cast<A>(x[at + i]) * static_cast<A>(x[at + i]);
    const A r = A(1) / std::sqrt(warp_sum(squares) / static_cast<A>(dim) + epsilon);
    if (lane == 0) rstd[row] = r;
    for (int32_t i = lane; i < dim; i += 32) {
      const A g = static_cast<A>(gate[at + i]);
      y[at + i] = rounded<T>(static_cast<A>(x[at + i]) * r * static_cast<A>(weight[i]) * (g * sigmoid(g)));
    }
  }
}

template <class T>
struct BackwardOperands {
  const T *dy, *x, *gate, *weight;
  const Acc<T>* rstd;
  T *dx, *dgate;    // may be inputs: each thread reads an element before it writes it
  Acc<T>* partial;  // [blocks, dim]
  int64_t rows;
  int32_t dim;
};

// Formulas as in gated_norm_cpu.cc. Block b has rows b, b + gridDim.x, ... of which its threads do one at a time, so that
// a thread owns its columns of the block's sums.
template <class T>
__global__ void __launch_bounds__(kElementThreads) gated_norm_backward_kernel(BackwardOperands<T> o) {
  using A = Acc<T>;
  A* sums = o.partial + int64_t{blockIdx.x} * o.dim;
  const int32_t begin = static_cast<int32_t>(threadIdx.x), step = static_cast<int32_t>(blockDim.x);
  for (int32_t i = begin; i < o.dim; i += step) sums[i] = A(0);
  for (int64_t row = blockIdx.x; row < o.rows; row += gridDim.x) {
    const int64_t at = row * o.dim;
    const A r = o.rstd[row];
    A mean[1] = {A(0)};
    for (int32_t i = begin; i < o.dim; i += step) {
      const A g = static_cast<A>(o.gate[at + i]);
      mean[0] += static_cast<A>(o.dy[at + i]) * static_cast<A>(o.weight[i]) * (g * sigmoid(g)) *
                 (static_cast<A>(o.x[at + i]) * r);
    }
    block_sums(mean);
    const A average = mean[0] / static_cast<A>(o.dim);
    for (int32_t i = begin; i < o.dim; i += step) {
      const A gradient = static_cast<A>(o.dy[at + i]), w = static_cast<A>(o.weight[i]);
      const A g = static_cast<A>(o.gate[at + i]), n = static_cast<A>(o.x[at + i]) * r;
      const A s = sigmoid(g), open = g * s;
      sums[i] += gradient * n * open;
      o.dx[at + i] = rounded<T>(r * (gradient * w * open - n * average));
      o.dgate[at + i] = rounded<T>(gradient * n * w * (s + open * (A(1) - s)));
    }
  }
}

}  // namespace

void cuda::gated_rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& gate,
                          const ConstTensor& weight, double epsilon, const Tensor& y, const Tensor& rstd) {
  const int64_t rows = x.dim(0) * x.dim(1);
  if (rows == 0) return;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    launch(context, "gated_rms_norm", &gated_norm_kernel<T>, stride_blocks(context, rows, kWarps), kElementThreads, 0,
           x.as<T>(), gate.as<T>(), weight.as<T>(), static_cast<A>(epsilon), rows, static_cast<int32_t>(x.dim(2)),
           y.as<T>(), rstd.as<A>());
  });
}

void cuda::gated_rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x,
                                   const ConstTensor& gate, const ConstTensor& weight, const ConstTensor& rstd,
                                   const Tensor& dx, const Tensor& dgate, const Tensor& dweight) {
  const int64_t dim = x.dim(2), rows = x.dim(0) * x.dim(1), most = gated_norm_partials(context.target());
  const ArenaScope scope(context.workspace());
  const Tensor partial = context.workspace().take({most, dim}, dweight.dtype());
  if (rows == 0) return;
  const int64_t blocks = std::min(rows, most);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const BackwardOperands<T> o{.dy = dy.as<T>(),
                                .x = x.as<T>(),
                                .gate = gate.as<T>(),
                                .weight = weight.as<T>(),
                                .rstd = rstd.as<A>(),
                                .dx = dx.as<T>(),
                                .dgate = dgate.as<T>(),
                                .partial = partial.as<A>(),
                                .rows = rows,
                                .dim = static_cast<int32_t>(dim)};
    launch(context, "gated_rms_norm_backward", &gated_norm_backward_kernel<T>, static_cast<unsigned int>(blocks),
           row_threads(dim), 0, o);
    add_column_sums_of(context, "gated_rms_norm_backward: dweight", partial.as<A>(), blocks, dim, dim, dweight.as<A>());
  });
}

}  // namespace tessera
