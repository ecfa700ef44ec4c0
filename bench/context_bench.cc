// Attention over context-parallel ranks on packed documents (log-normal lengths, median 1,024, sigma 1.2): seconds of
// the busiest rank over the mean, as planned (visible pairs) and as measured (processor time of each rank's one thread,
// so that waiting for others does not count), the time of a layer forward and backward, and bytes sent, by exchange.
//
//   context_bench [ranks] [tokens] [packings]
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

#include "model/attention/context_attention.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/context/random.h"
#include "tests/parallel/context/packings.h"

namespace tessera {
namespace {

constexpr double kMedian = 1024, kSigma = 1.2, kSlack = 0.02;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Over packings.
struct Measured {
  double sum = 0, worst = 0;
  void add(double ratio) {
    sum += ratio;
    worst = std::max(worst, ratio);
  }
};

void measure(int ranks, int64_t tokens, int packings, const char* text) {
  const ContextExchange exchange = context_exchange_plan(text, 1).front();
  run_ranks(ranks, [&](Comm& world) {
    ModelShape shape;
    shape.layers = {{.attention = {.exchange = exchange, .rope_theta = 0}}};
    shape.heads = 8;
    shape.kv_heads = 8;
    shape.head_dim = 64;
    shape.compute = DType::F32;
    shape.cp = ranks;
    shape.cp_rank = world.rank();
    shape.slots = context_slots(tokens, ranks, 1, kSlack);
    const ContextAttention layer(shape, shape.layers[0].attention);
    Context context({.threads = 1});
    context.resize_workspace(layer.workspace(context.target()));
    Arena tally = Arena::tally();
    const auto take = [&](Arena& arena) {
      AttentionPlans plan(shape, {&shape.layers[0].attention, 1}, arena, arena);
      const Shape by_head{shape.heads, shape.slots, shape.head_dim}, by_token{shape.slots, shape.heads, shape.head_dim};
      std::vector<Tensor> x;
      for (int i = 0; i < 6; ++i) x.push_back(arena.take(by_head, shape.compute));
      for (int i = 0; i < 2; ++i) x.push_back(arena.take(by_token, shape.compute));
      x.push_back(arena.take({shape.heads, shape.slots}, shape.accumulation()));
      return std::pair{std::move(plan), std::move(x)};
    };
    take(tally);
    Arena arena("operands", Device::Cpu, tally.used());
    auto [plan, x] = take(arena);
    for (size_t i : {0, 1, 2, 7}) fill_normal(context, x[i], RandomStream(i, "bench"), 0, 1.0);
    ContextGroup group(world, 2 * (shape.heads + 2 * shape.kv_heads));
    const LayerRun run{context, world, &group};

    ContextPlan deal({.ranks = ranks, .tokens = tokens, .slots = shape.slots});
    std::mt19937_64 random(1);
    std::vector<int32_t> position(shape.slots), document(shape.slots);
    Measured planned, measured;
    double wall = 0;
    const int64_t bytes = world.traffic().total_bytes();
    for (int i = -1; i < packings; ++i) {  // the first warms up
      deal.make(testing::log_normal_packing(random, tokens, kMedian, kSigma));
      const ContextUnits own{.units = ranks, .unit = world.rank(), .ranks = 1, .slots = shape.slots};
      unit_places(own, deal.pieces(), position, document);
      plan.make(context, {position, position, position, document, {}, ranks > 1 ? &deal : nullptr});
      world.barrier();
      const auto start = std::chrono::steady_clock::now();
      const double before = thread_seconds();
      layer.forward(run, plan, {x[0], x[1], x[2]}, x[6], x[8]);
      layer.backward(run, plan, {x[0], x[1], x[2]}, x[6], x[8], x[7], {x[3], x[4], x[5]});
      const double seconds = thread_seconds() - before;
      const double took = world.max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      const double busiest = world.max(seconds), mean = world.sum(seconds) / ranks;
      if (i < 0) continue;
      measured.add(busiest / mean);
      planned.add(deal.imbalance());
      wall += took;
    }
    const double sent = static_cast<double>(world.traffic().total_bytes() - bytes);
    if (world.rank() != 0) return;
    const auto count = static_cast<double>(packings);
    fmt::print("{:<16}{:>10.3f}{:>8.3f}{:>12.3f}{:>8.3f}{:>12.4f}{:>12.2f}\n", text, planned.sum / count, planned.worst,
               measured.sum / count, measured.worst, wall / count, sent / (count + 1) * 1e-6);
    std::fflush(stdout);
  });
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2, packings = argc > 3 ? std::atoi(argv[3]) : 10;
  const int64_t tokens = argc > 2 ? std::atoll(argv[2]) : 16384;
  fmt::print("{} ranks of one thread, {} tokens, {} packings; 8 heads of 64, F32, one layer forward and backward\n",
             ranks, tokens, packings);
  fmt::print("{:<16}{:>10}{:>8}{:>12}{:>8}{:>12}{:>12}\n", "exchange", "planned", "worst", "measured", "worst",
             "seconds", "MB sent");
  tessera::measure(1, tokens, packings, "gather");
  for (const char* exchange : {"gather", "ring", "ulysses"}) tessera::measure(ranks, tokens, packings, exchange);
  if (ranks % 2 == 0 && ranks > 2) tessera::measure(ranks, tokens, packings, "ulysses-ring:2");
  return 0;
}
