#include "tensor/ops/columns.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"

namespace tessera {
namespace {

using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;

TEST(Columns, AreCopiedAndRoundedOnceAndNoOthers) {
  struct Case {
    int64_t rows, n, from, count, m, to;
  };
  Context context(testing::on_device({.threads = 2}));
  for (const Case& c : {Case{0, 4, 0, 4, 4, 0}, Case{3, 4, 1, 0, 5, 5}, Case{5, 7, 2, 3, 11, 8},
                        Case{70, 64, 32, 16, 48, 0}, Case{300, 96, 0, 96, 96, 0}}) {
    for (const DType from : kFloatDTypes) {
      for (const DType to : kFloatDTypes) {
        SCOPED_TRACE(std::string(name(from)) + " to " + name(to) + " " + std::to_string(c.rows));
        const Operand x = Operand::random({c.rows, c.n}, from, "x");
        Operand y = Operand::random({c.rows, c.m}, to, "y");
        const Operand before = y;
        copy_columns(context, x.tensor(), c.from, c.count, y.tensor(), c.to);
        for (int64_t i = 0; i < c.rows; ++i) {
          for (int64_t j = 0; j < c.m; ++j) {
            const bool copied = c.to <= j && j < c.to + c.count;
            const double exact = copied ? x[i * c.n + c.from + j - c.to] : before[i * c.m + j];
            const bool rounds = copied && size_of(to) < size_of(from);
            ASSERT_LE(std::abs(y[i * c.m + j] - exact), rounds ? unit_roundoff(to) * std::abs(exact) : 0)
                << i << " " << j;
          }
        }
      }
    }
  }
}

TEST(Columns, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Operand x = Operand::random({300, 211}, DType::F32, "x");
      Operand y = Operand::filled({300, 150}, dtype, 1);
      copy_columns(context, x.tensor(), 11, 140, y.tensor(), 7);
      return joined({&y});
    });
  }
}

TEST(Columns, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Operand x({4, 6}, DType::F32), y({4, 5}, DType::F32), short_y({3, 5}, DType::F32);
  EXPECT_THROW(copy_columns(context, x.tensor(), 4, 3, y.tensor(), 0), InternalError);
  EXPECT_THROW(copy_columns(context, x.tensor(), 0, 3, y.tensor(), 3), InternalError);
  EXPECT_THROW(copy_columns(context, x.tensor(), -1, 3, y.tensor(), 0), InternalError);
  EXPECT_THROW(copy_columns(context, x.tensor(), 0, 3, short_y.tensor(), 0), InternalError);
}

}  // namespace
}  // namespace tessera
