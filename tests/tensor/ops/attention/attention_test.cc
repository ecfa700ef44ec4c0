#include "tensor/ops/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "tests/tensor/ops/attention/attention_case.h"

namespace tessera {
namespace {

using namespace testing_attention;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void expect_within(const Bounded& wanted, const Array& found, const std::string& what) {
  ASSERT_EQ(wanted.value.size(), found.value.size());
  for (size_t i = 0; i < wanted.value.size(); ++i) {
    if (wanted.value[i] == found.value[i]) continue;
    // Not "greater than", so that a NaN fails.
    ASSERT_TRUE(std::abs(wanted.value[i] - found.value[i]) <= wanted.bound[i])
        << what << " element " << i << ": " << found.value[i] << " is not " << wanted.value[i] << " within "
        << wanted.bound[i];
  }
}

// Both directions against the definition.
void check_case(const Case& c, uint64_t seed = 1) {
  SCOPED_TRACE(c.name());
  Operands x(c, seed);
  const Roundoff u(c.dtype);
  x.forward();
  const Forward forward = reference_forward(x.problem, x.sizes, u, x.q.value, x.k.value, x.v.value);
  expect_within(forward.out, x.out, "out");
  expect_within(forward.lse, x.lse, "lse");
  x.backward();
  const Backward backward = reference_backward(x.problem, x.sizes, u, x.q.value, x.k.value, x.v.value, x.out.value,
                                               x.lse.value, x.dout.value);
  expect_within(backward.dq, x.dq, "dq");
  expect_within(backward.dk, x.dk, "dk");
  expect_within(backward.dv, x.dv, "dv");
}

class AttentionDTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, AttentionDTypes, ::testing::Values(DType::F64, DType::F32, DType::BF16),
                         [](const auto& dtype) { return name(dtype.param); });

TEST_P(AttentionDTypes, MatchesTheDefinitionForEveryHeadSize) {
  for (const int64_t head_dim : {1, 8, 13, 32, 48, 64, 80, 96, 127, 128, 192, 256}) {
    check_case(
        {.queries = mixed(), .keys = mixed(), .q_heads = 2, .kv_heads = 1, .head_dim = head_dim, .dtype = GetParam()});
  }
}

TEST_P(AttentionDTypes, MatchesTheDefinitionForGroupsOfQueryHeads) {
  for (const int64_t ratio : {1, 2, 4, 8}) {
    check_case({.queries = mixed(),
                .keys = mixed(),
                .q_heads = 2 * ratio,
                .kv_heads = 2,
                .head_dim = 16,
                .dtype = GetParam()});
  }
}

TEST_P(AttentionDTypes, MatchesTheDefinitionWithWindows) {
  for (const int64_t window : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{64}, int64_t{90}, int64_t{1} << 32}) {
    check_case({.queries = mixed(),
                .keys = mixed(),
                .q_heads = 2,
                .kv_heads = 2,
                .head_dim = 24,
                .window = window,
                .dtype = GetParam()});
  }
}

TEST_P(AttentionDTypes, MatchesTheDefinitionForEveryNumberOfTokens) {
  for (const int64_t tokens : {1, 2, 63, 64, 65, 127, 128, 129, 193}) {
    Tokens t;
    t.add(0, tokens);
    check_case({.queries = t, .keys = t, .q_heads = 1, .kv_heads = 1, .head_dim = 32, .dtype = GetParam()});
  }
}

TEST_P(AttentionDTypes, MatchesTheDefinitionOnRandomPackings) {
  const RandomStream stream(7, "packings");
  for (uint64_t i = 0; i < 12; ++i) {
    const Tokens tokens = random_packing(1 + static_cast<int64_t>(stream.below(1000 * i, 260)), stream, 1000 * i + 1);
    check_case({.queries = tokens,
                .keys = tokens,
                .q_heads = 4,
                .kv_heads = 2,
                .head_dim = 20,
                .window = i % 3 == 0 ? int64_t{40} : int64_t{0},
                .dtype = GetParam()},
               i);
  }
}

// As in context parallelism: the keys are of other tokens, earlier and later than the queries, in any order.
TEST_P(AttentionDTypes, KeysMayBeOtherTokens) {
  Tokens queries;
  queries.add(1, 70, 300);
  queries.add(2, 30, 0);
  Tokens earlier;
  earlier.add(1, 150, 150);
  Tokens shuffled;
  shuffled.add(2, 20, 10);
  shuffled.add_padding(3);
  shuffled.add(1, 90, 290);
  shuffled.add(1, 65, 0);
  Tokens strangers;
  strangers.add(5, 80);
  for (const Tokens& keys : {earlier, shuffled, strangers}) {
    for (const int64_t window : {0, 128}) {
      check_case({.queries = queries,
                  .keys = keys,
                  .q_heads = 2,
                  .kv_heads = 1,
                  .head_dim = 40,
                  .window = window,
                  .dtype = GetParam()});
    }
  }
}

// Partial results of disjoint sets of keys: out = sum_s exp(lse_s - lse) out_s, and gradients with the merged out and
// lse add up (dq) or stand side by side (dk, dv).
TEST(Attention, DisjointKeysMergeToTheWhole) {
  const Case whole = {.queries = mixed(), .keys = mixed(), .q_heads = 4, .kv_heads = 2, .head_dim = 16};
  Operands all(whole);
  const int64_t tokens = all.sizes.keys;
  std::vector<std::vector<int64_t>> sets(3);
  for (int64_t i = 0; i < tokens; ++i) sets[(i / 17) % 3].push_back(i);

  const auto pick = [&](const Array& x, const std::vector<int64_t>& which) {
    std::vector<double> picked;
    for (int64_t h = 0; h < whole.kv_heads; ++h) {
      for (const int64_t i : which) {
        const auto row = x.value.begin() + (h * tokens + i) * whole.head_dim;
        picked.insert(picked.end(), row, row + whole.head_dim);
      }
    }
    return picked;
  };
  std::vector<std::unique_ptr<Operands>> parts;
  for (const auto& set : sets) {
    Case part = whole;
    part.keys = whole.keys.pick(set);
    parts.push_back(std::make_unique<Operands>(part));
    parts.back()->k.set(pick(all.k, set));
    parts.back()->v.set(pick(all.v, set));
    parts.back()->forward();
  }
  std::vector<double> lse(all.lse.value.size());
  std::vector<double> out(all.out.value.size());
  for (int64_t h = 0; h < whole.q_heads; ++h) {
    for (int64_t i = 0; i < all.sizes.queries; ++i) {
      const int64_t at = h * all.sizes.queries + i;
      double top = -kInfinity;
      for (const auto& part : parts) top = std::max(top, part->lse.value[at]);
      double sum = 0;
      for (const auto& part : parts) sum += std::isinf(top) ? 0 : std::exp(part->lse.value[at] - top);
      lse[at] = std::isinf(top) ? top : top + std::log(sum);
      for (const auto& part : parts) {
        const double weight = std::isinf(top) ? 0 : std::exp(part->lse.value[at] - lse[at]);
        for (int64_t d = 0; d < whole.head_dim; ++d) {
          const int64_t element = (i * whole.q_heads + h) * whole.head_dim + d;
          out[element] += weight * part->out.value[element];
        }
      }
    }
  }
  // The bound of the whole holds for each part, and merging adds a few roundings: twice the bound.
  const Roundoff u(whole.dtype);
  Forward forward = reference_forward(all.problem, all.sizes, u, all.q.value, all.k.value, all.v.value);
  for (Bounded* x : {&forward.out, &forward.lse}) {
    for (double& bound : x->bound) bound *= 2;
  }
  all.out.set(out);
  all.lse.set(lse);
  expect_within(forward.out, all.out, "merged out");
  expect_within(forward.lse, all.lse, "merged lse");

  Backward backward = reference_backward(all.problem, all.sizes, u, all.q.value, all.k.value, all.v.value,
                                         all.out.value, all.lse.value, all.dout.value);
  std::vector<double> dq(all.dq.value.size());
  std::vector<double> dk(all.dk.value.size());
  std::vector<double> dv(all.dv.value.size());
  for (size_t s = 0; s < sets.size(); ++s) {
    parts[s]->out.set(out);
    parts[s]->lse.set(lse);
    parts[s]->backward();
    for (size_t i = 0; i < dq.size(); ++i) dq[i] += parts[s]->dq.value[i];
    const int64_t count = static_cast<int64_t>(sets[s].size());
    for (int64_t h = 0; h < whole.kv_heads; ++h) {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t d = 0; d < whole.head_dim; ++d) {
          const int64_t to = (h * tokens + sets[s][i]) * whole.head_dim + d;
          dk[to] = parts[s]->dk.value[(h * count + i) * whole.head_dim + d];
          dv[to] = parts[s]->dv.value[(h * count + i) * whole.head_dim + d];
        }
      }
    }
  }
  all.dq.set(dq);
  all.dk.set(dk);
  all.dv.set(dv);
  expect_within(backward.dq, all.dq, "dq");
  expect_within(backward.dk, all.dk, "dk");
  expect_within(backward.dv, all.dv, "dv");
}

// Each group of heads alone, on parts of the whole's memory: not a bit differs, and other heads' outputs stay.
TEST_P(AttentionDTypes, HeadsMayBeDoneInGroups) {
  const Case whole = {
      .queries = mixed(), .keys = mixed(), .q_heads = 4, .kv_heads = 2, .head_dim = 16, .dtype = GetParam()};
  Operands x(whole), y(whole);
  x.forward();
  x.backward();
  for (const int64_t group : {1, 0}) {
    AttentionProblem problem = y.problem;
    problem.first_head = 2 * group;
    const auto of_queries = [&](Array& a, const Shape& shape) {
      return a.tensor(shape).rows(2 * group, 2 * group + 2);
    };
    const auto of_keys = [&](Array& a) { return a.tensor(y.kv_shape()).rows(group, group + 1); };
    const Tensor q = of_queries(y.q, y.q_shape()), lse = of_queries(y.lse, y.lse_shape());
    attention(y.context, problem, q, of_keys(y.k), of_keys(y.v), y.out.tensor(y.out_shape()), lse);
    attention_backward(y.context, problem, q, of_keys(y.k), of_keys(y.v), y.out.tensor(y.out_shape()), lse,
                       y.dout.tensor(y.out_shape()), of_queries(y.dq, y.q_shape()), of_keys(y.dk), of_keys(y.dv));
  }
  testing::settle();
  for (const auto& [all, grouped] :
       {std::pair<Array*, Array*>{&x.out, &y.out}, {&x.lse, &y.lse}, {&x.dq, &y.dq}, {&x.dk, &y.dk}, {&x.dv, &y.dv}}) {
    EXPECT_EQ(all->bytes, grouped->bytes);
  }
  AttentionProblem problem = y.problem;
  problem.first_head = 1;
  EXPECT_THROW(attention(y.context, problem, y.q.tensor(y.q_shape()), y.k.tensor(y.kv_shape()),
                         y.v.tensor(y.kv_shape()), y.out.tensor(y.out_shape()), y.lse.tensor(y.lse_shape())),
               InternalError);
}

TEST_P(AttentionDTypes, QueriesThatSeeNothingGetZeros) {
  Tokens queries;
  queries.add(1, 10, 50);
  queries.add(2, 10);
  queries.add_padding(60);
  Tokens keys;
  keys.add(1, 20);
  keys.add(2, 20, 100);
  Operands x({.queries = queries, .keys = keys, .q_heads = 2, .kv_heads = 1, .head_dim = 16, .dtype = GetParam()});
  x.forward();
  x.backward();
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t i = 0; i < x.sizes.queries; ++i) {
      const bool blind = i >= 10;
      EXPECT_EQ(x.lse.value[h * x.sizes.queries + i] == -kInfinity, blind) << i;
      for (int64_t d = 0; d < 16; ++d) {
        EXPECT_EQ(x.out.value[(i * 2 + h) * 16 + d] == 0, blind);
        EXPECT_EQ(x.dq.value[(h * x.sizes.queries + i) * 16 + d] == 0, blind);
      }
    }
  }
  for (int64_t j = 0; j < x.sizes.keys; ++j) {
    for (int64_t d = 0; d < 16; ++d) {
      EXPECT_EQ(x.dk.value[j * 16 + d] == 0, j >= 20);
      EXPECT_EQ(x.dv.value[j * 16 + d] == 0, j >= 20);
    }
  }
}

TEST_P(AttentionDTypes, NoTokensAreLegal) {
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{0, 70}, {70, 0}, {0, 0}}) {
    Case c = {.queries = {}, .keys = {}, .head_dim = 8, .dtype = GetParam()};
    c.queries.add(0, queries);
    c.keys.add(0, keys);
    Operands x(c);
    x.forward();
    x.backward();
    for (const Array* zero : {&x.out, &x.dq, &x.dk, &x.dv}) {
      EXPECT_TRUE(std::all_of(zero->value.begin(), zero->value.end(), [](double y) { return y == 0; }));
    }
    EXPECT_TRUE(std::all_of(x.lse.value.begin(), x.lse.value.end(), [](double y) { return y == -kInfinity; }));
  }
}

// Scores of 10,000 and more, thousands apart: exponentials neither overflow nor spoil the sum.
TEST_P(AttentionDTypes, LargeScoresPickTheLargest) {
  Tokens tokens;
  tokens.add(0, 130);
  Operands x({.queries = tokens, .keys = tokens, .head_dim = 4, .dtype = GetParam()});
  std::vector<double> q(x.sizes.q_elements(), 0);
  std::vector<double> k(x.sizes.kv_elements(), 0);
  for (int64_t i = 0; i < 130; ++i) {
    q[i * 4] = 256;
    k[i * 4] = static_cast<double>(i % 100) * 4 - 100;  // exact in bfloat16
  }
  x.q.set(q);
  x.k.set(k);
  x.forward();
  x.backward();
  for (int64_t i = 0; i < 130; ++i) {
    const int64_t best = i < 100 ? i : 99;
    // The one product that is not exact is that with scale * log2(e), and back.
    const double lse = 0.5 * 256 * x.k.value[best * 4];
    EXPECT_LE(std::abs(x.lse.value[i] - lse), 4 * Roundoff(GetParam()).accumulation * std::abs(lse));
    for (int64_t d = 0; d < 4; ++d) {
      EXPECT_EQ(x.out.value[i * 4 + d], x.v.value[best * 4 + d]);
      EXPECT_TRUE(std::isfinite(x.dq.value[i * 4 + d]) && std::isfinite(x.dk.value[i * 4 + d]));
    }
  }
}

// The first and the last of many keys have the same large score, the others none to speak of: they weigh the same.
// What is lost with every tile of keys in between adds up.
TEST_P(AttentionDTypes, EarlyKeysKeepTheirWeight) {
  constexpr int64_t kKeys = 2048, kHeads = 8, kHeadDim = 8;
  Tokens query, keys;
  query.add(0, 1, kKeys - 1);
  keys.add(0, kKeys);
  Operands x({.queries = query,
              .keys = keys,
              .q_heads = kHeads,
              .kv_heads = kHeads,
              .head_dim = kHeadDim,
              .dtype = GetParam()});
  std::vector<double> q(x.sizes.q_elements(), 0), k(x.sizes.kv_elements(), 0), v(x.sizes.kv_elements(), 0);
  for (int64_t head = 0; head < kHeads; ++head) {
    q[head * kHeadDim] = 256;
    for (const int64_t key : {int64_t{0}, kKeys - 1}) {
      k[(head * kKeys + key) * kHeadDim] = static_cast<double>(193 + 8 * head);  // of which none scales exactly
    }
    v[head * kKeys * kHeadDim] = 1;
  }
  x.q.set(q);
  x.k.set(k);
  x.v.set(v);
  x.forward();
  for (int64_t head = 0; head < kHeads; ++head) {
    const double lse = x.problem.scale * 256 * x.k.value[head * kKeys * kHeadDim] + std::numbers::ln2;
    EXPECT_LE(std::abs(x.lse.value[head] - lse), 4 * Roundoff(GetParam()).accumulation * lse) << head;
    // Only the score's own rounding is between them, in a power of two.
    const double bound = 0.5 * Roundoff(GetParam()).result + 4 * Roundoff(GetParam()).accumulation * lse;
    EXPECT_LE(std::abs(x.out.value[head * kHeadDim] - 0.5), bound) << head;
  }
}

// A run must be able to see that it went wrong.
TEST_P(AttentionDTypes, NotANumberIsNotHidden) {
  Tokens tokens;
  tokens.add(0, 100);
  Operands x({.queries = tokens, .keys = tokens, .head_dim = 8, .dtype = GetParam()});
  std::vector<double> q = x.q.value;
  q[70 * 8 + 3] = std::numeric_limits<double>::quiet_NaN();
  x.q.set(q);
  x.forward();
  x.backward();
  EXPECT_TRUE(std::isnan(x.out.value[70 * 8]));
  EXPECT_TRUE(std::isnan(x.lse.value[70]));
  EXPECT_FALSE(std::isnan(x.out.value[69 * 8]));
  EXPECT_TRUE(std::isnan(x.dq.value[70 * 8]));
  EXPECT_TRUE(std::isnan(x.dk.value[0]));
}

// Central differences of f = sum(out * dout) along random directions. With D(h) = (f(x+h) - f(x-h)) / 2h, the error of
// D(h) is a third of D(2h) - D(h) up to higher orders of h, and rounding adds at most the error of f over h.
TEST(Attention, GradientsAreDerivatives) {
  for (const int64_t window : {0, 50}) {
    Operands x({.queries = mixed(), .keys = mixed(), .q_heads = 2, .kv_heads = 1, .head_dim = 6, .window = window});
    x.forward();
    x.backward();
    const auto f = [&] {
      x.forward();
      return dot(x.out.value.data(), x.dout.value.data(), static_cast<int64_t>(x.out.value.size()));
    };
    const Forward bounds = reference_forward(x.problem, x.sizes, Roundoff(DType::F64), x.q.value, x.k.value, x.v.value);
    const double rounding =
        dot_of_magnitudes(bounds.out.bound.data(), x.dout.value.data(), static_cast<int64_t>(x.out.value.size()));
    const double h = 0x1p-14;
    for (const auto& [input, gradient] : {std::pair<Array*, const Array*>{&x.q, &x.dq}, {&x.k, &x.dk}, {&x.v, &x.dv}}) {
      const std::vector<double> at = input->value;
      const std::vector<double> direction = normals(static_cast<int64_t>(at.size()), 5, "direction");
      const auto difference = [&](double step) {
        std::vector<double> moved = at;
        for (size_t i = 0; i < at.size(); ++i) moved[i] = at[i] + step * direction[i];
        input->set(moved);
        const double above = f();
        for (size_t i = 0; i < at.size(); ++i) moved[i] = at[i] - step * direction[i];
        input->set(moved);
        const double below = f();
        input->set(at);
        return (above - below) / (2 * step);
      };
      const double once = difference(h);
      const double twice = difference(2 * h);
      const double wanted = dot(gradient->value.data(), direction.data(), static_cast<int64_t>(direction.size()));
      EXPECT_LE(std::abs(wanted - once), std::abs(twice - once) + 2 * rounding / h);
      // The bound must be able to tell a wrong gradient.
      EXPECT_LT(std::abs(twice - once) + 2 * rounding / h, 1e-4 * std::abs(wanted));
    }
  }
}

TEST(Attention, FullTilesAndMaskedTilesAgree) {
  Tokens tokens;
  tokens.add(0, 256);
  Operands x({.queries = tokens, .keys = tokens, .head_dim = 16, .dtype = DType::F32});
  x.forward();
  x.backward();
  const auto out = x.out.bytes;
  const auto dk = x.dk.bytes;
  ASSERT_GT(std::accumulate(x.list.full.begin(), x.list.full.end(), 0), 0);
  std::fill(x.list.full.begin(), x.list.full.end(), 0);
  x.forward();
  x.backward();
  EXPECT_EQ(out, x.out.bytes);
  EXPECT_EQ(dk, x.dk.bytes);
}

TEST(Attention, RefusesWhatDoesNotFit) {
  Operands x({.queries = mixed(), .keys = mixed(), .head_dim = 8, .dtype = DType::BF16});
  const auto call = [&](const AttentionProblem& problem, const Tensor& lse) {
    attention(x.context, problem, x.q.tensor(x.q_shape()), x.k.tensor(x.kv_shape()), x.v.tensor(x.kv_shape()),
              x.out.tensor(x.out_shape()), lse);
  };
  const Tensor lse = x.lse.tensor(x.lse_shape());
  EXPECT_NO_THROW(call(x.problem, lse));
  Array narrow(DType::BF16, x.lse_shape().size());
  EXPECT_THROW(call(x.problem, narrow.tensor(x.lse_shape())), InternalError);
  AttentionProblem problem = x.problem;
  problem.keys.document = problem.keys.document.first(100);
  EXPECT_THROW(call(problem, lse), InternalError);
  problem = x.problem;
  problem.scale = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(call(problem, lse), InternalError);
  // Tile lists that would count keys twice or read past the end.
  ASSERT_GE(x.list.tiles.offset[2] - x.list.tiles.offset[1], 2);
  const int32_t second = x.list.tiles.offset[1] + 1;
  const int32_t kept = x.list.key_tile[second];
  x.list.key_tile[second] = x.list.key_tile[second - 1];
  EXPECT_THROW(call(x.problem, lse), InternalError);
  x.list.key_tile[second] = 4;
  EXPECT_THROW(call(x.problem, lse), InternalError);
  x.list.key_tile[second] = kept;
  EXPECT_NO_THROW(call(x.problem, lse));
  if (testing::kDevice == Device::Cpu) return;
  problem = x.problem;
  problem.sent = {};
  EXPECT_THROW(call(problem, lse), InternalError);
}

TEST(Attention, CountsFlops) {
  Tokens tokens;
  tokens.add(0, 5);
  tokens.add_padding(2);
  tokens.add(1, 3);
  EXPECT_EQ(attention_pairs(tokens.places(), 0), 15 + 6);
  EXPECT_EQ(attention_pairs(tokens.places(), 2), 9 + 5);
  EXPECT_EQ(attention_forward_flops(21, 64), 4 * 21 * 64);
  EXPECT_EQ(attention_backward_flops(21, 64), 10 * 21 * 64);
}

}  // namespace
}  // namespace tessera
