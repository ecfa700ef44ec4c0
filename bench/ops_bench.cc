// The memory-bound operations beside a memcpy that moves the same bytes, in turn in the same loop, so that the ratio
// holds on a busy machine.
//
// Bytes are those that an operation must read and write once. Counters come from the fastest iteration:
//   op_GBps, memcpy_GBps, ratio (op over memcpy; 1 is the speed of memory).
// glibc's memcpy writes past the cache at this size and so moves 2 bytes per byte copied, while an operation's stores
// first read the line: one that writes as much as it reads cannot pass 2/3. Operands of 8192 tokens are larger than the
// caches, those of 64 tokens stay in the second level and show what the arithmetic costs.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tensor/context/context.h"
#include "tensor/context/random.h"
#include "tensor/context/threads.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/rope.h"

namespace tessera {
namespace {

constexpr int64_t kHidden = 2048, kVocabulary = 32768;

// Operands of one benchmark, in memory of their own.
class Operands {
 public:
  Operands(int threads, int64_t rows)
      : tokens(rows),
        tile(std::max<int64_t>(rows / 16, 4)),
        context({.threads = threads, .workspace_bytes = 1 << 24}),
        arena_("bench", Device::Cpu, int64_t{3} << 30) {}

  Tensor random(const Shape& shape, DType dtype) {
    const Tensor tensor = zeros(shape, dtype);
    fill_normal(context, tensor.rows(0, std::min<int64_t>(shape[0], 16)), RandomStream(1, "bench"), 0, 1);
    const int64_t period = std::min<int64_t>(shape[0], 16) * tensor.bytes() / shape[0];
    char* data = static_cast<char*>(tensor.data());
    for (int64_t at = period; at < tensor.bytes(); at += period) {
      std::memcpy(data + at, data, static_cast<size_t>(std::min(period, tensor.bytes() - at)));
    }
    return tensor;
  }
  Tensor zeros(const Shape& shape, DType dtype) { return arena_.take(shape, dtype); }

  const int64_t tokens;
  const int64_t tile;  // tokens whose logits are handled at once
  Context context;

 private:
  Arena arena_;
};

int64_t total(std::initializer_list<ConstTensor> tensors) {
  int64_t bytes = 0;
  for (const ConstTensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

double seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Times `run`, which moves `bytes`, and in turn a copy of half as many bytes (read and written once each).
void measure(benchmark::State& state, Operands& operands, int64_t bytes, const std::function<void()>& run) {
  const Tensor from = operands.zeros({bytes / 2}, DType::U16).reshape({bytes / 2});
  const int64_t half = bytes / 2 / 4096 * 4096;
  char* source = static_cast<char*>(from.data());
  char* target = source + half;
  std::memset(source, 1, static_cast<size_t>(2 * half));
  const auto copy = [&] {
    parallel_for(operands.context, half, 4096, [&](int64_t begin, int64_t end) {
      std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
    });
  };
  run();
  double best_run = 1e30, best_copy = 1e30;
  for (auto _ : state) {
    const double time = seconds(run);
    state.SetIterationTime(time);
    best_run = std::min(best_run, time);
    best_copy = std::min(best_copy, seconds(copy));
  }
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  state.counters["op_GBps"] = gigabytes / best_run;
  state.counters["memcpy_GBps"] = gigabytes / best_copy;
  state.counters["ratio"] = best_copy / best_run;
}

void bench_add(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor a = o.random({o.tokens, kHidden}, dtype), b = o.random({o.tokens, kHidden}, dtype);
  measure(state, o, total({a, b, a}), [&] { add(o.context, a, b, a); });
}

void bench_cast(benchmark::State& state, Operands& o, DType dtype) {
  const DType other = dtype == DType::BF16 ? DType::F32 : DType::BF16;
  const Tensor x = o.random({o.tokens, kHidden}, other), y = o.zeros({o.tokens, kHidden}, dtype);
  measure(state, o, total({x, y}), [&] { cast(o.context, x, y); });
}

void bench_rms_norm(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), y = o.zeros({o.tokens, kHidden}, dtype);
  const Tensor weight = o.random({kHidden}, dtype), rstd = o.zeros({o.tokens}, accumulation_dtype(dtype));
  measure(state, o, total({x, y}), [&] { rms_norm(o.context, x, weight, 1e-5, y, rstd); });
}

void bench_layer_norm(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), y = o.zeros({o.tokens, kHidden}, dtype);
  const Tensor weight = o.random({kHidden}, dtype), bias = o.random({kHidden}, dtype);
  const Tensor statistics = o.zeros({2, o.tokens}, accumulation_dtype(dtype));
  const Tensor mean = statistics.rows(0, 1).reshape({o.tokens}), rstd = statistics.rows(1, 2).reshape({o.tokens});
  measure(state, o, total({x, y}), [&] { layer_norm(o.context, x, weight, bias, 1e-5, y, mean, rstd); });
}

void bench_rms_norm_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), dy = o.random({o.tokens, kHidden}, dtype);
  const Tensor dx = o.random({o.tokens, kHidden}, dtype), weight = o.random({kHidden}, dtype);
  const Tensor rstd = o.random({o.tokens}, accumulation_dtype(dtype));
  const Tensor dweight = o.zeros({kHidden}, accumulation_dtype(dtype));
  measure(state, o, total({x, dy, dx, dx}),
          [&] { rms_norm_backward(o.context, dy, x, weight, rstd, dx, dx, dweight); });
}

void bench_layer_norm_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), dy = o.random({o.tokens, kHidden}, dtype);
  const Tensor dx = o.random({o.tokens, kHidden}, dtype), weight = o.random({kHidden}, dtype);
  const Tensor mean = o.random({o.tokens}, accumulation_dtype(dtype)), dweight = o.zeros({kHidden}, mean.dtype());
  const Tensor dbias = o.zeros({kHidden}, mean.dtype());
  measure(state, o, total({x, dy, dx, dx}),
          [&] { layer_norm_backward(o.context, dy, x, weight, mean, mean, dx, dx, dweight, dbias); });
}

void bench_swiglu(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor gate_up = o.random({o.tokens, kHidden, 2}, dtype), y = o.zeros({o.tokens, kHidden}, dtype);
  measure(state, o, total({gate_up, y}), [&] { swiglu(o.context, gate_up, y); });
}

void bench_swiglu_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor gate_up = o.random({o.tokens, kHidden, 2}, dtype), dy = o.random({o.tokens, kHidden}, dtype);
  const Tensor dgate_up = o.zeros({o.tokens, kHidden, 2}, dtype);
  measure(state, o, total({gate_up, dy, dgate_up}), [&] { swiglu_backward(o.context, dy, gate_up, dgate_up); });
}

void bench_gelu(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), y = o.zeros({o.tokens, kHidden}, dtype);
  measure(state, o, total({x, y}), [&] { gelu(o.context, x, y); });
}

void bench_gelu_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), dy = o.random({o.tokens, kHidden}, dtype);
  const Tensor dx = o.zeros({o.tokens, kHidden}, dtype);
  measure(state, o, total({x, dy, dx}), [&] { gelu_backward(o.context, dy, x, dx); });
}

std::vector<int32_t> scattered(int64_t count, int64_t bound) {
  std::vector<int32_t> index(static_cast<size_t>(count));
  const RandomStream stream(1, "index");
  for (int64_t i = 0; i < count; ++i) {
    index[static_cast<size_t>(i)] =
        static_cast<int32_t>(stream.below(static_cast<uint64_t>(i), static_cast<uint64_t>(bound)));
  }
  return index;
}

void bench_embedding(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor table = o.random({kVocabulary, kHidden}, dtype), y = o.zeros({o.tokens, kHidden}, dtype);
  const std::vector<int32_t> index = scattered(o.tokens, kVocabulary);
  measure(state, o, total({y, y}), [&] { embedding(o.context, index, table, 0, y); });
}

void bench_embedding_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor dtable = o.random({kVocabulary, kHidden}, accumulation_dtype(dtype));
  const Tensor dy = o.random({o.tokens, kHidden}, dtype);
  const std::vector<int32_t> index = scattered(o.tokens, kVocabulary);
  const int64_t bytes = dy.bytes() + 2 * o.tokens * kHidden * size_of(dtable.dtype());
  measure(state, o, bytes, [&] { embedding_backward(o.context, index, dy, 0, dtable); });
}

const HeadLayout kLayout = {.kv_heads = 4, .q_per_kv = 2, .head_dim = 128};

void bench_split_heads(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor qkv = o.random({o.tokens, kLayout.width()}, dtype);
  const Tensor q = o.zeros({kLayout.q_heads(), o.tokens, kLayout.head_dim}, dtype);
  const Tensor k = o.zeros({kLayout.kv_heads, o.tokens, kLayout.head_dim}, dtype), v = o.zeros(k.shape(), dtype);
  const Tensor table = o.random({o.tokens, kLayout.head_dim}, accumulation_dtype(dtype));
  measure(state, o, total({qkv, q, k, v, table}), [&] { split_heads(o.context, qkv, kLayout, table, q, k, v); });
}

void bench_split_heads_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor qkv = o.zeros({o.tokens, kLayout.width()}, dtype);
  const Tensor q = o.random({kLayout.q_heads(), o.tokens, kLayout.head_dim}, dtype);
  const Tensor k = o.random({kLayout.kv_heads, o.tokens, kLayout.head_dim}, dtype), v = o.random(k.shape(), dtype);
  const Tensor table = o.random({o.tokens, kLayout.head_dim}, accumulation_dtype(dtype));
  measure(state, o, total({qkv, q, k, v, table}),
          [&] { split_heads_backward(o.context, q, k, v, kLayout, table, qkv); });
}

// A tile of logits in the accumulation dtype; dlogits in `dtype`.
void bench_cross_entropy_sums(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor logits = o.random({o.tile, kVocabulary}, accumulation_dtype(dtype));
  const Tensor maximum = o.zeros({o.tile}, logits.dtype()), sums = o.zeros({2, o.tile}, logits.dtype());
  const std::vector<int32_t> target = scattered(o.tile, kVocabulary);
  measure(state, o, total({logits}), [&] { cross_entropy_sums(o.context, logits, target, 0, maximum, sums); });
}

void bench_cross_entropy_maximum(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor logits = o.random({o.tile, kVocabulary}, accumulation_dtype(dtype));
  const Tensor maximum = o.zeros({o.tile}, logits.dtype());
  measure(state, o, total({logits}), [&] { cross_entropy_maximum(o.context, logits, maximum); });
}

void bench_cross_entropy_backward(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor logits = o.random({o.tile, kVocabulary}, accumulation_dtype(dtype));
  const Tensor dlogits = o.zeros({o.tile, kVocabulary}, dtype);
  const Tensor maximum = o.zeros({o.tile}, logits.dtype()), sums = o.random({2, o.tile}, logits.dtype());
  const std::vector<int32_t> target = scattered(o.tile, kVocabulary);
  measure(state, o, total({logits, dlogits}),
          [&] { cross_entropy_backward(o.context, logits, target, 0, maximum, sums, 1, dlogits); });
}

void bench_adamw(benchmark::State& state, Operands& o, DType dtype) {
  const DType accumulation = accumulation_dtype(dtype);
  const Shape shape = {o.tokens, kHidden};
  const Tensor gradient = o.random(shape, accumulation), master = o.random(shape, accumulation);
  const Tensor exp_avg = o.zeros(shape, accumulation), exp_avg_sq = o.zeros(shape, accumulation);
  const Tensor compute = o.zeros(shape, dtype);
  measure(state, o, 7 * gradient.bytes() + compute.bytes(), [&] {
    adamw(o.context, {.learning_rate = 1e-4, .weight_decay = 0.1}, gradient, master, exp_avg, exp_avg_sq, compute);
  });
}

void bench_sum_of_squares(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), sum = o.zeros({1}, DType::F64);
  measure(state, o, total({x}), [&] { sum_of_squares(o.context, x, sum); });
}

void bench_all_finite(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype);
  measure(state, o, total({x}), [&] { benchmark::DoNotOptimize(all_finite(o.context, x)); });
}

void bench_add_column_sums(benchmark::State& state, Operands& o, DType dtype) {
  const Tensor x = o.random({o.tokens, kHidden}, dtype), sums = o.zeros({kHidden}, accumulation_dtype(dtype));
  measure(state, o, total({x}), [&] { add_column_sums(o.context, x, sums); });
}

struct Benchmark {
  const char* name;
  void (*run)(benchmark::State&, Operands&, DType);
};

constexpr Benchmark kBenchmarks[] = {
    {"add", bench_add},
    {"cast_to", bench_cast},
    {"rms_norm", bench_rms_norm},
    {"layer_norm", bench_layer_norm},
    {"rms_norm_backward", bench_rms_norm_backward},
    {"layer_norm_backward", bench_layer_norm_backward},
    {"swiglu", bench_swiglu},
    {"swiglu_backward", bench_swiglu_backward},
    {"gelu", bench_gelu},
    {"gelu_backward", bench_gelu_backward},
    {"embedding", bench_embedding},
    {"embedding_backward", bench_embedding_backward},
    {"split_heads", bench_split_heads},
    {"split_heads_backward", bench_split_heads_backward},
    {"cross_entropy_maximum", bench_cross_entropy_maximum},
    {"cross_entropy_sums", bench_cross_entropy_sums},
    {"cross_entropy_backward", bench_cross_entropy_backward},
    {"adamw", bench_adamw},
    {"sum_of_squares", bench_sum_of_squares},
    {"all_finite", bench_all_finite},
    {"add_column_sums", bench_add_column_sums},
};

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  for (const Benchmark& bench : kBenchmarks) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      const std::string label = std::string(bench.name) + "/" + name(dtype);
      benchmark::RegisterBenchmark(label.c_str(),
                                   [&bench, dtype](benchmark::State& state) {
                                     Operands operands(static_cast<int>(state.range(0)), state.range(1));
                                     bench.run(state, operands, dtype);
                                   })
          ->ArgNames({"threads", "tokens"})
          ->ArgsProduct({{1, usable_cores()}, {64, 8192}})
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
