#include "launch/measure/gemm_peak.h"

#include <algorithm>
#include <chrono>

#include "tensor/context/copy.h"
#include "tensor/context/random.h"
#include "tensor/ops/gemm/gemm.h"

namespace tessera {

double measure_gemm(Context& context, DType compute, int64_t size) {
  Arena arena("gemm peak", context.device(), 3 * Arena::bytes({size, size}, compute));
  const Tensor a = arena.take({size, size}, compute), b = arena.take({size, size}, compute);
  const Tensor c = arena.take({size, size}, compute);
  // Not zeros, which run faster than real numbers on some processors; and a cheap generator, as this is no proof.
  for (const Tensor& x : {a, b}) fill_normal(context, x.rows(0, 64), RandomStream(1, "gemm peak"), 0, 1.0);
  for (const Tensor& x : {a, b}) {
    for (int64_t row = 64; row < size; row += 64) copy(context, x.rows(0, 64), x.rows(row, row + 64));
  }
  gemm(context, a, b, c, {});
  context.synchronize();
  double best = 0;
  const int runs = static_cast<int>(std::clamp<int64_t>(8 * 1024 * 1024 / (size * size), 1, 8));
  for (int run = 0; run < runs + 1; ++run) {
    const auto start = std::chrono::steady_clock::now();
    gemm(context, a, b, c, {});
    context.synchronize();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(gemm_flops(size, size, size)) / seconds.count());
  }
  return best;
}

double measure_gemm_peak(Context& context, DType compute, double longest_seconds) {
  double best = 0;
  for (const int64_t size : {1024, 2048, 4096}) {
    if (best > 0 && static_cast<double>(gemm_flops(size, size, size)) / best > longest_seconds) break;
    best = std::max(best, measure_gemm(context, compute, size));
  }
  return best;
}

}  // namespace tessera
