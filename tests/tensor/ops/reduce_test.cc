#include "tensor/ops/reduce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

double squares(const Context& context, const ConstTensor& x) {
  Operand sum({1}, DType::F64);
  sum_of_squares(context, x, sum.tensor());
  return sum[0];
}

TEST(Reduce, SumOfSquaresIsAddedInDouble) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t size : {0, 1, 31, 4096, 4097, 100003}) {
      const Operand x = Operand::random({size}, dtype, "x");
      double exact = 0;
      for (int64_t i = 0; i < size; ++i) exact += x[i] * x[i];
      // Squares of F32 and BF16 are exact in double: what is left is the error of the sum in double.
      EXPECT_NEAR(squares(context, x.tensor()), exact,
                  2 * testing::gamma(static_cast<double>(size + 1), DType::F64) * exact)
          << name(dtype) << " " << size;
    }
  }
}

TEST(Reduce, SumOfSquaresDoesNotOverflowWhereTheElementsDoNot) {
  Context context(testing::on_device({}));
  const Operand x = Operand::filled({2}, DType::F32, 1e30);
  const double square = x[0] * x[0];
  EXPECT_EQ(squares(context, x.tensor()), 2 * square);
}

TEST(Reduce, SumOfSquaresOfMoreBlocksThanAreHeldAtOnce) {
  Context context(testing::on_device({.threads = 2}));
  Operand operand = Operand({int64_t{1536} * 4096}, DType::BF16);
  const Tensor x = operand.tensor();
  std::fill_n(x.as<bf16>(), x.size(), bf16(0));
  for (int64_t i = 0; i < x.size(); i += 4096) x.as<bf16>()[i] = bf16(static_cast<float>(i / 4096 % 8));
  double exact = 0;
  for (int64_t block = 0; block < x.size() / 4096; ++block) exact += static_cast<double>(block % 8 * (block % 8));
  EXPECT_EQ(squares(context, x), exact);  // integers: no rounding
}

TEST(Reduce, PartsAreAddedInTheirOrderAndRoundedOnce) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const DType result : {dtype, accumulation_dtype(dtype)}) {
      for (const int64_t parts : {1, 2, 3, 8}) {
        for (const int64_t size : {1, 8, 1003, 40000}) {
          Operand x = Operand::random({parts * size}, dtype, "x");
          for (int64_t i = 0; i < x.size(); ++i) x.set(i, x[i] * ((i / size) % 2 == 0 ? 1 : -1000));
          const auto expected = [&](int64_t i) {
            double sum = x[i];
            for (int64_t part = 1; part < parts; ++part) {
              sum += x[part * size + i];
              if (dtype != DType::F64) sum = static_cast<float>(sum);
            }
            return result == DType::BF16 ? static_cast<float>(bf16(static_cast<float>(sum))) : sum;
          };
          Operand sum({size}, result);
          sum_parts(context, x.tensor(), sum.tensor());
          for (int64_t i = 0; i < size; ++i) ASSERT_EQ(sum[i], expected(i)) << name(dtype) << " " << parts << " " << i;
          if (result != dtype) continue;
          // In the place of the last part.
          Operand in_place = x;
          sum_parts(context, in_place.tensor(), in_place.tensor().rows((parts - 1) * size, parts * size));
          for (int64_t i = 0; i < size; ++i) ASSERT_EQ(in_place[(parts - 1) * size + i], sum[i]) << name(dtype);
        }
      }
    }
  }
}

TEST(Reduce, AllFiniteFindsEveryNonFiniteElement) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    EXPECT_TRUE(all_finite(context, Operand({0}, dtype).tensor()));
    Operand x = Operand::random({70001}, dtype, "x");
    x.set(5, dtype == DType::F64 ? 1e308 : 3e38);
    EXPECT_TRUE(all_finite(context, x.tensor()));
    for (const int64_t at : {int64_t{0}, int64_t{4095}, int64_t{35000}, x.size() - 1}) {
      for (const double bad :
           {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::nan("")}) {
        const double before = x[at];
        x.set(at, bad);
        EXPECT_FALSE(all_finite(context, x.tensor())) << name(dtype) << " " << bad << " at " << at;
        x.set(at, before);
      }
    }
    EXPECT_TRUE(all_finite(context, x.tensor()));
  }
}

TEST(Reduce, ColumnSumsAccumulate) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    std::vector<std::pair<int64_t, int64_t>> sizes;  // rows, columns
    for (const int64_t columns : {0, 1, 65, 4500}) {
      for (const int64_t rows : {0, 1, 37}) sizes.emplace_back(rows, columns);
    }
    // On a GPU in several parts with rows left over, by packs and one by one; and in one part, the columns being many.
    sizes.insert(sizes.end(), {{1500, 72}, {1500, 65}, {2048, 128}, {600, 17000}});
    for (const auto& [rows, columns] : sizes) {
      const Operand x = Operand::random({rows, columns}, dtype, "x");
      Operand sums = Operand::random({columns}, accumulation_dtype(dtype), "sums");
      const Operand before = sums;
      add_column_sums(context, x.tensor(), sums.tensor());
      std::vector<double> exact(columns), magnitude(columns);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t j = 0; j < columns; ++j) {
          exact[j] += x[row * columns + j];
          magnitude[j] += std::abs(x[row * columns + j]);
        }
      }
      for (int64_t j = 0; j < columns; ++j) {
        const double scale = magnitude[j] + std::abs(before[j]);
        ASSERT_NEAR(sums[j], before[j] + exact[j],
                    testing::tolerance(accumulation_dtype(dtype), static_cast<double>(rows), scale))
            << rows << " x " << columns << " of " << name(dtype);
      }
    }
  }
}

TEST(Reduce, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Operand x = Operand::random({97, 1003}, dtype, "x"), tall = Operand::random({1500, 72}, dtype, "tall");
      Operand sums = Operand::filled({1003}, accumulation_dtype(dtype), 0), square({1}, DType::F64);
      Operand tall_sums = Operand::filled({72}, accumulation_dtype(dtype), 0);
      add_column_sums(context, x.tensor(), sums.tensor());
      add_column_sums(context, tall.tensor(), tall_sums.tensor());
      sum_of_squares(context, x.tensor(), square.tensor());
      Operand parts({x.size()}, dtype);
      sum_parts(context, x.tensor(), parts.tensor());
      return testing::joined({&sums, &tall_sums, &square, &parts});
    });
  }
}

}  // namespace
}  // namespace tessera
