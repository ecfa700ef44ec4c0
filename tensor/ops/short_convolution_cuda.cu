// Threads lie along the channels. Bytes moved an element: forward 2 times its size, backward 3 and again 2 for dweight;
// the other rows that a filter sees are in the cache.
#include <algorithm>
#include <cmath>

#include "tensor/kernels/column_sums.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/segments_cuda.h"
#include "tensor/ops/short_convolution_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int64_t kParts = 64;  // of the tokens, each with its own sums of dweight

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + std::exp(-x));
}

template <class T>
struct Convolution {
  using A = Acc<T>;
  SegmentView segments;
  const T *x, *weight, *halo, *dy;  // halo may be null
  T *y, *dx, *dhalo;
  A* partial;  // [kParts, channels, width]
  int64_t tokens, channels;
  int32_t width;

  // Element c of a token from begin - (width - 1) on, of the segment that begins there.
  __device__ A element(int64_t token, int64_t begin, int32_t row, int64_t c) const {
    if (token >= begin) return static_cast<A>(x[token * channels + c]);
    if (row < 0 || halo == nullptr) return A(0);
    return static_cast<A>(halo[(int64_t{row} * (width - 1) + token - begin + width - 1) * channels + c]);
  }
  __device__ A filtered(int64_t token, int64_t begin, int32_t row, int64_t c) const {
    A sum = A(0);
    for (int32_t j = 0; j < width; ++j)
      sum += static_cast<A>(weight[c * width + j]) * element(token - (width - 1) + j, begin, row, c);
    return sum;
  }
  // dy silu'(p) of a token.
  __device__ A gradient(int64_t token, int64_t begin, int32_t row, int64_t c) const {
    const A p = filtered(token, begin, row, c), s = sigmoid(p);
    return static_cast<A>(dy[token * channels + c]) * (s + p * s * (A(1) - s));
  }
  // The gradient of a token's element, from the tokens of its segment that see it.
  __device__ A input_gradient(int64_t token, int32_t segment, int64_t c) const {
    const int64_t begin = segments.begin[segment], end = segments.begin[segment + 1];
    const int32_t row = segments.initial_row(segment);
    A sum = A(0);
    for (int32_t j = 0; j < width; ++j) {
      const int64_t seer = token + width - 1 - j;
      if (seer >= begin && seer < end)
        sum += static_cast<A>(weight[c * width + j]) * gradient(seer, begin, row, c);
    }
    return sum;
  }
};

template <class T>
__global__ void __launch_bounds__(kElementThreads) forward_kernel(Convolution<T> o) {
  for (int64_t token = blockIdx.x; token < o.tokens; token += gridDim.x) {
    const int32_t segment = o.segments.segment_of(static_cast<int32_t>(token));
    const int64_t begin = o.segments.begin[segment];
    const int32_t row = o.segments.initial_row(segment);
    for (int64_t c = threadIdx.x; c < o.channels; c += blockDim.x) {
      const Acc<T> p = o.filtered(token, begin, row, c);
      o.y[token * o.channels + c] = rounded<T>(p * sigmoid(p));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) dx_kernel(Convolution<T> o) {
  for (int64_t token = blockIdx.x; token < o.tokens; token += gridDim.x) {
    const int32_t segment = o.segments.segment_of(static_cast<int32_t>(token));
    for (int64_t c = threadIdx.x; c < o.channels; c += blockDim.x)
      o.dx[token * o.channels + c] = rounded<T>(o.input_gradient(token, segment, c));
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) dhalo_kernel(Convolution<T> o) {
  for (int32_t segment = static_cast<int32_t>(blockIdx.x); segment < o.segments.count();
       segment += static_cast<int32_t>(gridDim.x)) {
    const int32_t row = o.segments.initial_row(segment);
    if (row < 0) continue;
    for (int32_t i = 0; i < o.width - 1; ++i) {
      const int64_t token = o.segments.begin[segment] - (o.width - 1) + i;
      T* to = o.dhalo + (int64_t{row} * (o.width - 1) + i) * o.channels;
      for (int64_t c = threadIdx.x; c < o.channels; c += blockDim.x)
        to[c] = rounded<T>(o.input_gradient(token, segment, c));
    }
  }
}

// Block (b, p) adds up dweight of kElementThreads channels over part p of the tokens, in order.
template <class T>
__global__ void __launch_bounds__(kElementThreads) dweight_kernel(Convolution<T> o) {
  using A = Acc<T>;
  const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= o.channels) return;
  const int64_t each = ceil_divide(o.tokens, gridDim.y), first = each * blockIdx.y;
  const int64_t last = first + each < o.tokens ? first + each : o.tokens;
  A sums[kMostConvolutionWidth] = {};
  int32_t segment = first < last ? o.segments.segment_of(static_cast<int32_t>(first)) : 0;
  for (int64_t token = first; token < last; ++token) {
    if (o.segments.begin[segment + 1] <= token) ++segment;
    const int64_t begin = o.segments.begin[segment];
    const int32_t row = o.segments.initial_row(segment);
    const A gradient = o.gradient(token, begin, row, c);
#pragma unroll
    for (int32_t j = 0; j < static_cast<int32_t>(kMostConvolutionWidth); ++j)
      if (j < o.width) sums[j] += gradient * o.element(token - (o.width - 1) + j, begin, row, c);
  }
  A* to = o.partial + (int64_t{blockIdx.y} * o.channels + c) * o.width;
#pragma unroll
  for (int32_t j = 0; j < static_cast<int32_t>(kMostConvolutionWidth); ++j)
    if (j < o.width) to[j] = sums[j];
}

template <class T>
Convolution<T> make_convolution(const TokenSegments& segments, const ConstTensor& x, const ConstTensor& weight,
                                const ConstTensor& halo) {
  Convolution<T> o{};
  o.segments = segment_view(segments);
  o.x = x.as<T>();
  o.weight = weight.as<T>();
  o.halo = halo.empty() ? nullptr : halo.as<T>();
  o.tokens = x.dim(0);
  o.channels = x.dim(1);
  o.width = static_cast<int32_t>(weight.dim(1));
  return o;
}

}  // namespace

void cuda::short_convolution(const Context& context, const TokenSegments& segments, const ConstTensor& x,
                             const ConstTensor& weight, const ConstTensor& halo, const Tensor& y) {
  if (x.size() == 0) return;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    Convolution<T> o = make_convolution<T>(segments, x, weight, halo);
    o.y = y.as<T>();
    launch(context, "short_convolution", &forward_kernel<T>, stride_blocks(context, o.tokens, 1),
           row_threads(o.channels), 0, o);
  });
}

void cuda::short_convolution_backward(Context& context, const TokenSegments& segments, const ConstTensor& dy,
                                      const ConstTensor& x, const ConstTensor& weight, const ConstTensor& halo,
                                      const Tensor& dx, const Tensor& dhalo, const Tensor& dweight) {
  if (x.size() == 0) return;
  const ArenaScope scope(context.workspace());
  const Tensor partial = context.workspace().take({kParts, x.dim(1), weight.dim(1)}, dweight.dtype());
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Convolution<T> o = make_convolution<T>(segments, x, weight, halo);
    o.dy = dy.as<T>();
    o.dx = dx.as<T>();
    o.partial = partial.as<A>();
    const unsigned int threads = row_threads(o.channels), blocks = stride_blocks(context, o.tokens, 1);
    launch(context, "short_convolution_backward: dx", &dx_kernel<T>, blocks, threads, 0, o);
    if (!halo.empty()) {
      o.dhalo = dhalo.as<T>();
      launch(context, "short_convolution_backward: dhalo", &dhalo_kernel<T>, blocks, threads, 0, o);
    }
    launch(context, "short_convolution_backward: dweight", &dweight_kernel<T>,
           dim3(static_cast<unsigned int>(ceil_divide(o.channels, kElementThreads)), static_cast<unsigned int>(kParts)),
           kElementThreads, 0, o);
    const int64_t columns = o.channels * o.width;
    add_column_sums_of(context, "short_convolution_backward: sums", o.partial, kParts, columns, columns,
                       dweight.as<A>());
  });
}

int64_t cuda::short_convolution_backward_workspace(const Target&, int64_t channels, int64_t width, DType compute) {
  return Arena::bytes({kParts, channels, width}, accumulation_dtype(compute));
}

}  // namespace tessera
