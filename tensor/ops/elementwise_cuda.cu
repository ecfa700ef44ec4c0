// Bytes moved an element: add 3 times its size, accumulate one of x's and two of y's, cast one of each, scale 2 times,
// add_bias 2 times (the bias stays in the cache), zero one.
#include <type_traits>

#include "tensor/kernels/elements.h"
#include "tensor/ops/elementwise_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

template <class T>
struct Add {
  const T *a, *b;
  T* y;

  template <int N>
  __device__ void run(int64_t first) const {
    const Pack<T, N> left = load<N>(a + first), right = load<N>(b + first);
    Pack<T, N> sum;
    for (int i = 0; i < N; ++i) sum.x[i] = rounded<T>(static_cast<Acc<T>>(left.x[i]) + static_cast<Acc<T>>(right.x[i]));
    store(y + first, sum);
  }
};

template <class T>
struct Accumulate {
  const T* x;
  Acc<T>* y;

  template <int N>
  __device__ void run(int64_t first) const {
    const Pack<T, N> from = load<N>(x + first);
    Pack<Acc<T>, N> sum = load<N>(y + first);
    for (int i = 0; i < N; ++i) sum.x[i] += static_cast<Acc<T>>(from.x[i]);
    store(y + first, sum);
  }
};

template <class From, class To>
struct Cast {
  const From* x;
  To* y;

  template <int N>
  __device__ void run(int64_t first) const {
    const Pack<From, N> from = load<N>(x + first);
    Pack<To, N> to;
    for (int i = 0; i < N; ++i) to.x[i] = rounded<To>(static_cast<Acc<From>>(from.x[i]));
    store(y + first, to);
  }
};

template <class T>
struct Scale {
  Acc<T> factor;
  T* x;

  template <int N>
  __device__ void run(int64_t first) const {
    Pack<T, N> value = load<N>(x + first);
    for (int i = 0; i < N; ++i) value.x[i] = rounded<T>(factor * static_cast<Acc<T>>(value.x[i]));
    store(x + first, value);
  }
};

// x[row, :] += bias. A block takes rows in strides, so that no index is divided.
template <int N, class B, class T>
__global__ void __launch_bounds__(kElementThreads) add_bias_kernel(const B* bias, T* x, int64_t rows, int64_t columns) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    T* to = x + row * columns;
    for (int64_t i = int64_t{threadIdx.x} * N; i < columns; i += int64_t{blockDim.x} * N) {
      const Pack<B, N> add = load<N>(bias + i);
      Pack<T, N> value = load<N>(to + i);
      for (int k = 0; k < N; ++k)
        value.x[k] = rounded<T>(static_cast<Acc<T>>(value.x[k]) + static_cast<Acc<T>>(add.x[k]));
      store(to + i, value);
    }
  }
}

}  // namespace

void cuda::add(const Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "add", y.size(), aligned(a.as<T>(), b.as<T>(), y.as<T>()),
                           Add<T>{a.as<T>(), b.as<T>(), y.as<T>()});
  });
}

void cuda::accumulate(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    for_elements<kPack<T>>(context, "accumulate", y.size(), aligned(x.as<T>(), y.as<A>()),
                           Accumulate<T>{x.as<T>(), y.as<A>()});
  });
}

void cuda::cast(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(x.dtype(), [&]<class From>(From) {
    dispatch_float(y.dtype(), [&]<class To>(To) {
      if constexpr (std::is_same_v<From, To>) {
        if (x.data() != y.data()) context.cuda().stream().copy_on_device(y.data(), x.data(), y.bytes());
      } else {
        constexpr int kWidth = kWidestPack<From, To>;
        for_elements<kWidth>(context, "cast", y.size(), aligned(x.as<From>(), y.as<To>()),
                             Cast<From, To>{x.as<From>(), y.as<To>()});
      }
    });
  });
}

void cuda::scale(const Context& context, double factor, const Tensor& x) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "scale", x.size(), aligned(x.as<T>()),
                           Scale<T>{static_cast<Acc<T>>(factor), x.as<T>()});
  });
}

void cuda::add_bias(const Context& context, const ConstTensor& bias, const Tensor& x) {
  const int64_t rows = x.dim(0), columns = x.dim(1);
  if (rows == 0 || columns == 0) return;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const auto run = [&]<class B>(const B* from) {
      T* to = x.as<T>();
      with_width<kPack<T>>(aligned(from, to) && columns % kPack<T> == 0, [&](auto width) {
        constexpr int N = decltype(width)::value;
        launch(context, "add_bias", &add_bias_kernel<N, B, T>, stride_blocks(context, rows, 1),
               row_threads(columns / N), 0, from, to, rows, columns);
      });
    };
    // Products of BF16 with F32 results bring a BF16 bias.
    if (std::is_same_v<T, float> && bias.dtype() == DType::BF16)
      run(bias.as<bf16>());
    else
      run(bias.as<T>());
  });
}

void cuda::zero(const Context& context, const Tensor& x) { context.cuda().stream().zero(x.data(), x.bytes()); }

}  // namespace tessera
