#include "parallel/regions.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/support/ranks.h"

namespace tessera {
namespace {

TEST(Regions, GatherAndScatterAreEachOthersBackward) {
  for (int tp : {1, 2, 3, 4}) {
    testing::run_ranks(tp, [&](Comm& comm) {
      const int64_t rows = 5, n = 3;
      const int64_t workspace = gather_workspace(tp, Shape{rows, n}, DType::F64);
      Context context({.workspace_bytes = workspace});
      std::vector<double> x(rows * n), y(tp * rows * n), back(rows * n);
      const auto x_of = [&](int rank, int64_t i) { return static_cast<double>(rank * 7 + i % 5); };
      const auto y_of = [&](int rank, int64_t i) { return static_cast<double>(rank + 1) * (i % 11 - 4); };
      for (int64_t i = 0; i < rows * n; ++i) x[i] = x_of(comm.rank(), i);
      for (int64_t i = 0; i < tp * rows * n; ++i) y[i] = y_of(comm.rank(), i);

      const ArenaScope scope(context.workspace());
      const ConstTensor all = gather_tokens(context, comm, Tensor(std::span<double>(x), Shape{rows, n}));
      ASSERT_EQ(all.shape(), (Shape{tp * rows, n}));
      EXPECT_EQ(context.workspace().used(), workspace);  // exactly what was stated
      for (int r = 0; r < tp; ++r) {
        for (int64_t i = 0; i < rows * n; ++i) EXPECT_EQ(all.as<double>()[r * rows * n + i], x_of(r, i));
      }
      scatter_sum_tokens(context, comm, Tensor(std::span<double>(y), Shape{tp * rows, n}),
                         Tensor(std::span<double>(back), Shape{rows, n}));
      for (int64_t i = 0; i < rows * n; ++i) {
        double sum = 0;
        for (int r = 0; r < tp; ++r) sum += y_of(r, comm.rank() * rows * n + i);
        EXPECT_EQ(back[i], sum);
      }
      // Adjoint: sum over ranks of <gather(x), y> = sum over ranks of <x, scatter(y)>.
      const double forward = std::inner_product(y.begin(), y.end(), all.as<double>(), 0.0);
      const double backward = std::inner_product(x.begin(), x.end(), back.begin(), 0.0);
      EXPECT_EQ(comm.sum(forward), comm.sum(backward));
    });
  }
}

TEST(Regions, GathersInARowBringEachTensorInItsTurn) {
  for (int tp : {1, 2, 3}) {
    for (const Overlap overlap : {Overlap::Off, Overlap::On}) {
      testing::run_ranks(tp, [&](Comm& comm) {
        const int64_t rows = 5, n = 3;
        const int64_t workspace = TokenGathers::workspace(tp, Shape{rows, n}, DType::F64, overlap);
        Context context({.workspace_bytes = workspace});
        constexpr int kTensors = 4;
        std::vector<std::vector<double>> x(kTensors);
        std::vector<ConstTensor> locals;
        for (int k = 0; k < kTensors; ++k) {
          for (int64_t i = 0; i < rows * n; ++i) x[k].push_back(1000 * k + 100 * comm.rank() + static_cast<double>(i));
          locals.push_back(Tensor(std::span<double>(x[k]), Shape{rows, n}));
        }
        const ArenaScope scope(context.workspace());
        TokenGathers all(context, comm, locals, overlap);
        EXPECT_EQ(context.workspace().used(), workspace);  // exactly what was stated
        EXPECT_EQ(comm.traffic().calls_of(Collective::AllGather), tp > 1 && overlap == Overlap::On ? 1 : 0);
        for (int k = 0; k < kTensors; ++k) {
          EXPECT_THROW(all.of(locals[(k + 1) % kTensors]), InternalError);  // out of turn
          const ConstTensor whole = all.of(locals[k]);
          ASSERT_EQ(whole.shape(), (Shape{tp * rows, n}));
          for (int r = 0; r < tp; ++r) {
            for (int64_t i = 0; i < rows * n; ++i)
              ASSERT_EQ(whole.as<double>()[r * rows * n + i], 1000 * k + 100 * r + static_cast<double>(i));
          }
        }
        EXPECT_EQ(comm.traffic().total_bytes(), kTensors * (tp - 1) * rows * n * 8);
      });
    }
  }
}

TEST(Regions, AGroupOfOneMovesNothing) {
  testing::run_ranks(1, [](Comm& comm) {
    Context context({.workspace_bytes = 0});
    std::vector<float> x = {1, 2}, y(2);
    const Tensor view(std::span<float>(x), Shape{2, 1});
    EXPECT_EQ(gather_tokens(context, comm, view).data(), x.data());
    scatter_sum_tokens(context, comm, view, view);
    scatter_sum_tokens(context, comm, view, Tensor(std::span<float>(y), Shape{2, 1}));
    EXPECT_EQ(y, x);
    EXPECT_EQ(comm.traffic().total_bytes(), 0);
  });
}

}  // namespace
}  // namespace tessera
