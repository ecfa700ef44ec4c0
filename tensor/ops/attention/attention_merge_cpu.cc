#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/context/threads.h"
#include "tensor/ops/attention/attention_merge_kernels.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 4096;  // elements; fewer are not worth another thread

}  // namespace

void cpu::attention_merge(const Context& context, const ConstTensor& part_out, const ConstTensor& part_lse,
                          const Tensor& out, const Tensor& lse) {
  const int64_t queries = out.dim(0), heads = out.dim(1), head_dim = out.dim(2);
  dispatch_float(part_out.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* part = part_out.as<T>();
    const A* part_log = part_lse.as<A>();
    A* sum = out.as<A>();
    A* log = lse.as<A>();
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(head_dim, 1));
    parallel_for(context, queries * heads, grain, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row % heads * queries + row / heads;
        const A a = log[at], b = part_log[at];
        if (b == -std::numeric_limits<A>::infinity()) continue;
        const A most = std::max(a, b), merged = most + std::log(std::exp(a - most) + std::exp(b - most));
        const A of_sum = std::exp(a - merged), of_part = std::exp(b - merged);
        log[at] = merged;
#pragma omp simd
        for (int64_t d = row * head_dim; d < (row + 1) * head_dim; ++d) {
          sum[d] = of_sum * sum[d] + of_part * static_cast<A>(part[d]);
        }
      }
    });
  });
}

void cpu::attention_merge_start(const Context& context, const Tensor& out, const Tensor& lse) {
  dispatch_float(out.dtype(), [&]<class A>(A) {
    const auto fill = [&](const Tensor& x, Acc<A> value) {
      Acc<A>* data = x.as<Acc<A>>();
      parallel_for(context, x.size(), kGrain,
                   [=](int64_t begin, int64_t end) { std::fill(data + begin, data + end, value); });
    };
    fill(out, 0);
    fill(lse, -std::numeric_limits<Acc<A>>::infinity());
  });
}

}  // namespace tessera
