// Bytes moved an element: one of x's and one of y's. A block takes rows in strides, so that no index is divided.
#include <type_traits>

#include "tensor/kernels/elements.h"
#include "tensor/ops/columns_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

template <int N, class From, class To>
__global__ void __launch_bounds__(kElementThreads)
    copy_columns_kernel(const From* x, int64_t x_stride, int64_t rows, int64_t count, To* y, int64_t y_stride) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const From* in = x + row * x_stride;
    To* out = y + row * y_stride;
    for (int64_t i = int64_t{threadIdx.x} * N; i < count; i += int64_t{blockDim.x} * N) {
      const Pack<From, N> from = load<N>(in + i);
      Pack<To, N> to;
      for (int k = 0; k < N; ++k) {
        if constexpr (std::is_same_v<From, To>)
          to.x[k] = from.x[k];
        else
          to.x[k] = rounded<To>(static_cast<Acc<From>>(from.x[k]));
      }
      store(out + i, to);
    }
  }
}

}  // namespace

void cuda::copy_columns(const Context& context, const ConstTensor& x, int64_t from, int64_t count, const Tensor& y,
                        int64_t to) {
  const int64_t rows = y.dim(0), n = x.dim(1), m = y.dim(1);
  if (rows == 0 || count == 0) return;
  dispatch_float(x.dtype(), [&]<class From>(From) {
    dispatch_float(y.dtype(), [&]<class To>(To) {
      const From* source = x.as<From>() + from;
      To* target = y.as<To>() + to;
      constexpr int kWidth = kWidestPack<From, To>;
      const bool whole = aligned(source, target) && n % kWidth == 0 && m % kWidth == 0 && count % kWidth == 0;
      with_width<kWidth>(whole, [&](auto width) {
        constexpr int N = decltype(width)::value;
        launch(context, "copy_columns", &copy_columns_kernel<N, From, To>, stride_blocks(context, rows, 1),
               row_threads(count / N), 0, source, n, rows, count, target, m);
      });
    });
  });
}

}  // namespace tessera
