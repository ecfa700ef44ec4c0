// Speed of the gated delta rule on one thread against the matrix library's peak in the same process: GFLOP/s by the
// header's count, in which a product with a triangle is half a product, as a fraction of sgemm's, and nanoseconds a token
// and head.
//
//   delta_rule_bench [tokens per document]
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tensor/context/random.h"
#include "tensor/ops/delta_rule/delta_rule.h"

namespace tessera {
namespace {

constexpr int64_t kTokens = 4096, kHeads = 8;

// Fewest seconds of several runs, after one to warm up.
template <class F>
double seconds(F&& f) {
  f();
  double best = 1e300;
  double total = 0;
  for (int run = 0; run < 50 && (run < 3 || total < 1.0); ++run) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, time);
    total += time;
  }
  return best;
}

double sgemm_flops_per_second() {
  const int64_t n = 1024;
  std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f), c(n * n);
  const double time =
      seconds([&] { dnnl_sgemm('N', 'N', n, n, n, 1.0f, a.data(), n, b.data(), n, 0.0f, c.data(), n); });
  return 2.0 * n * n * n / time;
}

void measure(DType dtype, int64_t chunk, int64_t dim, int64_t document) {
  const DeltaRuleSizes sizes = {.tokens = kTokens,
                                .key_heads = kHeads,
                                .value_heads = kHeads,
                                .key_dim = dim,
                                .value_dim = dim,
                                .chunk = chunk,
                                .compute = dtype};
  std::vector<int32_t> begin;
  for (int64_t t = 0; t < kTokens; t += document) begin.push_back(static_cast<int32_t>(t));
  begin.push_back(static_cast<int32_t>(kTokens));
  const DeltaRuleProblem problem = {
      .scale = 1 / std::sqrt(static_cast<double>(dim)), .chunk = chunk, .segments = {.begin = begin}};
  Context context({.threads = 1});
  context.resize_workspace(delta_rule_workspace(context.target(), sizes));
  const Shape rows = {kHeads, kTokens, dim}, gates = {kHeads, kTokens}, out_shape = {kTokens, kHeads, dim};
  const Shape state_shape = {kHeads, kTokens / chunk, dim, dim};
  Arena arena(
      "operands", Device::Cpu,
      8 * Arena::bytes(rows, DType::F32) + 4 * Arena::bytes(gates, DType::F32) + Arena::bytes(state_shape, DType::F32));
  const auto operand = [&](const Shape& shape, const char* purpose, DType type, double mean, double deviation) {
    const Tensor x = arena.take(shape, type);
    fill_normal(context, x, RandomStream(1, purpose), mean, deviation);
    return x;
  };
  const double unit = 1 / std::sqrt(static_cast<double>(dim));  // rows of length about one
  const DeltaRuleInput input = {.q = operand(rows, "q", dtype, 0, unit),
                                .k = operand(rows, "k", dtype, 0, unit),
                                .v = operand(rows, "v", dtype, 0, 1),
                                .log_decay = operand(gates, "decay", DType::F32, -0.1, 0.01),
                                .beta = operand(gates, "beta", DType::F32, 0.5, 0.1)};
  const Tensor out = arena.take(out_shape, dtype), dout = operand(out_shape, "dout", dtype, 0, 1);
  const Tensor states = arena.take(state_shape, DType::F32);
  const DeltaRuleGradients gradients = {.dq = arena.take(rows, dtype),
                                        .dk = arena.take(rows, dtype),
                                        .dv = arena.take(rows, dtype),
                                        .dlog_decay = arena.take(gates, DType::F32),
                                        .dbeta = arena.take(gates, DType::F32)};
  // The peak is measured beside each, because other programs may share the machine.
  const double peak = sgemm_flops_per_second();
  const double forward = seconds([&] { delta_rule(context, problem, input, out, states, {}); });
  const double backward = seconds([&] { delta_rule_backward(context, problem, input, states, dout, {}, gradients); });
  const double forward_rate = static_cast<double>(delta_rule_forward_flops(sizes)) / forward;
  const double backward_rate = static_cast<double>(delta_rule_backward_flops(sizes)) / backward;
  const double nanoseconds = (forward + backward) * 1e9 / static_cast<double>(kTokens * kHeads);
  std::printf("%-5s %6ld %9ld %5ld %8.1f %9.1f %6.1f%% %9.1f %6.1f%% %12.0f\n", name(dtype), chunk, document, dim,
              peak * 1e-9, forward_rate * 1e-9, 100 * forward_rate / peak, backward_rate * 1e-9,
              100 * backward_rate / peak, nanoseconds);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using tessera::DType;
  const int64_t document = argc > 1 ? std::atoll(argv[1]) : 1024;
  std::printf("dtype  chunk  document   dim    sgemm   forward     of     backward     of  ns/token/head\n");
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const int64_t dim : {64, 128}) {
      for (const int64_t chunk : {32, 64}) tessera::measure(dtype, chunk, dim, document);
    }
  }
  return 0;
}
