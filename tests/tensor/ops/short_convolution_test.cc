#include "tensor/ops/short_convolution.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/central_difference.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;

struct Case {
  Case(std::vector<int32_t> segment_begin, std::vector<int32_t> segment_rows, int64_t c, int64_t w, DType dtype)
      : begin(std::move(segment_begin)),
        rows(std::move(segment_rows)),
        tokens(begin.back()),
        channels(c),
        width(w),
        x(Operand::random({tokens, c}, dtype, "x")),
        weight(Operand::random({c, w}, dtype, "weight")),
        halo(Operand::random({count(), w - 1, c}, dtype, "halo")),
        dy(Operand::random({tokens, c}, dtype, "dy")),
        y({tokens, c}, dtype),
        dx({tokens, c}, dtype),
        dhalo({count(), w - 1, c}, dtype),
        dweight(Operand::random({c, w}, accumulation_dtype(dtype), "dweight")),
        lists(std::max<int64_t>(1, segment_words(testing::kDevice, tokens))) {}

  int64_t count() const {
    int64_t most = 0;
    for (const int32_t row : rows) most = std::max<int64_t>(most, row + 1);
    return most;
  }
  TokenSegments segments(Context& context) {
    TokenSegments s{.begin = begin, .initial = rows};
    send_segments(context, s, {lists.data(), {static_cast<int64_t>(lists.size())}, DType::I32, testing::kDevice});
    return s;
  }
  void forward(Context& context) {
    short_convolution(context, segments(context), x.tensor(), weight.tensor(), halo.tensor(), y.tensor());
  }
  void backward(Context& context) {
    short_convolution_backward(context, segments(context), dy.tensor(), x.tensor(), weight.tensor(), halo.tensor(),
                               dx.tensor(), dhalo.tensor(), dweight.tensor());
  }

  // Element of a token of a segment, its halo, or zero.
  double element(size_t segment, int64_t token, int64_t c) const {
    if (token >= begin[segment]) return x[token * channels + c];
    if (rows[segment] < 0) return 0;
    return halo[(rows[segment] * (width - 1) + token - begin[segment] + width - 1) * channels + c];
  }

  std::vector<int32_t> begin, rows;
  int64_t tokens, channels, width;
  Operand x, weight, halo, dy, y, dx, dhalo, dweight;
  testing::SharedVector<int32_t> lists;
};

const std::vector<int32_t> kBegin = {0, 1, 3, 70, 79};
const std::vector<int32_t> kRows = {-1, 0, 2, 1};

int64_t workspace(const Case& c, int threads = 2) {
  return short_convolution_backward_workspace({testing::kDevice, threads}, c.channels, c.width, c.x.dtype());
}

TEST(ShortConvolution, MatchesTheFormula) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t width : {1, 2, 4, 8}) {
      for (const int64_t channels : {1, 64, 130}) {
        Case c(kBegin, kRows, channels, width, dtype);
        Context context(testing::on_device({.threads = 2}));
        c.forward(context);
        for (size_t s = 0; s < kRows.size(); ++s) {
          for (int64_t i = kBegin[s] * channels; i < kBegin[s + 1] * channels; ++i) {
            const int64_t token = i / channels, channel = i % channels;
            double p = 0, magnitude = 0;
            for (int64_t j = 0; j < width; ++j) {
              const double term = c.weight[channel * width + j] * c.element(s, token - (width - 1) + j, channel);
              p += term;
              magnitude += std::abs(term);
            }
            // silu' is at most 1.1, so p's error comes through by that.
            ASSERT_NEAR(c.y[i], p / (1 + std::exp(-p)),
                        testing::tolerance(dtype, static_cast<double>(width) + 12 + 2 * std::abs(p), 1.1 * magnitude))
                << name(dtype) << " width " << width << " element " << i;
          }
        }
      }
    }
  }
}

TEST(ShortConvolution, GradientsMatchCentralDifferences) {
  for (const int64_t width : {1, 2, 4}) {
    Case c({0, 1, 3, 10, 14}, kRows, 3, width, DType::F64);
    Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
    c.dweight = Operand::filled({3, width}, DType::F64, 0);
    c.forward(context);
    c.backward(context);
    EXPECT_EQ(context.workspace().high_water(), workspace(c));
    const auto loss = [&] {
      c.forward(context);
      return testing::dot(c.y, c.dy);
    };
    testing::expect_gradient(c.x, c.dx, loss, "dx");
    testing::expect_gradient(c.weight, c.dweight, loss, "dweight");
    testing::expect_gradient(c.halo, c.dhalo, loss, "dhalo");
  }
}

Operand converted(const Operand& x, DType dtype) {
  Operand y(x.tensor().shape(), dtype);
  for (int64_t i = 0; i < x.size(); ++i) y.set(i, x[i]);
  return y;
}

TEST(ShortConvolution, LowPrecisionGradientsMatchF64) {
  for (const DType dtype : {DType::F32, DType::BF16}) {
    Case low(kBegin, kRows, 70, 4, dtype), exact(kBegin, kRows, 70, 4, DType::F64);
    for (Operand Case::*x : {&Case::x, &Case::weight, &Case::halo, &Case::dy}) exact.*x = converted(low.*x, DType::F64);
    exact.dweight = converted(low.dweight, DType::F64);
    Context context(testing::on_device({.threads = 2, .workspace_bytes = 4 << 20}));
    low.backward(context);
    exact.backward(context);
    // |dp| <= 1.1 |dy|, dx a sum of four of those times weights of about one, dweight of all tokens.
    const auto expect_near = [&](const Operand& x, const Operand& y, DType stored, double roundings, double magnitude) {
      for (int64_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(x[i], y[i], testing::tolerance(DType::F32, stored, roundings, magnitude)) << i;
    };
    const auto most = [](const Operand& x) {
      double value = 0;
      for (int64_t i = 0; i < x.size(); ++i) value = std::max(value, std::abs(x[i]));
      return value;
    };
    const double p = 4 * most(low.weight) * std::max(most(low.x), most(low.halo));
    // An error of p changes silu' by at most half of it.
    const double gradient = most(low.dy) * (1.1 + p);
    expect_near(low.dx, exact.dx, dtype, 40, 4 * most(low.weight) * gradient);
    expect_near(low.dhalo, exact.dhalo, dtype, 40, 4 * most(low.weight) * gradient);
    expect_near(low.dweight, exact.dweight, DType::F32, 40 + static_cast<double>(low.tokens),
                static_cast<double>(low.tokens) * gradient * std::max(most(low.x), most(low.halo)) + most(low.dweight));
  }
}

// What one segment holds changes no bit of another, nor what comes later of what came before.
TEST(ShortConvolution, SegmentsAndThePastAreIsolated) {
  Case a(kBegin, kRows, 70, 4, DType::BF16), b = a;
  Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(a)}));
  const int64_t changed = 40;
  for (int64_t i = 0; i < 70; ++i) b.x.set(changed * 70 + i, 5);
  for (Case* c : {&a, &b}) {
    c->forward(context);
    c->backward(context);
  }
  for (int64_t i = 0; i < a.y.size(); ++i) {
    const int64_t token = i / 70;
    if (token < changed || token >= 70) {
      ASSERT_EQ(a.y[i], b.y[i]);
    }
    if (token < 3 || token >= 70) {
      ASSERT_EQ(a.dx[i], b.dx[i]);
    }
  }
}

// Two parts of a document, the second with the first's last tokens as its halo, equal the document.
TEST(ShortConvolution, PartsWithHalosEqualTheWhole) {
  Case whole({0, 30}, {-1}, 5, 4, DType::F64), parts({0, 12, 30}, {-1, 0}, 5, 4, DType::F64);
  Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(whole)}));
  for (int64_t i = 0; i < 15; ++i) parts.halo.set(i, whole.x[9 * 5 + i]);
  for (Case* c : {&whole, &parts}) {
    c->forward(context);
    c->backward(context);
  }
  EXPECT_EQ(whole.y.bytes(), parts.y.bytes());
  for (int64_t i = 0; i < 15; ++i) parts.dx.set(9 * 5 + i, parts.dx[9 * 5 + i] + parts.dhalo[i]);
  for (int64_t i = 0; i < whole.dx.size(); ++i) EXPECT_NEAR(whole.dx[i], parts.dx[i], 1e-14);
  for (int64_t i = 0; i < whole.dweight.size(); ++i) EXPECT_NEAR(whole.dweight[i], parts.dweight[i], 1e-13);
}

TEST(ShortConvolution, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 4 << 20, [&](Context& context) {
      Case c(kBegin, kRows, 200, 4, dtype);
      c.forward(context);
      c.backward(context);
      return joined({&c.y, &c.dx, &c.dhalo, &c.dweight});
    });
  }
}

TEST(ShortConvolution, WrongOperandsThrow) {
  Case c(kBegin, kRows, 5, 4, DType::F32);
  Context context(testing::on_device({}));
  TokenSegments segments = c.segments(context);
  EXPECT_THROW(short_convolution(context, segments, c.x.tensor(), c.weight.tensor(), {}, c.y.tensor()), InternalError);
  EXPECT_THROW(short_convolution(context, segments, c.x.tensor(), c.x.tensor(), c.halo.tensor(), c.y.tensor()),
               InternalError);
  const std::vector<int32_t> backwards = {0, 3, 1, 70, 79};
  segments.begin = backwards;
  EXPECT_THROW(short_convolution(context, segments, c.x.tensor(), c.weight.tensor(), c.halo.tensor(), c.y.tensor()),
               InternalError);
}

}  // namespace
}  // namespace tessera
