#include "tensor/memory/uploads.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tensor/context/runtime.h"
#include "tests/support/device.h"

namespace tessera {
namespace {

using cuda::Uploads;

std::vector<int32_t> ascending(int64_t count, int32_t first) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

// What is sent arrives, also when the ring has gone round many times since the last wait.
TEST(Uploads, ArriveInOrder) {
  const Context context(testing::on_device({}));
  cuda::Runtime& runtime = context.cuda();
  const int64_t count = 100'000;
  const int64_t rounds = 3 * Uploads::kSegments * Uploads::kSegmentBytes / (count * 4);
  Buffer kept(testing::kDevice, rounds * count * 4);
  int32_t* to = static_cast<int32_t*>(kept.data());
  for (int32_t round = 0; round < rounds; ++round) {
    const std::vector<int32_t> values = ascending(count, round);
    runtime.stream().copy_on_device(to + round * count, runtime.uploads().copy(std::span<const int32_t>(values)),
                                    count * 4);
  }
  std::vector<int32_t> back(rounds * count);
  runtime.stream().copy_to_host(back.data(), to, static_cast<int64_t>(back.size()) * 4);
  context.synchronize();
  for (int32_t round = 0; round < rounds; ++round) {
    ASSERT_EQ(std::vector<int32_t>(back.begin() + round * count, back.begin() + (round + 1) * count),
              ascending(count, round));
  }
}

TEST(Uploads, AnySizeGoesToMemoryOfTheCallers) {
  const Context context(testing::on_device({}));
  const std::vector<int32_t> values = ascending(Uploads::kSegmentBytes / 4 * 2 + 17, 5);
  Buffer device(testing::kDevice, static_cast<int64_t>(values.size()) * 4);
  context.cuda().uploads().copy_to(static_cast<int32_t*>(device.data()), std::span<const int32_t>(values));
  std::vector<int32_t> back(values.size());
  context.cuda().stream().copy_to_host(back.data(), device.data(), device.bytes());
  context.synchronize();
  EXPECT_EQ(back, values);
}

TEST(Uploads, MoreThanASegmentAtOnceIsRefused) {
  const Context context(testing::on_device({}));
  EXPECT_THROW(context.cuda().uploads().take<char>(Uploads::kSegmentBytes + 1), InternalError);
}

TEST(Uploads, ChunksCoverAllValues) {
  const std::vector<int32_t> values = ascending(Uploads::kSegmentBytes / 4 + 3, 0);
  int64_t next = 0;
  cuda::for_chunks<int32_t>(values, [&](int64_t first, std::span<const int32_t> part) {
    EXPECT_EQ(first, next);
    EXPECT_EQ(part[0], static_cast<int32_t>(first));
    EXPECT_LE(2 * static_cast<int64_t>(part.size_bytes()), Uploads::kSegmentBytes);
    next += static_cast<int64_t>(part.size());
  });
  EXPECT_EQ(next, static_cast<int64_t>(values.size()));
}

}  // namespace
}  // namespace tessera
