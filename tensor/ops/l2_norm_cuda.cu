// A warp has one head of one token. Bytes moved an element: forward 2 times its size, backward 3.
#include <cmath>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/l2_norm_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

struct Rows {
  int64_t tokens, width, first_column;
  int32_t heads, dim;
};

// Calls row(wide, narrow, statistic) with the offsets of this warp's rows, as on the CPU.
template <class F>
__device__ __forceinline__ void for_rows(const Rows& rows, F row) {
  const int64_t warps = int64_t{gridDim.x} * (blockDim.x / 32);
  for (int64_t i = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32; i < rows.tokens * rows.heads;
       i += warps) {
    const int64_t token = i / rows.heads, head = i % rows.heads;
    row(token * rows.width + rows.first_column + head * rows.dim, (head * rows.tokens + token) * rows.dim,
        head * rows.tokens + token);
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    l2_norm_kernel(Rows rows, const T* x, Acc<T> epsilon, T* y, Acc<T>* rstd) {
  using A = Acc<T>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for_rows(rows, [&](int64_t wide, int64_t narrow, int64_t at) {
    A squares = A(0);
    for (int32_t i = lane; i < rows.dim; i += 32) squares += static_cast<A>(x[wide + i]) * static_cast<A>(x[wide + i]);
    const A r = A(1) / std::sqrt(warp_sum(squares) + epsilon);
    if (lane == 0) rstd[at] = r;
    for (int32_t i = lane; i < rows.dim; i += 32) y[narrow + i] = rounded<T>(static_cast<A>(x[wide + i]) * r);
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    l2_norm_backward_kernel(Rows rows, const T* dy, const T* x, const Acc<T>* rstd, T* dx) {
  using A = Acc<T>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for_rows(rows, [&](int64_t wide, int64_t narrow, int64_t at) {
    const A r = rstd[at];
    A along = A(0);
    for (int32_t i = lane; i < rows.dim; i += 32)
      along += static_cast<A>(dy[narrow + i]) * (static_cast<A>(x[wide + i]) * r);
    along = warp_sum(along);
    for (int32_t i = lane; i < rows.dim; i += 32)
      dx[wide + i] = rounded<T>(r * (static_cast<A>(dy[narrow + i]) - static_cast<A>(x[wide + i]) * r * along));
  });
}

enum class Direction { Split, Join };

template <Direction direction, class T>
__global__ void __launch_bounds__(kElementThreads) move_kernel(Rows rows, const T* from, T* to) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for_rows(rows, [&](int64_t wide, int64_t narrow, int64_t) {
    for (int32_t i = lane; i < rows.dim; i += 32) {
      if constexpr (direction == Direction::Split)
        to[narrow + i] = from[wide + i];
      else
        to[wide + i] = from[narrow + i];
    }
  });
}

Rows rows_of(const ConstTensor& wide, int64_t first_column, const ConstTensor& heads) {
  return {.tokens = wide.dim(0),
          .width = wide.dim(1),
          .first_column = first_column,
          .heads = static_cast<int32_t>(heads.dim(0)),
          .dim = static_cast<int32_t>(heads.dim(2))};
}

unsigned int blocks(const Context& context, const Rows& rows) {
  return stride_blocks(context, rows.tokens * rows.heads, kElementThreads / 32);
}

}  // namespace

void cuda::l2_norm_heads(const Context& context, const ConstTensor& x, int64_t first_column, double epsilon,
                         const Tensor& y, const Tensor& rstd) {
  if (y.size() == 0) return;
  const Rows rows = rows_of(x, first_column, y);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    launch(context, "l2_norm", &l2_norm_kernel<T>, blocks(context, rows), kElementThreads, 0, rows, x.as<T>(),
           static_cast<A>(epsilon), y.as<T>(), rstd.as<A>());
  });
}

void cuda::l2_norm_heads_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x,
                                  int64_t first_column, const ConstTensor& rstd, const Tensor& dx) {
  if (dy.size() == 0) return;
  const Rows rows = rows_of(x, first_column, dy);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    launch(context, "l2_norm_backward", &l2_norm_backward_kernel<T>, blocks(context, rows), kElementThreads, 0, rows,
           dy.as<T>(), x.as<T>(), rstd.as<Acc<T>>(), dx.as<T>());
  });
}

void cuda::split_columns(const Context& context, const ConstTensor& x, int64_t first_column, const Tensor& y) {
  if (y.size() == 0) return;
  const Rows rows = rows_of(x, first_column, y);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    launch(context, "split_columns", &move_kernel<Direction::Split, T>, blocks(context, rows), kElementThreads, 0, rows,
           x.as<T>(), y.as<T>());
  });
}

void cuda::split_columns_backward(const Context& context, const ConstTensor& dy, int64_t first_column,
                                  const Tensor& dx) {
  if (dy.size() == 0) return;
  const Rows rows = rows_of(dx, first_column, dy);
  dispatch_float(dy.dtype(), [&]<class T>(T) {
    launch(context, "split_columns_backward", &move_kernel<Direction::Join, T>, blocks(context, rows), kElementThreads,
           0, rows, dy.as<T>(), dx.as<T>());
  });
}

}  // namespace tessera
