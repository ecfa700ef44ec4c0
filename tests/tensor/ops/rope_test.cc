#include "tensor/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/central_difference.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

std::vector<int32_t> positions(int64_t tokens) {
  std::vector<int32_t> position(tokens);
  for (int64_t t = 0; t < tokens; ++t) position[t] = static_cast<int32_t>(t % 3 == 0 ? 131071 - t : t / 2);
  return position;
}

struct Heads {
  Heads(const HeadLayout& l, int64_t count, DType dtype)
      : layout(l),
        tokens(count),
        table({count, l.head_dim}, accumulation_dtype(dtype)),
        qkv(Operand::random({count, l.width()}, dtype, "qkv")),
        q({l.q_heads(), count, l.head_dim}, dtype),
        k({l.kv_heads, count, l.head_dim}, dtype),
        v({l.kv_heads, count, l.head_dim}, dtype) {}
  void split(Context& context, const ConstTensor& angles) {
    split_heads(context, qkv.tensor(), layout, angles, q.tensor(), k.tensor(), v.tensor());
  }
  void join(Context& context, const ConstTensor& angles) {
    split_heads_backward(context, q.tensor(), k.tensor(), v.tensor(), layout, angles, qkv.tensor());
  }
  // Where element i of token t of member m of kv head h lies: in the fused rows, and in q, k or v.
  int64_t fused_at(int64_t t, int64_t h, int64_t m, int64_t i) const {
    return t * layout.width() + (h * (layout.q_per_kv + 2) + m) * layout.head_dim + i;
  }
  std::pair<Operand*, int64_t> split_at(int64_t t, int64_t h, int64_t m, int64_t i) {
    const bool query = m < layout.q_per_kv;
    const int64_t head = query ? h * layout.q_per_kv + m : h;
    return {query ? &q : m == layout.q_per_kv ? &k : &v, (head * tokens + t) * layout.head_dim + i};
  }

  HeadLayout layout;
  int64_t tokens;
  Operand table, qkv, q, k, v;
};

enum class Way { Forward, Backward };

// Every element against the rotation by the table's angles (or minus them), or a copy.
void check(Way way, const HeadLayout& layout, int64_t tokens, DType dtype, bool rotate) {
  SCOPED_TRACE(std::string(name(dtype)) + " tokens " + std::to_string(tokens) + " head_dim " +
               std::to_string(layout.head_dim) + (rotate ? " rotated" : " copied"));
  Context context(testing::on_device({.threads = 2}));
  Heads heads(layout, tokens, dtype);
  if (rotate) rope_table(context, positions(tokens), 10000, heads.table.tensor());
  const ConstTensor angles = rotate ? heads.table.tensor() : Tensor();
  const Operand fused = heads.qkv;
  if (way == Way::Forward) {
    heads.split(context, angles);
  } else {
    heads.q = Operand::random({layout.q_heads(), tokens, layout.head_dim}, dtype, "dq");
    heads.k = Operand::random({layout.kv_heads, tokens, layout.head_dim}, dtype, "dk");
    heads.v = Operand::random({layout.kv_heads, tokens, layout.head_dim}, dtype, "dv");
    heads.join(context, angles);
  }
  const int64_t half = layout.head_dim / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < layout.kv_heads; ++h) {
      for (int64_t m = 0; m < layout.q_per_kv + 2; ++m) {
        const auto input = [&](int64_t i) {
          if (way == Way::Forward) return fused[heads.fused_at(t, h, m, i)];
          const auto [operand, at] = heads.split_at(t, h, m, i);
          return (*operand)[at];
        };
        for (int64_t i = 0; i < layout.head_dim; ++i) {
          const auto [operand, at] = heads.split_at(t, h, m, i);
          const double output = way == Way::Forward ? (*operand)[at] : heads.qkv[heads.fused_at(t, h, m, i)];
          if (!rotate || m == layout.q_per_kv + 1) {
            ASSERT_EQ(output, input(i));
            continue;
          }
          const double cosine = heads.table[t * layout.head_dim + i % half];
          const double sine = heads.table[t * layout.head_dim + half + i % half] * (way == Way::Forward ? 1 : -1);
          const double along = input(i) * cosine, across = input((i + half) % layout.head_dim) * sine;
          ASSERT_NEAR(output, i < half ? along - across : along + across,
                      testing::tolerance(dtype, 3, std::abs(along) + std::abs(across)));
        }
      }
    }
  }
}

TEST(Rope, SplitsAndRotates) {
  for (const Way way : {Way::Forward, Way::Backward}) {
    for (const DType dtype : kFloatDTypes) {
      for (const bool rotate : {true, false}) {
        check(way, {.kv_heads = 1, .q_per_kv = 1, .head_dim = 2}, 1, dtype, rotate);
        check(way, {.kv_heads = 2, .q_per_kv = 3, .head_dim = 10}, 37, dtype, rotate);
        check(way, {.kv_heads = 3, .q_per_kv = 1, .head_dim = 64}, 17, dtype, rotate);
        check(way, {.kv_heads = 1, .q_per_kv = 4, .head_dim = 128}, 0, dtype, rotate);
      }
      check(way, {.kv_heads = 2, .q_per_kv = 1, .head_dim = 5}, 4, dtype, false);
    }
  }
}

TEST(Rope, TableHoldsCosinesAndSinesRoundedOnce) {
  Context context(testing::on_device({.threads = 2}));
  const std::vector<int32_t> position = positions(131);
  for (const DType dtype : {DType::F64, DType::F32}) {
    for (const double theta : {10000.0, 500000.0}) {
      constexpr int64_t kHeadDim = 12, kHalf = kHeadDim / 2;
      Operand table({131, kHeadDim}, dtype);
      rope_table(context, position, theta, table.tensor());
      for (int64_t t = 0; t < 131; ++t) {
        for (int64_t i = 0; i < kHalf; ++i) {
          const long double frequency = std::pow(static_cast<long double>(theta), -2.0L * i / kHeadDim);
          const long double angle = position[t] * frequency;
          // The angle in double: a rounding of the exponent (worth log theta in the power), of the power and of the
          // product; then one of the cosine.
          const double u = unit_roundoff(DType::F64);
          const double bound = unit_roundoff(dtype) + u * (2 + (std::log(theta) + 3) * static_cast<double>(angle));
          ASSERT_NEAR(table[t * kHeadDim + i], static_cast<double>(std::cos(angle)), bound);
          ASSERT_NEAR(table[t * kHeadDim + kHalf + i], static_cast<double>(std::sin(angle)), bound);
        }
      }
    }
  }
}

TEST(Rope, ScoresDependOnTheDistanceOnly) {
  // What rotary embedding is for: q_i . k_j is a function of i - j.
  Context context(testing::on_device({}));
  const HeadLayout layout = {.kv_heads = 1, .q_per_kv = 1, .head_dim = 16};
  const auto score = [&](int32_t query, int32_t key) {
    Heads heads(layout, 2, DType::F64);
    const std::vector<int32_t> position = {query, key};
    rope_table(context, position, 10000, heads.table.tensor());
    heads.split(context, heads.table.tensor());
    double sum = 0;
    for (int64_t i = 0; i < 16; ++i) sum += heads.q[i] * heads.k[16 + i];
    return sum;
  };
  EXPECT_NEAR(score(7, 3), score(1007, 1003), 1e-11);
  EXPECT_GT(std::abs(score(7, 3) - score(8, 3)), 1e-3);
}

TEST(Rope, BackwardIsTheGradient) {
  Context context(testing::on_device({}));
  const HeadLayout layout = {.kv_heads = 2, .q_per_kv = 2, .head_dim = 6};
  Heads heads(layout, 3, DType::F64), gradient(layout, 3, DType::F64);
  rope_table(context, positions(3), 100, heads.table.tensor());
  gradient.q = Operand::random({4, 3, 6}, DType::F64, "dq");
  gradient.k = Operand::random({2, 3, 6}, DType::F64, "dk");
  gradient.v = Operand::random({2, 3, 6}, DType::F64, "dv");
  gradient.join(context, heads.table.tensor());
  testing::expect_gradient(
      heads.qkv, gradient.qkv,
      [&] {
        heads.split(context, heads.table.tensor());
        testing::Scalar sum;
        for (const auto& part : {testing::dot(heads.q, gradient.q), testing::dot(heads.k, gradient.k),
                                 testing::dot(heads.v, gradient.v)}) {
          sum.value += part.value;
          sum.magnitude += part.magnitude;
          sum.roundings += part.roundings;
        }
        return sum;
      },
      "qkv");
}

TEST(Rope, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      Heads heads({.kv_heads = 2, .q_per_kv = 2, .head_dim = 20}, 150, dtype);
      rope_table(context, positions(150), 10000, heads.table.tensor());
      heads.split(context, heads.table.tensor());
      heads.join(context, heads.table.tensor());
      return testing::joined({&heads.table, &heads.q, &heads.k, &heads.v, &heads.qkv});
    });
  }
}

TEST(Rope, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Heads odd({.kv_heads = 1, .q_per_kv = 1, .head_dim = 5}, 2, DType::F32);
  EXPECT_THROW(odd.split(context, odd.table.tensor()), InternalError);
  EXPECT_THROW(rope_table(context, positions(2), 10000, odd.table.tensor()), InternalError);
  Heads even({.kv_heads = 1, .q_per_kv = 1, .head_dim = 4}, 2, DType::F32);
  EXPECT_THROW(rope_table(context, positions(3), 10000, even.table.tensor()), InternalError);
  even.layout.q_per_kv = 2;
  EXPECT_THROW(even.split(context, {}), InternalError);
}

}  // namespace
}  // namespace tessera
