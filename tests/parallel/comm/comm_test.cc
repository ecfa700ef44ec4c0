// Every call of Comm, with integer-valued data whose results are known exactly. Runs over threads and, under mpirun,
// over MPI.
#include "parallel/comm/comm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tensor/check.h"
#include "tensor/interval.h"
#include "tests/support/device.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

using testing::kDevice;
using testing::run_ranks;

constexpr DType kReducible[] = {DType::F64, DType::F32, DType::BF16, DType::I32, DType::U32};
constexpr DType kAll[] = {DType::F64, DType::F32, DType::BF16, DType::I32, DType::U16, DType::U32};

// A tensor that owns its memory and whose elements are read and written as numbers.
class Array {
 public:
  Array(const Shape& shape, DType dtype) : shape_(shape), dtype_(dtype), bytes_(shape.size() * size_of(dtype)) {}

  Tensor tensor() { return {bytes_.data(), shape_, dtype_, kDevice}; }
  int64_t size() const { return shape_.size(); }

  void set(int64_t i, double value) {
    testing::settle();
    visit([&]<class T>(T) {
      T x;
      if constexpr (std::is_same_v<T, bf16>)
        x = bf16(static_cast<float>(value));
      else
        x = static_cast<T>(value);
      std::memcpy(&bytes_[i * sizeof(T)], &x, sizeof(T));
    });
  }
  double get(int64_t i) const {
    testing::settle();
    double value = 0;
    visit([&]<class T>(T) {
      T x;
      std::memcpy(&x, &bytes_[i * sizeof(T)], sizeof(T));
      value = static_cast<double>(x);
    });
    return value;
  }

 private:
  template <class F>
  void visit(F&& f) const {
    switch (dtype_) {
      case DType::F64:
        return f(double{});
      case DType::F32:
        return f(float{});
      case DType::BF16:
        return f(bf16{});
      case DType::I32:
        return f(int32_t{});
      case DType::U16:
        return f(uint16_t{});
      case DType::U32:
        return f(uint32_t{});
      case DType::E4M3:
      case DType::E5M2:
        break;
    }
    throw InternalError("8-bit floats do not travel");
  }

  Shape shape_;
  DType dtype_;
  testing::SharedVector<std::byte> bytes_;
};

// A small whole number that depends on all of its arguments: sums over eight ranks are exact in bf16 (under 256).
double number(int rank, int64_t i) { return static_cast<double>((7 * rank + 3 * i + rank * i) % 31); }

class Ranks : public ::testing::TestWithParam<int> {
 protected:
  int n() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Comm, Ranks, ::testing::Values(1, 2, 3, 4, 5, 7, 8));

TEST_P(Ranks, KnowTheirPlace) {
  run_ranks(n(), [&](Comm& world) {
    EXPECT_EQ(world.size(), n());
    EXPECT_EQ(world.name(), "world");
    EXPECT_EQ(world.sum(int64_t{1} << world.rank()), (int64_t{1} << n()) - 1);
  });
}

TEST_P(Ranks, AllReduceSumAndMax) {
  run_ranks(n(), [&](Comm& world) {
    for (DType dtype : kReducible) {
      // Sizes that divide and do not, none at all, and one beyond every limit for small tensors.
      for (int64_t count : {0, 1, 5, 7, 64, 1000, 50021}) {
        Array sum(Shape{count}, dtype), largest(Shape{count}, dtype);
        for (int64_t i = 0; i < count; ++i) {
          sum.set(i, number(world.rank(), i));
          largest.set(i, number(world.rank(), i));
        }
        world.all_reduce_sum(sum.tensor());
        world.all_reduce_max(largest.tensor());
        for (int64_t i = 0; i < count; ++i) {
          double total = 0, top = 0;
          for (int r = 0; r < n(); ++r) {
            total += number(r, i);
            top = std::max(top, number(r, i));
          }
          ASSERT_EQ(sum.get(i), total) << name(dtype) << " element " << i << " of " << count;
          ASSERT_EQ(largest.get(i), top) << name(dtype) << " element " << i << " of " << count;
        }
      }
    }
  });
}

TEST_P(Ranks, AllGather) {
  run_ranks(n(), [&](Comm& world) {
    for (DType dtype : kAll) {
      for (int64_t rows : {0, 1, 3, 4001}) {
        for (const bool in_place : {false, true}) {
          Array in(Shape{rows, 3}, dtype), out(Shape{n() * rows, 3}, dtype);
          for (int64_t i = 0; i < in.size(); ++i) {
            in.set(i, number(world.rank(), i));
            out.set(world.rank() * in.size() + i, in_place ? number(world.rank(), i) : 99);
          }
          const Tensor own = out.tensor().rows(world.rank() * rows, (world.rank() + 1) * rows);
          world.all_gather(in_place ? own : in.tensor(), out.tensor());
          for (int r = 0; r < n(); ++r) {
            for (int64_t i = 0; i < in.size(); ++i) ASSERT_EQ(out.get(r * in.size() + i), number(r, i)) << name(dtype);
          }
        }
      }
    }
  });
}

TEST_P(Ranks, ReduceScatterSum) {
  run_ranks(n(), [&](Comm& world) {
    for (DType dtype : kReducible) {
      for (int64_t rows : {0, 1, 3, 4001}) {
        for (const bool in_place : {false, true}) {
          Array in(Shape{n() * rows, 3}, dtype), out(Shape{rows, 3}, dtype);
          for (int64_t i = 0; i < in.size(); ++i) in.set(i, number(world.rank(), i));
          const int64_t first = world.rank() * out.size();
          const Tensor own = in.tensor().rows(world.rank() * rows, (world.rank() + 1) * rows);
          world.reduce_scatter_sum(in.tensor(), in_place ? own : out.tensor());
          for (int64_t i = 0; i < out.size(); ++i) {
            double total = 0;
            for (int r = 0; r < n(); ++r) total += number(r, first + i);
            ASSERT_EQ(in_place ? in.get(first + i) : out.get(i), total) << name(dtype) << " element " << i;
          }
          // The input is only read, but for the part that was asked to be overwritten.
          for (int64_t i = 0; i < in.size(); ++i) {
            if (in_place && i >= first && i < first + out.size()) continue;
            ASSERT_EQ(in.get(i), number(world.rank(), i));
          }
        }
      }
    }
  });
}

TEST_P(Ranks, AllToAll) {
  run_ranks(n(), [&](Comm& world) {
    for (DType dtype : kAll) {
      for (int64_t rows : {0, 1, 5, 3001}) {
        Array in(Shape{n() * rows, 2}, dtype), out(Shape{n() * rows, 2}, dtype);
        for (int64_t i = 0; i < in.size(); ++i) in.set(i, number(world.rank(), i));
        world.all_to_all(in.tensor(), out.tensor());
        const int64_t block = rows * 2;
        for (int r = 0; r < n(); ++r) {
          for (int64_t i = 0; i < block; ++i) {
            ASSERT_EQ(out.get(r * block + i), number(r, world.rank() * block + i)) << name(dtype);
          }
        }
      }
    }
  });
}

TEST_P(Ranks, BroadcastFromEveryRoot) {
  run_ranks(n(), [&](Comm& world) {
    for (int root = 0; root < n(); ++root) {
      for (int64_t count : {0, 1, 17, 30011}) {
        Array x(Shape{count}, DType::F32);
        for (int64_t i = 0; i < count; ++i) x.set(i, number(world.rank(), i));
        world.broadcast(x.tensor(), root);
        for (int64_t i = 0; i < count; ++i) ASSERT_EQ(x.get(i), number(root, i));
      }
    }
  });
}

TEST_P(Ranks, NumbersAreSummedInRankOrder) {
  run_ranks(n(), [&](Comm& world) {
    const auto value = [](int r) { return 1.0 / (r + 3) * (r % 2 == 0 ? 1 : -1e10); };
    double expected = value(0);
    for (int r = 1; r < n(); ++r) expected += value(r);
    EXPECT_EQ(world.sum(value(world.rank())), expected);
    EXPECT_EQ(world.max(-static_cast<double>(world.rank())), 0.0);
    const int64_t huge = (int64_t{1} << 58) + world.rank();  // beyond what a double holds
    EXPECT_EQ(world.sum(huge), (int64_t{1} << 58) * n() + n() * (n() - 1) / 2);
    EXPECT_TRUE(std::isnan(world.max(world.rank() == n() / 2 ? NAN : 1.0)));
  });
}

TEST_P(Ranks, MaximumOfNaNIsNaN) {
  run_ranks(n(), [&](Comm& world) {
    for (DType dtype : {DType::F64, DType::F32, DType::BF16}) {
      Array x(Shape{3}, dtype);
      x.set(0, world.rank());
      x.set(1, world.rank() == n() - 1 ? NAN : 5.0);
      x.set(2, world.rank() == 0 ? NAN : -std::numeric_limits<double>::infinity());
      world.all_reduce_max(x.tensor());
      EXPECT_EQ(x.get(0), n() - 1);
      EXPECT_TRUE(std::isnan(x.get(1)));
      EXPECT_TRUE(std::isnan(x.get(2)));
    }
  });
}

TEST_P(Ranks, Bf16SumsAreRoundedOnce) {
  // 256 + 1 + 1 + ...: every addition rounded to bf16 would stay at 256.
  run_ranks(n(), [&](Comm& world) {
    for (int64_t count : {1, 50000}) {
      Array x(Shape{count}, DType::BF16), in(Shape{n() * count}, DType::BF16), out(Shape{count}, DType::BF16);
      for (int64_t i = 0; i < count; ++i) x.set(i, world.rank() == 0 ? 256 : 1);
      for (int64_t i = 0; i < in.size(); ++i) in.set(i, world.rank() == 0 ? 256 : 1);
      world.all_reduce_sum(x.tensor());
      world.reduce_scatter_sum(in.tensor(), out.tensor());
      const auto once = static_cast<double>(bf16(static_cast<float>(256 + n() - 1)));
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(x.get(i), once);
        ASSERT_EQ(out.get(i), once);
      }
    }
  });
}

TEST_P(Ranks, FloatSumsAreAddedInRankOrder) {
  run_ranks(n(), [&](Comm& world) {
    const auto value = [](int r, int64_t i) {
      return std::sin(static_cast<float>(1 + r + 13 * i)) * (r % 2 ? 1e4f : 1.0f);
    };
    for (int64_t count : {3, 70001}) {
      Array x(Shape{count}, DType::F32);
      for (int64_t i = 0; i < count; ++i) x.set(i, value(world.rank(), i));
      world.all_reduce_sum(x.tensor());
      for (int64_t i = 0; i < count; ++i) {
        float total = value(0, i);
        for (int r = 1; r < n(); ++r) total += value(r, i);
        ASSERT_EQ(x.get(i), total);
      }
    }
  });
}

TEST_P(Ranks, IntegersWrapAround) {
  run_ranks(n(), [&](Comm& world) {
    std::vector<int32_t> x = {std::numeric_limits<int32_t>::max(), -1};
    std::vector<uint32_t> u = {0x80000000u};
    world.all_reduce_sum(Tensor(std::span<int32_t>(x), Shape{2}));
    world.all_reduce_sum(Tensor(std::span<uint32_t>(u), Shape{1}));
    EXPECT_EQ(static_cast<uint32_t>(x[0]), static_cast<uint32_t>(n()) * 0x7fffffffu);
    EXPECT_EQ(x[1], -n());
    EXPECT_EQ(u[0], n() % 2 == 0 ? 0u : 0x80000000u);
  });
}

TEST_P(Ranks, SplitIntoGroupsAndAgain) {
  run_ranks(n(), [&](Comm& world) {
    const auto odd_even = world.split(world.rank() % 2, "parity");
    EXPECT_EQ(odd_even->name(), "parity");
    EXPECT_EQ(odd_even->rank(), world.rank() / 2);
    EXPECT_EQ(odd_even->size(), (n() + 1 - world.rank() % 2) / 2);
    int64_t expected = 0;
    for (int r = world.rank() % 2; r < n(); r += 2) expected += r;
    EXPECT_EQ(odd_even->sum(int64_t{world.rank()}), expected);

    const auto pairs = odd_even->split(odd_even->rank() / 2, "pairs");
    EXPECT_EQ(pairs->rank(), odd_even->rank() % 2);
    const auto alone = pairs->split(pairs->rank(), "alone");
    EXPECT_EQ(alone->size(), 1);
    EXPECT_EQ(alone->sum(int64_t{7}), 7);
    Array x(Shape{40000}, DType::F32);
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, world.rank());
    pairs->all_reduce_sum(x.tensor());
    const int first = world.rank() - 2 * pairs->rank();
    EXPECT_EQ(x.get(39999), pairs->size() == 2 ? 2 * first + 2 : first);
  });
}

TEST_P(Ranks, RefuseWhatDoesNotFit) {
  run_ranks(n(), [&](Comm& world) {
    Array a(Shape{2, 3}, DType::F32), b(Shape{2 * n() + 1, 3}, DType::F32), c(Shape{2 * n(), 3}, DType::F64);
    EXPECT_THROW(world.all_gather(a.tensor(), b.tensor()), InternalError);
    EXPECT_THROW(world.all_gather(a.tensor(), c.tensor()), InternalError);
    EXPECT_THROW(world.reduce_scatter_sum(b.tensor(), a.tensor()), InternalError);
    Array whole(Shape{2 * n() + 1}, DType::F32);
    // Overlaps by one element: neither apart nor in place.
    const Tensor all = whole.tensor().rows(0, 2 * n());
    const Tensor off = whole.tensor().rows(2 * world.rank() + 1, 2 * world.rank() + 3);
    EXPECT_THROW(world.all_gather(off, all), InternalError);
    EXPECT_THROW(world.reduce_scatter_sum(all, off), InternalError);
    EXPECT_THROW(world.all_to_all(all, all), InternalError);
    EXPECT_THROW(world.broadcast(a.tensor(), n()), InternalError);
    Array u16(Shape{2}, DType::U16);
    EXPECT_THROW(world.all_reduce_sum(u16.tensor()), InternalError);
    EXPECT_THROW((void)world.send(a.tensor(), n()), InternalError);
    EXPECT_THROW((void)world.receive(a.tensor(), 0, 32768), InternalError);
    world.barrier();
  });
}

TEST_P(Ranks, TrafficFollowsTheFormulas) {
  run_ranks(n(), [&](Comm& world) {
    const int64_t rows = 12, b = n() * rows * 4;
    Array part(Shape{rows}, DType::F32), whole(Shape{n() * rows}, DType::F32), other(Shape{n() * rows}, DType::F32);
    world.all_gather(part.tensor(), whole.tensor());
    world.reduce_scatter_sum(whole.tensor(), part.tensor());
    world.all_to_all(whole.tensor(), other.tensor());
    world.all_reduce_sum(whole.tensor());
    world.broadcast(whole.tensor(), n() - 1);
    world.barrier();
    const Traffic& traffic = world.traffic();
    const int64_t share = b * (n() - 1) / n();
    EXPECT_EQ(traffic.bytes_of(Collective::AllGather), share);
    EXPECT_EQ(traffic.bytes_of(Collective::ReduceScatter), share);
    EXPECT_EQ(traffic.bytes_of(Collective::AllToAll), share);
    EXPECT_EQ(traffic.bytes_of(Collective::AllReduce), 2 * share);
    EXPECT_EQ(traffic.bytes_of(Collective::Broadcast), n() > 1 && world.rank() == n() - 1 ? b : 0);
    EXPECT_EQ(traffic.calls_of(Collective::Barrier), 1);
    EXPECT_EQ(traffic.total_bytes(), 5 * share + traffic.bytes_of(Collective::Broadcast));
  });
}

TEST_P(Ranks, UnevenAllReduceTrafficAddsUp) {
  run_ranks(n(), [&](Comm& world) {
    Array x(Shape{1003}, DType::F64);
    world.all_reduce_sum(x.tensor());
    const int64_t own = world.traffic().bytes_of(Collective::AllReduce);
    const int64_t part = shard({0, 1003}, n(), world.rank()).size();
    EXPECT_EQ(own, n() == 1 ? 0 : 8 * (1003 + (n() - 2) * part));
    EXPECT_EQ(world.sum(own), 2 * 8 * 1003 * (n() - 1));
  });
}

}  // namespace
}  // namespace tessera
