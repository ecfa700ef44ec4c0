// Bytes moved: every element once.
#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/column_sums.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/reduce_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

// Blocks of a sum: as many on every device, so that the order of additions depends on the size and alignment alone.
constexpr int64_t kSumBlocks = 1024;
static_assert(kSumBlocks * static_cast<int64_t>(sizeof(double)) <= Runtime::kPartialBytes);

template <int N, class T>
__global__ void __launch_bounds__(kElementThreads) squares_kernel(const T* x, int64_t size, double* partial) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x, self = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t packs = size / N;
  double sum[1] = {0};
  for (int64_t i = self; i < packs; i += stride) {
    const Pack<T, N> in = load<N>(x + i * N);
    for (int k = 0; k < N; ++k) {
      const double value = static_cast<double>(in.x[k]);
      sum[0] += value * value;
    }
  }
  if (const int64_t rest = packs * N + self; rest < size) {
    const double value = static_cast<double>(x[rest]);
    sum[0] += value * value;
  }
  block_sums(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum[0];
}

// One block: *sum = the sum of `count` partial sums.
__global__ void __launch_bounds__(kElementThreads) sum_kernel(const double* partial, int64_t count, double* sum) {
  double value[1] = {0};
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) value[0] += partial[i];
  block_sums(value);
  if (threadIdx.x == 0) *sum = value[0];
}

// Elements [first, first + N) of the sum of parts of `size` elements: each thread reads its elements of every part
// before it writes them.
template <class T, class R>
struct AddParts {
  const T* x;
  int64_t parts, size;
  R* sum;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    A sums[N];
    const Pack<T, N> own = load<N>(x + first);
    for (int k = 0; k < N; ++k) sums[k] = static_cast<A>(own.x[k]);
    for (int64_t part = 1; part < parts; ++part) {
      const Pack<T, N> in = load<N>(x + part * size + first);
      for (int k = 0; k < N; ++k) sums[k] += static_cast<A>(in.x[k]);
    }
    Pack<R, N> out;
    for (int k = 0; k < N; ++k) out.x[k] = rounded<R>(sums[k]);
    store(sum + first, out);
  }
};

// Sets *found when an element is NaN or infinite: when its bits without the sign reach those of infinity.
template <class T>
struct FindNonFinite {
  const T* x;
  int32_t* found;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    using Bits = std::conditional_t<std::is_same_v<A, double>, uint64_t, uint32_t>;
    constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<A>::infinity());
    const Pack<T, N> in = load<N>(x + first);
    bool bad = false;
    for (int k = 0; k < N; ++k) {
      bad |= (std::bit_cast<Bits>(static_cast<A>(in.x[k])) & (std::numeric_limits<Bits>::max() >> 1)) >= kInfinity;
    }
    if (bad) atomic_or(found, 1);
  }
};

}  // namespace

void cuda::sum_of_squares(const Context& context, const ConstTensor& x, const Tensor& sum) {
  if (x.size() == 0) return context.cuda().stream().zero(sum.data(), sum.bytes());
  double* partial = static_cast<double*>(context.cuda().partials());
  const int64_t blocks = std::clamp<int64_t>(ceil_divide(x.size(), 4096), 1, kSumBlocks);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    with_width<kPack<T>>(aligned(x.as<T>()), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch(context, "sum_of_squares", &squares_kernel<N, T>, static_cast<unsigned int>(blocks), kElementThreads, 0,
             x.as<T>(), x.size(), partial);
    });
  });
  launch(context, "sum_of_squares: partial sums", &sum_kernel, 1u, kElementThreads, 0, partial, blocks,
         sum.as<double>());
}

void cuda::sum_parts(const Context& context, const ConstTensor& x, const Tensor& sum) {
  const int64_t size = sum.size(), parts = x.size() / size;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    dispatch_float(sum.dtype(), [&]<class R>(R) {
      if constexpr (std::is_same_v<R, T> || std::is_same_v<R, Acc<T>>) {
        constexpr int N = std::min(kPack<T>, kPack<R>);
        const bool whole = size % N == 0 && aligned(x.as<T>(), sum.as<R>());
        for_elements<N>(context, "sum_parts", size, whole, AddParts<T, R>{x.as<T>(), parts, size, sum.as<R>()});
      }
    });
  });
}

bool cuda::all_finite(const Context& context, const ConstTensor& x) {
  if (x.size() == 0) return true;
  int32_t* found = static_cast<int32_t*>(context.cuda().partials());
  context.cuda().stream().zero(found, sizeof(int32_t));
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "all_finite", x.size(), aligned(x.as<T>()), FindNonFinite<T>{x.as<T>(), found});
  });
  return context.cuda().fetch(found) == 0;
}

void cuda::add_column_sums(const Context& context, const ConstTensor& x, const Tensor& sums) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    add_column_sums_of(context, "add_column_sums", x.as<T>(), x.dim(0), x.dim(1), x.dim(1), sums.as<Acc<T>>());
  });
}

}  // namespace tessera
