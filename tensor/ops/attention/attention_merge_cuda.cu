// Bytes moved an element of out: its size read and written, and the part's read. A warp for each head of each query.
#include <cmath>
#include <limits>

#include "tensor/kernels/elements.h"
#include "tensor/ops/attention/attention_merge_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    merge_kernel(const T* part, const Acc<T>* part_lse, int64_t queries, int64_t heads, int64_t head_dim, Acc<T>* out,
                 Acc<T>* lse) {
  using A = Acc<T>;
  const int64_t warps = int64_t{gridDim.x} * (blockDim.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t row = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32; row < queries * heads; row += warps) {
    const int64_t at = row % heads * queries + row / heads;
    const A a = lse[at], b = part_lse[at];
    if (b == -std::numeric_limits<A>::infinity()) continue;
    const A most = a > b ? a : b, merged = most + std::log(std::exp(a - most) + std::exp(b - most));
    const A of_sum = std::exp(a - merged), of_part = std::exp(b - merged);
    for (int64_t d = lane; d < head_dim; d += 32) {
      const int64_t i = row * head_dim + d;
      out[i] = of_sum * out[i] + of_part * static_cast<A>(part[i]);
    }
    sync_warp();  // all lanes have read lse
    if (lane == 0) lse[at] = merged;
  }
}

template <class A>
struct Fill {
  A* x;
  A value;

  template <int N>
  __device__ void run(int64_t first) const {
    Pack<A, N> values;
    for (int i = 0; i < N; ++i) values.x[i] = value;
    store(x + first, values);
  }
};

}  // namespace

void cuda::attention_merge(const Context& context, const ConstTensor& part_out, const ConstTensor& part_lse,
                           const Tensor& out, const Tensor& lse) {
  const int64_t queries = out.dim(0), heads = out.dim(1);
  if (out.empty()) return;
  dispatch_float(part_out.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    launch(context, "attention_merge", &merge_kernel<T>, stride_blocks(context, queries * heads, kElementThreads / 32),
           kElementThreads, 0, part_out.as<T>(), part_lse.as<A>(), queries, heads, out.dim(2), out.as<A>(),
           lse.as<A>());
  });
}

void cuda::attention_merge_start(const Context& context, const Tensor& out, const Tensor& lse) {
  context.cuda().stream().zero(out.data(), out.bytes());
  dispatch_float(lse.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    for_elements<kPack<A>>(context, "attention_merge_start", lse.size(), aligned(lse.as<A>()),
                           Fill<A>{lse.as<A>(), -std::numeric_limits<A>::infinity()});
  });
}

}  // namespace tessera
