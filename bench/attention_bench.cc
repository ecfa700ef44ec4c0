// Speed of attention on one thread against the matrix library's peak in the same process: GFLOP/s over the pairs of
// tokens in the tiles that are visited, as a fraction of sgemm's, and the share of those pairs that are visible.
//
//   attention_bench [tokens per document]
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tensor/context/random.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

constexpr int64_t kHeads = 12;

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

void measure(DType dtype, int64_t tokens, int64_t head_dim, int64_t document) {
  std::vector<int32_t> position(tokens), documents(tokens);
  for (int64_t i = 0; i < tokens; ++i) {
    position[i] = static_cast<int32_t>(i % document);
    documents[i] = static_cast<int32_t>(i / document);
  }
  const TokenPlaces places = {position, documents};
  const AttentionTileCapacity capacity = attention_tile_capacity(tokens, tokens);
  std::vector<int32_t> offset(capacity.offsets), key_tile(capacity.pairs);
  std::vector<uint8_t> full(capacity.pairs);
  const AttentionProblem problem = {.scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                                    .queries = places,
                                    .keys = places,
                                    .tiles = make_attention_tiles(places, places, 0, offset, key_tile, full)};

  Context context({.threads = 1});
  context.resize_workspace(attention_workspace(context.target(), tokens, tokens, kHeads, kHeads, head_dim, dtype));
  const Shape shape = {kHeads, tokens, head_dim};
  const Shape out_shape = {tokens, kHeads, head_dim};
  Arena arena("operands", Device::Cpu, 9 * Arena::bytes(shape, DType::F32));
  const auto operand = [&](const Shape& s, const char* purpose) {
    const Tensor x = arena.take(s, dtype);
    fill_normal(context, x, RandomStream(1, purpose), 0, 1.0);
    return x;
  };
  const Tensor q = operand(shape, "q"), k = operand(shape, "k"), v = operand(shape, "v");
  const Tensor dout = operand(out_shape, "dout"), out = arena.take(out_shape, dtype);
  const Tensor dq = arena.take(shape, dtype), dk = arena.take(shape, dtype), dv = arena.take(shape, dtype);
  const Tensor lse = arena.take({kHeads, tokens}, DType::F32);

  const int64_t pairs = static_cast<int64_t>(problem.tiles.key_tile.size()) * kAttentionTile * kAttentionTile;
  const double share = static_cast<double>(attention_pairs(places, 0)) / static_cast<double>(pairs);
  // The peak is measured beside each, because other programs may share the machine.
  const double peak = sgemm_flops_per_second();
  const double forward = kHeads * static_cast<double>(attention_forward_flops(pairs, head_dim)) /
                         seconds([&] { attention(context, problem, q, k, v, out, lse); });
  const double backward = kHeads * static_cast<double>(attention_backward_flops(pairs, head_dim)) /
                          seconds([&] { attention_backward(context, problem, q, k, v, out, lse, dout, dq, dk, dv); });
  std::printf("%-5s %7ld %9ld %9ld %9.3f %8.1f %9.1f %6.1f%% %9.1f %6.1f%%\n", name(dtype), tokens, document, head_dim,
              share, peak * 1e-9, forward * 1e-9, 100 * forward / peak, backward * 1e-9, 100 * backward / peak);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using tessera::DType;
  const int64_t document = argc > 1 ? std::atoll(argv[1]) : 1024;
  std::printf("dtype  tokens  document  head_dim   visible    sgemm   forward     of     backward     of\n");
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const int64_t head_dim : {64, 128}) {
      for (const int64_t tokens : {1024, 4096, 16384}) tessera::measure(dtype, tokens, head_dim, document);
    }
  }
  return 0;
}
