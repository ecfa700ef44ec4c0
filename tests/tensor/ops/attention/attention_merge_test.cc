// That merged parts of real attention are attention over all keys is in attention_test; here the operation itself.
#include "tensor/ops/attention/attention_merge.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Part {
  Part(int64_t queries, int64_t heads, int64_t head_dim, DType dtype, const std::string& name)
      : out(Operand::random({queries, heads, head_dim}, dtype, name)),
        lse(Operand::random({heads, queries}, accumulation_dtype(dtype), name + " lse", 20)) {}
  Operand out, lse;
};

TEST(AttentionMerge, IsTheFormulaWhateverTheScale) {
  Context context(testing::on_device({.threads = 2}));
  constexpr int64_t kQueries = 70, kHeads = 3;
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t head_dim : {1, 33, 64}) {
      SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(head_dim));
      const DType sums = accumulation_dtype(dtype);
      std::vector<Part> parts;
      for (const char* which : {"a", "b", "c"}) parts.emplace_back(kQueries, kHeads, head_dim, dtype, which);
      // Queries that see nothing in one part, in two, and in none at all; and scores far beyond exp's range.
      for (int64_t h = 0; h < kHeads; ++h) {
        for (size_t p = 0; p < 3; ++p) parts[p].lse.set(h * kQueries + 5, -kInfinity);
        parts[0].lse.set(h * kQueries + 7, -kInfinity);
        parts[1].lse.set(h * kQueries + 8, -kInfinity);
        parts[1].lse.set(h * kQueries + 9, -kInfinity);
        parts[2].lse.set(h * kQueries + 9, -kInfinity);
        parts[1].lse.set(h * kQueries + 11, 20000);
        parts[2].lse.set(h * kQueries + 12, -20000);
      }
      Operand out({kQueries, kHeads, head_dim}, sums), lse({kHeads, kQueries}, sums);
      attention_merge_start(context, out.tensor(), lse.tensor());
      for (const Part& part : parts)
        attention_merge(context, part.out.tensor(), part.lse.tensor(), out.tensor(), lse.tensor());
      for (int64_t h = 0; h < kHeads; ++h) {
        for (int64_t i = 0; i < kQueries; ++i) {
          const int64_t at = h * kQueries + i;
          double most = -kInfinity, sum = 0, magnitude = 0;
          for (const Part& part : parts) most = std::max(most, part.lse[at]);
          if (std::isinf(most)) {
            ASSERT_EQ(lse[at], -kInfinity);
            for (int64_t d = 0; d < head_dim; ++d) ASSERT_EQ(out[(i * kHeads + h) * head_dim + d], 0);
            continue;
          }
          for (const Part& part : parts) {
            sum += std::exp(part.lse[at] - most);
            if (!std::isinf(part.lse[at])) magnitude = std::max(magnitude, std::abs(part.lse[at]));
          }
          const double exact = most + std::log(sum);
          // Three merges of a maximum, two exponentials and a logarithm; a weight's relative error is the absolute one
          // of its exponent.
          ASSERT_NEAR(lse[at], exact, testing::tolerance(sums, sums, 12, magnitude + 3));
          for (int64_t d = 0; d < head_dim; ++d) {
            const int64_t element = (i * kHeads + h) * head_dim + d;
            double wanted = 0, terms = 0;
            for (const Part& part : parts) {
              const double term = std::exp(part.lse[at] - exact) * part.out[element];
              wanted += term;
              terms += std::abs(term);
            }
            ASSERT_NEAR(out[element], wanted, testing::tolerance(sums, sums, 24, (magnitude + 3) * terms));
          }
        }
      }
    }
  }
}

TEST(AttentionMerge, OfOnePartIsThePart) {
  Context context(testing::on_device({}));
  for (const DType dtype : kFloatDTypes) {
    const Part part(20, 2, 8, dtype, "part");
    const DType sums = accumulation_dtype(dtype);
    Operand out({20, 2, 8}, sums), lse({2, 20}, sums);
    attention_merge_start(context, out.tensor(), lse.tensor());
    attention_merge(context, part.out.tensor(), part.lse.tensor(), out.tensor(), lse.tensor());
    EXPECT_EQ(lse.bytes(), part.lse.bytes());
    for (int64_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], part.out[i]);
  }
}

TEST(AttentionMerge, NoQueries) {
  Context context(testing::on_device({}));
  const Part part(0, 2, 8, DType::F32, "part");
  Operand out({0, 2, 8}, DType::F32), lse({2, 0}, DType::F32);
  attention_merge_start(context, out.tensor(), lse.tensor());
  attention_merge(context, part.out.tensor(), part.lse.tensor(), out.tensor(), lse.tensor());
}

TEST(AttentionMerge, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Part a(500, 4, 40, dtype, "a"), b(500, 4, 40, dtype, "b");
      const DType sums = accumulation_dtype(dtype);
      Operand out({500, 4, 40}, sums), lse({4, 500}, sums);
      attention_merge_start(context, out.tensor(), lse.tensor());
      for (const Part* part : {&a, &b})
        attention_merge(context, part->out.tensor(), part->lse.tensor(), out.tensor(), lse.tensor());
      return joined({&out, &lse});
    });
  }
}

TEST(AttentionMerge, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  const Part part(20, 2, 8, DType::BF16, "part");
  Operand out({20, 2, 8}, DType::F32), lse({2, 20}, DType::F32), narrow({20, 2, 8}, DType::BF16);
  Operand turned({20, 2}, DType::F32);
  const auto merge = [&](const Tensor& to, const Tensor& log) {
    attention_merge(context, part.out.tensor(), part.lse.tensor(), to, log);
  };
  EXPECT_NO_THROW(merge(out.tensor(), lse.tensor()));
  EXPECT_THROW(merge(narrow.tensor(), lse.tensor()), InternalError);
  EXPECT_THROW(merge(out.tensor(), turned.tensor()), InternalError);
  EXPECT_THROW(attention_merge_start(context, narrow.tensor(), lse.tensor()), InternalError);
}

}  // namespace
}  // namespace tessera
