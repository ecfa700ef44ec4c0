// Speeds of the operations on a GPU, each beside its floor: memory-bound ones as a fraction of what a copy on the
// device reaches, products and attention as a fraction of the data sheet's dense BF16 peak.
//
//   gpu_bench [--quick] [peak TFLOP/s, 989 by default (H100, H200)]
//
// --quick: a copy, one product and two shapes of attention, in seconds. Each line is written as soon as it is known.
//
// Bytes are those that an operation must read and write once; operands are larger than the caches. Times are the mean
// of launches in a row, the best of five such rows.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/context/random.h"
#include "tensor/context/runtime.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/attention/attention.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/gemm/gemm.h"
#include "tensor/ops/gemm/gemm_fp8.h"
#include "tensor/ops/gemm/gemm_gelu.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/rope.h"

namespace tessera {
namespace {

constexpr int64_t kTokens = 16384, kHidden = 4096, kFfn = 11008, kVocabulary = 32768, kLogitTokens = 2048;

class Bench {
 public:
  explicit Bench(double peak)
      : peak_(peak),
        context({.device = Device::Cuda, .workspace_bytes = int64_t{1} << 30}),
        arena_("bench", Device::Cuda, int64_t{12} << 30) {}

  // For the operands of what comes next: all earlier ones are given up.
  ArenaScope scope() { return ArenaScope(arena_); }
  Tensor random(const Shape& shape, DType dtype) {
    const Tensor x = arena_.take(shape, dtype);
    const Tensor flat = x.reshape({x.size()});
    int64_t done = std::min<int64_t>(x.size(), 1 << 16);
    fill_normal(context, flat.rows(0, done), RandomStream(1, "bench"), 0, 1);
    for (; done < x.size(); done *= 2) {
      const Tensor more = flat.rows(done, std::min(2 * done, x.size()));
      context.cuda().stream().copy_on_device(more.data(), flat.data(), more.bytes());
    }
    return x;
  }

  Tensor take(const Shape& shape, DType dtype) { return arena_.take(shape, dtype); }

  double seconds(const std::function<void()>& f) {
    f();
    context.synchronize();
    const double once = row(f, 1);
    const int launches = std::clamp(static_cast<int>(0.05 / once), 3, 200);
    double best = 1e300;
    for (int i = 0; i < 5; ++i) best = std::min(best, row(f, launches));
    return best;
  }

  void memory(const char* name, double bytes, const std::function<void()>& f) {
    const double rate = bytes / seconds(f);
    if (copy_rate_ == 0) copy_rate_ = rate;
    std::printf("%-38s %10.1f us %10.1f GB/s %8.2f of a copy\n", name, bytes / rate * 1e6, rate / 1e9,
                rate / copy_rate_);
  }
  void arithmetic(const std::string& name, double flops, const std::function<void()>& f) {
    const double time = seconds(f);
    std::printf("%-38s %10.1f us %10.1f TFLOP/s %7.2f of the peak\n", name.c_str(), time * 1e6, flops / time / 1e12,
                flops / time / 1e12 / peak_);
  }

 private:
  double row(const std::function<void()>& f, int launches) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < launches; ++i) f();
    context.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / launches;
  }

  double peak_, copy_rate_ = 0;

 public:
  Context context;

 private:
  Arena arena_;
};

void elements(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const double n = static_cast<double>(kTokens * kHidden);
  const Tensor x = b.random({kTokens, kHidden}, DType::BF16), y = b.random({kTokens, kHidden}, DType::BF16);
  const Tensor z = b.random({kTokens, kHidden}, DType::BF16), wide = b.random({kTokens, kHidden}, DType::F32);
  const Tensor sum = b.random({1}, DType::F64);
  const Tensor row = b.random({kHidden}, DType::BF16), sums = b.random({kHidden}, DType::F32);
  b.memory("copy", 4 * n, [&] { c.cuda().stream().copy_on_device(y.data(), x.data(), x.bytes()); });
  b.memory("add", 6 * n, [&] { add(c, x, y, z); });
  b.memory("cast F32 to BF16", 6 * n, [&] { cast(c, wide, z); });
  b.memory("add_bias", 4 * n, [&] { add_bias(c, row, z); });
  b.memory("zero", 4 * n, [&] { zero(c, wide); });
  b.memory("sum_of_squares F32", 4 * n, [&] { sum_of_squares(c, wide, sum); });
  b.memory("add_column_sums", 2 * n, [&] { add_column_sums(c, x, sums); });
  b.memory("gelu", 4 * n, [&] { gelu(c, x, z); });
  b.memory("gelu_backward", 6 * n, [&] { gelu_backward(c, x, y, z); });
}

void norms(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const double n = static_cast<double>(kTokens * kHidden);
  const Tensor x = b.random({kTokens, kHidden}, DType::BF16), dy = b.random({kTokens, kHidden}, DType::BF16);
  const Tensor y = b.random({kTokens, kHidden}, DType::BF16), w = b.random({kHidden}, DType::BF16);
  const Tensor mean = b.random({kTokens}, DType::F32), rstd = b.random({kTokens}, DType::F32);
  const Tensor dw = b.random({kHidden}, DType::F32), db = b.random({kHidden}, DType::F32);
  b.memory("rms_norm", 4 * n, [&] { rms_norm(c, x, w, 1e-5, y, rstd); });
  b.memory("rms_norm_backward, residual", 8 * n, [&] { rms_norm_backward(c, dy, x, w, rstd, dy, y, dw); });
  b.memory("layer_norm", 4 * n, [&] { layer_norm(c, x, w, w, 1e-5, y, mean, rstd); });
  b.memory("layer_norm_backward, residual", 8 * n,
           [&] { layer_norm_backward(c, dy, x, w, mean, rstd, dy, y, dw, db); });
}

void layers(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const double n = static_cast<double>(kTokens * kHidden), ffn = static_cast<double>(kTokens * kFfn);
  const Tensor gate_up = b.random({kTokens, kFfn, 2}, DType::BF16), half = b.random({kTokens, kFfn}, DType::BF16);
  b.memory("swiglu", 6 * ffn, [&] { swiglu(c, gate_up, half); });
  b.memory("swiglu_backward", 10 * ffn, [&] { swiglu_backward(c, half, gate_up, gate_up); });
  const HeadLayout layout = {.kv_heads = 8, .q_per_kv = 4, .head_dim = 128};
  const Tensor qkv = b.random({kTokens, layout.width()}, DType::BF16);
  const Tensor q = b.random({32, kTokens, 128}, DType::BF16), k = b.random({8, kTokens, 128}, DType::BF16);
  const Tensor v = b.random({8, kTokens, 128}, DType::BF16), table = b.random({kTokens, 128}, DType::F32);
  const double moved = 4.0 * static_cast<double>(qkv.size()) + static_cast<double>(table.bytes());
  b.memory("split_heads, rotated", moved, [&] { split_heads(c, qkv, layout, table, q, k, v); });
  b.memory("split_heads_backward, rotated", moved, [&] { split_heads_backward(c, q, k, v, layout, table, qkv); });
  const Tensor rows = b.random({kVocabulary, kHidden}, DType::BF16),
               drows = b.random({kVocabulary, kHidden}, DType::F32);
  const Tensor x = b.random({kTokens, kHidden}, DType::BF16);
  std::vector<int32_t> index(kTokens);
  const RandomStream stream(2, "index");
  for (int64_t t = 0; t < kTokens; ++t) index[t] = static_cast<int32_t>(stream.below(t, kVocabulary));
  b.memory("embedding", 4 * n, [&] { embedding(c, index, rows, 0, x); });
  std::vector<int32_t> distinct = index;
  std::sort(distinct.begin(), distinct.end());
  const double kept = static_cast<double>(std::unique(distinct.begin(), distinct.end()) - distinct.begin());
  b.memory("embedding_backward", 2 * n + 8 * kept * kHidden, [&] { embedding_backward(c, index, x, 0, drows); });
}

void losses(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const double n = static_cast<double>(kLogitTokens * kVocabulary);
  const Tensor logits = b.random({kLogitTokens, kVocabulary}, DType::F32);
  const Tensor dlogits = b.random({kLogitTokens, kVocabulary}, DType::BF16);
  const Tensor maximum = b.random({kLogitTokens}, DType::F32), sums = b.random({2, kLogitTokens}, DType::F32);
  const std::vector<int32_t> target(kLogitTokens, 17);
  b.memory("cross_entropy_maximum", 4 * n, [&] { cross_entropy_maximum(c, logits, maximum); });
  b.memory("cross_entropy_sums", 4 * n, [&] { cross_entropy_sums(c, logits, target, 0, maximum, sums); });
  b.memory("cross_entropy_backward", 6 * n,
           [&] { cross_entropy_backward(c, logits, target, 0, maximum, sums, 1, dlogits); });
}

void optimizer(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const int64_t n = int64_t{1} << 28;
  const Tensor g = b.random({n}, DType::F32), w = b.random({n}, DType::F32), m = b.random({n}, DType::F32);
  const Tensor v = b.random({n}, DType::F32), out = b.random({n}, DType::BF16);
  zero(c, v);
  b.memory("adamw, 268M parameters", 30.0 * static_cast<double>(n), [&] { adamw(c, {}, g, w, m, v, out); });
}

void product(Bench& b, const char* name, int64_t m, int64_t n, int64_t k, DType result, const GemmOptions& options) {
  const ArenaScope scope = b.scope();
  const auto stored = [](int64_t rows, int64_t columns, Transpose t) {
    return t == Transpose::No ? Shape{rows, columns} : Shape{columns, rows};
  };
  const Tensor x = b.random(stored(m, k, options.a), DType::BF16), y = b.random(stored(k, n, options.b), DType::BF16);
  const Tensor z = b.random({m, n}, result);
  b.arithmetic(fmt::format("{} {}x{}x{}", name, m, n, k), static_cast<double>(gemm_flops(m, n, k)),
               [&] { gemm(b.context, x, y, z, options); });
}

// The halves of an MLP with GELU, at GPT-2 1.5B's width: the product with the activation behind it where that may be one
// kernel, and one after the other.
void products_gelu(Bench& b) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  static constexpr int64_t kWidth = 1600;
  const auto flops = static_cast<double>(gemm_flops(kTokens, 4 * kWidth, kWidth));
  const Tensor h = b.random({kTokens, kWidth}, DType::BF16), w = b.random({4 * kWidth, kWidth}, DType::BF16);
  const Tensor bias = b.random({4 * kWidth}, DType::BF16), x = b.random({kTokens, 4 * kWidth}, DType::BF16);
  const Tensor y = b.random(x.shape(), DType::BF16);
  const GemmOptions forward{.b = Transpose::Yes};
  const auto name = [](const char* what) { return fmt::format("{} {}x{}x{}", what, kTokens, 4 * kWidth, kWidth); };
  b.arithmetic(name("gelu(x W^T + b)"), flops, [&] { gemm_gelu(c, h, w, x, y, forward, bias); });
  b.arithmetic(name("x W^T + b, then gelu"), flops, [&] {
    gemm(c, h, w, x, forward, bias);
    gelu(c, x, y);
  });
  b.arithmetic(name("dy W gelu'(x)"), flops, [&] { gemm_gelu_backward(c, h, w, x, y, forward); });
  b.arithmetic(name("dy W, then gelu'(x)"), flops, [&] {
    gemm(c, h, w, y, forward);
    gelu_backward(c, y, x, y);
  });
}

// A linear layer's products in 8 bits without what they are quantised from, and quantising by itself.
void products_fp8(Bench& b) {
  if (!b.context.cuda().device().has_fp8_units()) return;
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  static constexpr int64_t kOut = 2 * kFfn;
  const double n = static_cast<double>(kTokens * kHidden);
  const Tensor x = b.random({kTokens, kHidden}, DType::BF16), dy = b.random({kTokens, kOut}, DType::BF16);
  const Tensor w = b.random({kOut, kHidden}, DType::BF16), dw = b.random({kOut, kHidden}, DType::F32);
  const auto pair = [&](const ConstTensor& from, DType format) {
    const Tensor scale = b.take({1}, DType::F32), values = b.take(from.shape(), format);
    const Tensor transposed = b.take({from.dim(1), from.dim(0)}, format);
    quantise(c, from, values, transposed, scale);
    return std::pair{Quantised{values, scale}, Quantised{transposed, scale}};
  };
  const auto [x8, xt8] = pair(x, DType::E4M3);
  const auto [w8, wt8] = pair(w, DType::E4M3);
  const auto [dy8, dyt8] = pair(dy, DType::E5M2);
  const Tensor values = b.take({kTokens, kHidden}, DType::E4M3), transposed = b.take({kHidden, kTokens}, DType::E4M3);
  const Tensor scale = b.take({1}, DType::F32);
  b.memory("quantise", 5 * n, [&] { quantise(c, x, values, {}, scale); });
  b.memory("quantise, transposed", 5 * n, [&] { quantise(c, x, {}, transposed, scale); });
  const auto flops = static_cast<double>(gemm_flops(kTokens, kOut, kHidden));
  const auto name = [](const char* what) { return fmt::format("{} FP8 {}x{}x{}", what, kTokens, kOut, kHidden); };
  b.arithmetic(name("y = x W^T"), flops, [&, &x8 = x8, &w8 = w8] { gemm_fp8(c, x8, w8, dy, Write::Overwrite); });
  b.arithmetic(name("dx = dy W"), flops, [&, &dy8 = dy8, &wt8 = wt8] { gemm_fp8(c, dy8, wt8, x, Write::Overwrite); });
  b.arithmetic(name("dW += dy^T x"), flops,
               [&, &dyt8 = dyt8, &xt8 = xt8] { gemm_fp8(c, dyt8, xt8, dw, Write::Accumulate); });
}

void attend(Bench& b, int64_t tokens, int64_t head_dim, int64_t documents = 1) {
  const ArenaScope scope = b.scope();
  Context& c = b.context;
  const int64_t heads = 2048 / head_dim;
  std::vector<int32_t> position(tokens), document(tokens);
  const int64_t length = tokens / documents;
  for (int64_t i = 0; i < tokens; ++i) {
    position[i] = static_cast<int32_t>(i % length);
    document[i] = static_cast<int32_t>(i / length);
  }
  const TokenPlaces places = {position, document};
  const AttentionTileCapacity capacity = attention_tile_capacity(tokens, tokens);
  std::vector<int32_t> offset(capacity.offsets), key_tile(capacity.pairs);
  std::vector<uint8_t> full(capacity.pairs);
  AttentionProblem problem = {.scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                              .queries = places,
                              .keys = places,
                              .tiles = make_attention_tiles(places, places, 0, offset, key_tile, full)};
  const Buffer lists(Device::Cuda, attention_list_words(Device::Cuda, tokens, tokens) * size_of(DType::I32));
  send_attention_lists(c, problem,
                       Tensor(lists.data(), {lists.bytes() / size_of(DType::I32)}, DType::I32, Device::Cuda));
  const Tensor q = b.random({heads, tokens, head_dim}, DType::BF16), k = b.random(q.shape(), DType::BF16);
  const Tensor v = b.random(q.shape(), DType::BF16), out = b.random({tokens, heads, head_dim}, DType::BF16);
  const Tensor dout = b.random(out.shape(), DType::BF16), lse = b.random({heads, tokens}, DType::F32);
  const Tensor dq = b.random(q.shape(), DType::BF16), dk = b.random(q.shape(), DType::BF16);
  const Tensor dv = b.random(q.shape(), DType::BF16);
  const double pairs = static_cast<double>(attention_pairs(places, 0) * heads * head_dim);
  const std::string what = fmt::format("{} x {} x {}", documents, length, head_dim);
  b.arithmetic("attention " + what, 4 * pairs, [&] { attention(c, problem, q, k, v, out, lse); });
  b.arithmetic("attention and backward " + what, 14 * pairs, [&] {
    attention(c, problem, q, k, v, out, lse);
    attention_backward(c, problem, q, k, v, out, lse, dout, dq, dk, dv);
  });
}

void copy(Bench& b) {
  const ArenaScope scope = b.scope();
  const Tensor x = b.random({kTokens, kHidden}, DType::BF16), y = b.random({kTokens, kHidden}, DType::BF16);
  b.memory("copy", 2 * static_cast<double>(x.bytes()),
           [&] { b.context.cuda().stream().copy_on_device(y.data(), x.data(), x.bytes()); });
}

// GPT-2 1.5B's products of a microbatch of 8,192 tokens, and those of heads with tiles of few and of many tokens.
void products_of_models(Bench& b) {
  constexpr Transpose kYes = Transpose::Yes;
  for (const int64_t out : {1600, 4800, 6400}) product(b, "y = x W^T", 8192, out, 1600, DType::BF16, {.b = kYes});
  for (const int64_t tokens : {128, 2048}) {
    for (const int64_t vocabulary : {50257, 50304}) {
      product(b, "logits = x W^T", tokens, vocabulary, 1600, DType::F32, {.b = kYes});
    }
    product(b, "logits = x W^T", tokens, 128256, 3072, DType::F32, {.b = kYes});
  }
}

enum class Amount : uint8_t { Everything, Quick };

void run(double peak, Amount amount) {
  Bench b(peak);
  std::printf("%s, peak %.0f TFLOP/s\n", b.context.cuda().device().name.c_str(), peak);
  if (amount == Amount::Quick) {
    copy(b);
    product(b, "y = x W^T", kTokens, kHidden, kHidden, DType::BF16, {.b = Transpose::Yes});
    attend(b, 1024, 64);
    attend(b, 4096, 128);
    return;
  }
  elements(b);
  norms(b);
  layers(b);
  losses(b);
  optimizer(b);
  constexpr Transpose kYes = Transpose::Yes;
  product(b, "y = x W^T", kTokens, kHidden, kHidden, DType::BF16, {.b = kYes});
  product(b, "y = x W^T", kTokens, 2 * kFfn, kHidden, DType::BF16, {.b = kYes});
  product(b, "dx = dy W", kTokens, kHidden, 2 * kFfn, DType::BF16, {});
  product(b, "dW += dy^T x", 2 * kFfn, kHidden, kTokens, DType::F32, {.a = kYes, .c = Write::Accumulate});
  products_gelu(b);
  products_fp8(b);
  for (const int64_t head_dim : {64, 96, 128, 256}) attend(b, 16384, head_dim);
  attend(b, 4096, 128);
  attend(b, 8192, 64, 8);
  products_of_models(b);  // last: the library may have no product for a vocabulary of odd size, which ends the program
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was measured before a cut is in the file
  tessera::Amount amount = tessera::Amount::Everything;
  double peak = 989;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--quick") {
      amount = tessera::Amount::Quick;
    } else {
      peak = std::atof(argv[i]);
    }
  }
  try {
    tessera::run(peak, amount);
    return 0;
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
