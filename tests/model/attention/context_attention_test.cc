// Attention over context-parallel ranks against the kernel on one rank that has all tokens, in F64: outputs and
// gradients of every token, by every exchange.
#include "model/attention/context_attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "parallel/comm/comm_threads.h"
#include "parallel/context/plan.h"
#include "tensor/context/random.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kTokens = 256, kHeadDim = 8;

struct Packing {
  std::string name;
  std::vector<int> lengths;  // of documents; the rest is padding
};
std::vector<Packing> packings() {
  return {{"apart", {90, 1, 40, 1, 1, 64, 25, 34}},
          {"joined", {kTokens}},
          {"single tokens", std::vector<int>(kTokens, 1)},
          {"padded tail", {100, 30}},
          {"empty", {}}};
}

struct Heads {
  int64_t q, kv;
};

struct Problem {
  Packing packing;
  Heads heads;
  int64_t window = 0;
  DType compute = DType::F64;
};

// Elements of a tensor of all tokens: a function of head, token and column.
void fill(const Tensor& x, const char* what, int64_t head, int64_t row, int64_t token) {
  const RandomStream random(5, what);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for (int64_t d = 0; d < kHeadDim; ++d) {
      x.as<T>()[row * kHeadDim + d] =
          round_to<T>(random.normal(static_cast<uint64_t>((head * kTokens + token) * kHeadDim + d)));
    }
  });
}

// What attention computed, by token: heads and columns of out, dq, dk and dv.
struct Result {
  std::vector<double> out, dq, dk, dv;
  explicit Result(const Heads& heads)
      : out(kTokens * heads.q * kHeadDim), dq(out.size()), dk(kTokens * heads.kv * kHeadDim), dv(dk.size()) {}
};

ModelShape shape_of(const Problem& problem, int cp, int rank, const ContextExchange& exchange) {
  ModelShape shape;
  shape.layers = {{.attention = {.window = problem.window, .exchange = exchange, .rope_theta = 0}}};
  shape.heads = problem.heads.q;
  shape.kv_heads = problem.heads.kv;
  shape.head_dim = kHeadDim;
  shape.compute = problem.compute;
  shape.cp = cp;
  shape.cp_rank = rank;
  shape.slots = context_slots(kTokens, cp, 1, 0.02);
  return shape;
}

std::vector<Segment> segments_of(const Packing& packing) {
  std::vector<Segment> segments;
  int32_t at = 0;
  for (const int length : packing.lengths) {
    segments.push_back({at, at + length, static_cast<int32_t>(segments.size()), 0});
    at += length;
  }
  return segments;
}

// Bytes that this rank sends, counted token by token: the formulas of docs/PARALLEL.md.
ContextTraffic counted(const Problem& problem, const ModelShape& shape, const ContextExchange& exchange,
                       std::span<const ContextPiece> pieces) {
  const int inner = exchange.trading == ContextExchange::kAll ? shape.cp : exchange.trading, units = shape.cp / inner;
  const int own = shape.cp_rank / inner;
  const int64_t q_heads = shape.heads / inner, kv_heads = std::max<int64_t>(1, shape.kv_heads / inner);
  const int64_t element = size_of(problem.compute), sum = size_of(accumulation_dtype(problem.compute));
  // seen[h]: of keys of unit `origin`, those that some unit at distance h sees; reached[h]: at h or farther.
  const auto rows_at = [&](int origin, int from, int to) {
    int64_t rows = 0;
    for (const ContextPiece& piece : pieces) {
      if (piece.rank / inner != origin) continue;
      for (int32_t key = piece.position; key < piece.position + piece.length; ++key) {
        rows += std::any_of(pieces.begin(), pieces.end(), [&](const ContextPiece& other) {
          const int distance = (other.rank / inner - origin + units) % units;
          if (other.document != piece.document || distance < from || distance > to) return false;
          const int32_t query = std::max(key, other.position);  // the nearest
          return query < other.position + other.length && (problem.window == 0 || query - key < problem.window);
        });
      }
    }
    return rows;
  };
  const int64_t head = (inner - 1) * shape.slots * kHeadDim * element;
  ContextTraffic sent{.forward = head * (2 * q_heads + 2 * kv_heads), .backward = head * (4 * q_heads + 4 * kv_heads)};
  const int64_t row = 2 * kv_heads * kHeadDim;
  for (int distance = 1; distance < units; ++distance) {
    if (exchange.outer == ContextExchange::Outer::Gather) {
      const int64_t to = rows_at(own, distance, distance),
                    from = rows_at((own + distance) % units, units - distance, units - distance);
      sent += {.forward = to * row * element, .backward = (to + from) * row * element};
    } else {
      // The rows that make this hop start at this unit or came here from one before.
      const int64_t on = rows_at((own + units - distance + 1) % units, distance, units - 1);
      const int64_t come = rows_at((own + units - distance) % units, distance, units - 1);
      sent += {.forward = on * row * element, .backward = on * row * element + come * row * sum};
    }
  }
  return sent;
}

// Runs forward and backward on this rank and puts its tokens into the result.
void attend(Comm& comm, const Problem& problem, const ContextExchange& exchange, int threads, Result& result) {
  const ModelShape shape = shape_of(problem, comm.size(), comm.rank(), exchange);
  ContextPlan plan({.ranks = shape.cp, .tokens = kTokens, .slots = shape.slots});
  plan.make(segments_of(problem.packing));
  std::vector<int32_t> tokens(shape.slots, 0), targets(shape.slots, -1), position(shape.slots, 0),
      document(shape.slots, -1), source(shape.slots, -1);
  for (const ContextPiece& piece : plan.pieces(comm.rank())) {
    for (int32_t i = 0; i < piece.length; ++i) {
      position[piece.slot + i] = piece.position + i;
      document[piece.slot + i] = piece.document;
      source[piece.slot + i] = piece.source + i;
    }
  }
  const Batch batch{tokens, targets, position, document, {}, shape.cp > 1 ? &plan : nullptr};

  const ContextAttention layer(shape, shape.layers[0].attention);
  Context context({.threads = threads});
  context.resize_workspace(layer.workspace(context.target()));
  Arena arena("test", Device::Cpu, 1 << 24);
  AttentionPlans microbatch(shape, {&shape.layers[0].attention, 1}, arena, arena);
  microbatch.make(context, batch);
  ContextGroup group(comm, 2 * (shape.heads + 2 * shape.kv_heads));
  const LayerRun run{context, comm, &group};

  const auto by_head = [&](int64_t heads, const char* what) {
    const Tensor x = arena.take({heads, shape.slots, kHeadDim}, shape.compute);
    for (int64_t h = 0; h < heads; ++h) {
      // Padding holds numbers too; they must not matter.
      for (int64_t i = 0; i < shape.slots; ++i) fill(x, what, h, h * shape.slots + i, std::max(source[i], 0));
    }
    return x;
  };
  const Shape out_shape{shape.slots, shape.heads, kHeadDim};
  const AttentionInputs in{by_head(shape.heads, "q"), by_head(shape.kv_heads, "k"), by_head(shape.kv_heads, "v")};
  const Tensor dout = arena.take(out_shape, shape.compute), out = arena.take(out_shape, shape.compute);
  for (int64_t i = 0; i < shape.slots; ++i) {
    for (int64_t h = 0; h < shape.heads; ++h) fill(dout, "dout", h, i * shape.heads + h, std::max(source[i], 0));
  }
  const Tensor lse = arena.take({shape.heads, shape.slots}, shape.accumulation());
  const AttentionGradients gradients{by_head(shape.heads, "x"), by_head(shape.kv_heads, "x"),
                                     by_head(shape.kv_heads, "x")};
  const auto bytes = [&] { return comm.traffic().total_bytes(); };
  const int64_t before = bytes();
  layer.forward(run, microbatch, in, out, lse);
  const int64_t forward = bytes();
  layer.backward(run, microbatch, in, out, lse, dout, gradients);
  const ContextTraffic said = layer.sent(microbatch), exact = counted(problem, shape, exchange, plan.pieces());
  EXPECT_EQ(forward - before, exact.forward);
  EXPECT_EQ(bytes() - forward, exact.backward);
  EXPECT_EQ(said.forward, exact.forward);
  EXPECT_EQ(said.backward, exact.backward);
  EXPECT_LE(exact.forward, layer.most_sent().forward);
  EXPECT_LE(exact.backward, layer.most_sent().backward);
  EXPECT_LE(context.workspace().high_water(), layer.workspace(context.target()));

  const auto collect = [&](const Tensor& x, int64_t heads, bool token_major, std::vector<double>& to) {
    dispatch_float(x.dtype(), [&]<class T>(T) {
      for (int64_t i = 0; i < shape.slots; ++i) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t d = 0; d < kHeadDim; ++d) {
            const double value =
                static_cast<double>(x.as<T>()[(token_major ? i * heads + h : h * shape.slots + i) * kHeadDim + d]);
            if (source[i] >= 0)
              to[(source[i] * heads + h) * kHeadDim + d] = value;
            else
              EXPECT_EQ(value, 0);  // padding sees nothing and is seen by nothing
          }
        }
      }
    });
  };
  collect(out, shape.heads, true, result.out);
  collect(gradients.q, shape.heads, false, result.dq);
  collect(gradients.k, shape.kv_heads, false, result.dk);
  collect(gradients.v, shape.kv_heads, false, result.dv);
}

// The largest difference over the largest magnitude.
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0, scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= most)) most = std::abs(a[i] - b[i]);  // a NaN too
    scale = std::max(scale, std::abs(b[i]));
  }
  return scale == 0 ? most : most / scale;
}

void expect_one_rank(const Problem& problem, int cp, const ContextExchange& exchange, double bound, int threads = 1) {
  SCOPED_TRACE(fmt::format("{} {} cp {} heads {}/{} window {} {} threads {}", problem.packing.name,
                           name(problem.compute), cp, problem.heads.q, problem.heads.kv, problem.window, name(exchange),
                           threads));
  Result one(problem.heads), all(problem.heads);
  tessera::run_ranks(1, [&](Comm& comm) { attend(comm, problem, {}, 1, one); });
  tessera::run_ranks(cp, [&](Comm& comm) { attend(comm, problem, exchange, threads, all); });
  EXPECT_LE(difference(all.out, one.out), bound);
  EXPECT_LE(difference(all.dq, one.dq), bound);
  EXPECT_LE(difference(all.dk, one.dk), bound);
  EXPECT_LE(difference(all.dv, one.dv), bound);
}

// Those that `cp` ranks with so many heads can do.
std::vector<ContextExchange> exchanges(int cp, const Heads& heads) {
  std::vector<ContextExchange> fitting;
  for (const char* text : {"gather", "ring", "ulysses", "ulysses-ring:2"}) {
    const ContextExchange exchange = context_exchange_plan(text, 1).front();
    try {
      check_exchange(exchange, cp, heads.q, heads.kv);
    } catch (const UsageError&) {
      continue;
    }
    fitting.push_back(exchange);
  }
  return fitting;
}

TEST(ContextAttention, IsThatOfOneRankByEveryExchangeAndPacking) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const Heads heads{8, 4};
  for (const Packing& packing : packings()) {
    for (const int cp : {2, 4}) {
      ASSERT_EQ(exchanges(cp, heads).size(), 4u);
      for (const ContextExchange& exchange : exchanges(cp, heads)) {
        for (const int64_t window : {0, 70}) {
          expect_one_rank({.packing = packing, .heads = heads, .window = window}, cp, exchange, 1e-12);
        }
      }
    }
  }
}

// Fewer key/value heads than ranks, a head for each query head, a number of ranks that is no power of two, and several
// heads at a time (one a thread).
TEST(ContextAttention, IsThatOfOneRankForAllHeadsAndThreads) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const Packing packing = packings().front();
  for (const Heads& heads : {Heads{4, 1}, Heads{8, 2}, Heads{6, 6}, Heads{3, 1}}) {
    for (const int cp : {2, 3, 4}) {
      for (const ContextExchange& exchange : exchanges(cp, heads)) {
        expect_one_rank({.packing = packing, .heads = heads}, cp, exchange, 1e-12, 2);
      }
    }
  }
}

// Parts are rounded to BF16 on their way, so results differ from one rank's by a few units in the last place of the
// largest terms; in F32 likewise.
TEST(ContextAttention, InLowPrecisionDiffersByRounding) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  for (const DType compute : {DType::F32, DType::BF16}) {
    for (const int cp : {2, 4}) {
      for (const ContextExchange& exchange : exchanges(cp, {8, 4})) {
        // A result is rounded at one rank, and with each of cp parts and their sum; sums over keys are in F32.
        const double bound = (2 + cp) * unit_roundoff(compute) + kTokens * unit_roundoff(DType::F32);
        expect_one_rank({.packing = packings().front(), .heads = {8, 4}, .compute = compute}, cp, exchange, bound);
      }
    }
  }
}

// What docs/PARALLEL.md says that each exchange takes, beside the kernel's own.
TEST(ContextAttention, TakesTheBuffersThatAreStated) {
  const Context context({.threads = 1});
  constexpr int cp = 4;
  const Problem problem{.packing = packings().front(), .heads = {8, 4}, .compute = DType::BF16};
  const auto stated = [&](const char* text) {
    const ContextExchange exchange = context_exchange_plan(text, 1).front();
    const ModelShape shape = shape_of(problem, cp, 0, exchange);
    return ContextAttention(shape, shape.layers[0].attention).workspace(context.target());
  };
  const int64_t n = context_slots(kTokens, cp, 1, 0.02), d = kHeadDim;
  const auto kernel = [&](int64_t queries, int64_t keys, int64_t q_heads, int64_t kv_heads) {
    return attention_workspace(context.target(), queries, keys, q_heads, kv_heads, d, DType::BF16);
  };
  const auto wide = [&](int64_t elements) { return Arena::bytes({elements}, DType::F32); };
  const auto narrow = [&](int64_t elements) { return Arena::bytes({elements}, DType::BF16); };
  // Two groups of keys and values, two of their gradients, what is sent, the parts that come; a head's sum.
  EXPECT_EQ(stated("gather"),
            8 * narrow(cp * n * d) + 4 * narrow((cp - 1) * n * d) + wide(n * d) + kernel(n, cp * n, 2, 1));
  // Two blocks and a block's gradient, two blocks' sums and those come home; a group's queries; a head's sum.
  EXPECT_EQ(stated("ring"), 6 * narrow(n * d) + 6 * wide(n * d) + narrow(2 * n * d) + wide(2 * n * d) + wide(n * d) +
                                kernel(n, n, 2, 1));
  // q, out, dout, dq and outputs on their way; k, v, dk, dv; parts of dk and dv from each rank; a head's sum.
  EXPECT_EQ(stated("ulysses"), 5 * narrow(8 * n * d) + 4 * narrow(cp * n * d) + narrow(2 * 4 * cp * n * d) +
                                   wide(n * d) + kernel(cp * n, cp * n, 2, 1));
}

}  // namespace
}  // namespace tessera::testing
