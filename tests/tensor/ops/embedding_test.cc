#include "tensor/ops/embedding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

// Rows [4, 10) of a vocabulary of 12; some indices lie outside, some repeat, one is padding.
constexpr int64_t kFirstRow = 4, kRows = 6;
const std::vector<int32_t> kIndex = {4, 9, 3, 10, 7, 7, -1, 4, 11, 0, 7};

int64_t local_row(int32_t index) { return index >= kFirstRow && index < kFirstRow + kRows ? index - kFirstRow : -1; }

TEST(Embedding, LooksUpTheRowsOfThisRankAndZeros) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t hidden : {0, 1, 33, 5000}) {
      const int64_t tokens = static_cast<int64_t>(kIndex.size());
      const Operand table = Operand::random({kRows, hidden}, dtype, "table");
      Operand y({tokens, hidden}, dtype), sum = Operand::random({tokens, hidden}, dtype, "sum");
      const Operand before = sum;
      embedding(context, kIndex, table.tensor(), kFirstRow, y.tensor());
      embedding_add(context, kIndex, table.tensor(), kFirstRow, sum.tensor());
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t row = local_row(kIndex[t]);
        for (int64_t i = 0; i < hidden; ++i) {
          const double looked_up = row < 0 ? 0 : table[row * hidden + i];
          ASSERT_EQ(y[t * hidden + i], looked_up);
          const double exact = before[t * hidden + i] + looked_up;
          ASSERT_NEAR(sum[t * hidden + i], exact, row < 0 ? 0 : testing::tolerance(dtype, 1, std::abs(exact)));
        }
      }
    }
  }
}

TEST(Embedding, NoTokensAndNoRows) {
  Context context(testing::on_device({}));
  Operand empty({0, 8}, DType::F32), table = Operand::random({kRows, 8}, DType::F32, "table");
  const Operand before = table;
  embedding(context, {}, table.tensor(), 0, empty.tensor());
  embedding_backward(context, {}, empty.tensor(), 0, table.tensor());
  EXPECT_EQ(table.bytes(), before.bytes());
  Operand no_rows({0, 8}, DType::F32), y({2, 8}, DType::F32);
  const std::vector<int32_t> index = {0, 1};
  embedding(context, index, no_rows.tensor(), 0, y.tensor());
  for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], 0);
}

// The order of additions is promised, so a loop in that order gives the same bits.
template <class A>
void check_backward_order(DType dtype, int64_t hidden) {
  const int64_t tokens = 5000;
  std::vector<int32_t> index(tokens);
  const RandomStream stream(3, "index");
  for (int64_t t = 0; t < tokens; ++t) index[t] = static_cast<int32_t>(stream.below(t, 13)) - 1;
  const Operand dy = Operand::random({tokens, hidden}, dtype, "dy");
  Operand expected = Operand::random({kRows, hidden}, accumulation_dtype(dtype), "dtable");
  const Operand start = expected;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = local_row(index[t]);
    if (row < 0) continue;
    for (int64_t i = 0; i < hidden; ++i) {
      expected.tensor().as<A>()[row * hidden + i] += static_cast<A>(dy[t * hidden + i]);
    }
  }
  for (const int threads : {1, 2, 3}) {
    Context context(testing::on_device({.threads = threads}));
    Operand dtable = start;
    embedding_backward(context, index, dy.tensor(), kFirstRow, dtable.tensor());
    EXPECT_EQ(dtable.bytes(), expected.bytes()) << name(dtype) << ", hidden " << hidden << ", threads " << threads;
  }
}

TEST(Embedding, BackwardAddsTokensInAscendingOrderForAnyNumberOfThreads) {
  for (const int64_t hidden : {1, 64, 200}) {
    check_backward_order<double>(DType::F64, hidden);
    check_backward_order<float>(DType::F32, hidden);
    check_backward_order<float>(DType::BF16, hidden);
  }
}

TEST(Embedding, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Operand table({kRows, 8}, DType::BF16), y({2, 8}, DType::BF16), narrow({2, 7}, DType::BF16);
  const std::vector<int32_t> one = {4}, two = {4, 5};
  EXPECT_THROW(embedding(context, one, table.tensor(), 0, y.tensor()), InternalError);
  EXPECT_THROW(embedding(context, two, table.tensor(), 0, narrow.tensor()), InternalError);
  EXPECT_THROW(embedding_backward(context, two, y.tensor(), 0, table.tensor()), InternalError);
}

}  // namespace
}  // namespace tessera
