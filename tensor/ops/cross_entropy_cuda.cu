// A block walks along one token's row of logits. Bytes moved a logit: maximum 4, sums 4, gradient 4 and the size of
// dlogits (8 bytes more an element in F64).
#include <cmath>
#include <limits>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/cross_entropy_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

// The target's column here, or -1 when another rank holds it or the token has none.
__device__ __forceinline__ int64_t local_column(int32_t target, int64_t first_column, int64_t columns) {
  const int64_t column = target - first_column;
  return target >= 0 && 0 <= column && column < columns ? column : -1;
}

template <int N, class A>
__global__ void __launch_bounds__(kElementThreads)
    maximum_kernel(const A* logits, int64_t tokens, int64_t columns, A* maximum) {
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    A most = -std::numeric_limits<A>::infinity();
    for (int64_t i = int64_t{threadIdx.x} * N; i < columns; i += int64_t{blockDim.x} * N) {
      const Pack<A, N> z = load<N>(logits + token * columns + i);
      for (int k = 0; k < N; ++k) most = larger(z.x[k], most);
    }
    most = block_max(most);
    if (threadIdx.x == 0) maximum[token] = most;
  }
}

// sums and target_logit are those of the chunk's first token.
template <int N, class A>
__global__ void __launch_bounds__(kElementThreads)
    sums_kernel(const A* logits, const int32_t* target, int64_t first_column, const A* maximum, int64_t tokens,
                int64_t columns, A* sums, A* target_logit) {
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const A* row = logits + token * columns;
    const A shift = maximum[token];
    A sum[1] = {A(0)};
    for (int64_t i = int64_t{threadIdx.x} * N; i < columns; i += int64_t{blockDim.x} * N) {
      const Pack<A, N> z = load<N>(row + i);
      for (int k = 0; k < N; ++k) sum[0] += std::exp(z.x[k] - shift);
    }
    block_sums(sum);
    if (threadIdx.x == 0) {
      const int64_t column = local_column(target[token], first_column, columns);
      sums[token] = sum[0];
      target_logit[token] = column >= 0 ? row[column] - shift : A(0);
    }
  }
}

// One block: *loss += the losses of a chunk of tokens.
template <class A>
__global__ void __launch_bounds__(kElementThreads)
    loss_kernel(const int32_t* target, const A* sums, const A* target_logit, int64_t tokens, double* loss) {
  double sum[1] = {0};
  for (int64_t token = threadIdx.x; token < tokens; token += blockDim.x) {
    if (target[token] < 0) continue;
    sum[0] += std::log(static_cast<double>(sums[token])) - static_cast<double>(target_logit[token]);
  }
  block_sums(sum);
  if (threadIdx.x == 0) *loss += sum[0];
}

// dlogits may be logits: each thread reads an element before it writes it.
template <int N, class T>
__global__ void __launch_bounds__(kElementThreads)
    gradient_kernel(const Acc<T>* logits, const int32_t* target, int64_t first_column, const Acc<T>* maximum,
                    const Acc<T>* sums, int64_t tokens, int64_t columns, Acc<T> scale, T* dlogits) {
  using A = Acc<T>;
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const bool counts = target[token] >= 0;
    const int64_t column = local_column(target[token], first_column, columns);
    const A shift = maximum[token], sum = sums[token];
    const A factor = scale / sum;
    for (int64_t i = int64_t{threadIdx.x} * N; i < columns; i += int64_t{blockDim.x} * N) {
      const Pack<A, N> z = load<N>(logits + token * columns + i);
      Pack<T, N> out;
      for (int k = 0; k < N; ++k) {
        const A exponential = std::exp(z.x[k] - shift);
        const A value = i + k == column ? scale * (exponential / sum - A(1)) : exponential * factor;
        out.x[k] = rounded<T>(counts ? value : A(0));
      }
      store(dlogits + token * columns + i, out);
    }
  }
}

}  // namespace

void cuda::cross_entropy_maximum(const Context& context, const ConstTensor& logits, const Tensor& maximum) {
  const int64_t tokens = logits.dim(0), columns = logits.dim(1);
  if (tokens == 0) return;
  dispatch_float(logits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    with_width<kPack<A>>(columns % kPack<A> == 0 && aligned(logits.as<A>()), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch(context, "cross_entropy_maximum", &maximum_kernel<N, A>, stride_blocks(context, tokens, 1),
             row_threads(columns / N), 0, logits.as<A>(), tokens, columns, maximum.as<A>());
    });
  });
}

void cuda::cross_entropy_sums(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                              int64_t first_column, const ConstTensor& maximum, const Tensor& sums) {
  const int64_t all_tokens = logits.dim(0), columns = logits.dim(1);
  dispatch_float(logits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    with_width<kPack<A>>(columns % kPack<A> == 0 && aligned(logits.as<A>()), [&](auto width) {
      constexpr int N = decltype(width)::value;
      for_chunks<int32_t>(target, [&](int64_t first, std::span<const int32_t> part) {
        const int64_t tokens = static_cast<int64_t>(part.size());
        launch(context, "cross_entropy_sums", &sums_kernel<N, A>, stride_blocks(context, tokens, 1),
               row_threads(columns / N), 0, logits.as<A>() + first * columns, context.cuda().uploads().copy(part),
               first_column, maximum.as<A>() + first, tokens, columns, sums.as<A>() + first,
               sums.as<A>() + all_tokens + first);
      });
    });
  });
}

void cuda::cross_entropy_loss(const Context& context, std::span<const int32_t> target, const ConstTensor& sums,
                              const Tensor& loss) {
  dispatch_float(sums.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    for_chunks<int32_t>(target, [&](int64_t first, std::span<const int32_t> part) {
      launch(context, "cross_entropy_loss", &loss_kernel<A>, 1u, kElementThreads, 0,
             context.cuda().uploads().copy(part), sums.as<A>() + first, sums.as<A>() + target.size() + first,
             static_cast<int64_t>(part.size()), loss.as<double>());
    });
  });
}

void cuda::cross_entropy_backward(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                                  int64_t first_column, const ConstTensor& maximum, const ConstTensor& sums,
                                  double scale, const Tensor& dlogits) {
  const int64_t columns = logits.dim(1);
  if (columns == 0) return;
  dispatch_float(dlogits.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    // Rows of packs of A; those of T are smaller and as aligned.
    with_width<kPack<A>>(columns % kPack<A> == 0 && aligned(logits.as<A>(), dlogits.as<T>()), [&](auto width) {
      constexpr int N = decltype(width)::value;
      for_chunks<int32_t>(target, [&](int64_t first, std::span<const int32_t> part) {
        const int64_t tokens = static_cast<int64_t>(part.size());
        launch(context, "cross_entropy_backward", &gradient_kernel<N, T>, stride_blocks(context, tokens, 1),
               row_threads(columns / N), 0, logits.as<A>() + first * columns, context.cuda().uploads().copy(part),
               first_column, maximum.as<A>() + first, sums.as<A>() + first, tokens, columns, static_cast<A>(scale),
               dlogits.as<T>() + first * columns);
      });
    });
  });
}

}  // namespace tessera
