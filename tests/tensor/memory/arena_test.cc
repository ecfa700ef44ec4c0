#include "tensor/memory/arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

namespace tessera {
namespace {

TEST(Buffer, IsZeroedPageAlignedAndMovable) {
  Buffer buffer(Device::Cpu, 100000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
  const char* data = static_cast<const char*>(buffer.data());
  for (int i = 0; i < 100000; ++i) ASSERT_EQ(data[i], 0);
  Buffer other = std::move(buffer);
  EXPECT_EQ(other.data(), data);
  EXPECT_EQ(other.bytes(), 100000);
  EXPECT_EQ(buffer.data(), nullptr);  // NOLINT: a moved-from buffer is an empty one
  EXPECT_EQ(Buffer(Device::Cpu, 0).data(), nullptr);
}

TEST(Buffer, RefusalNamesTheSizeAndWhatItIsFor) {
  try {
    Arena arena("weights", Device::Cpu, int64_t{1} << 60);
    FAIL() << "no machine has that much address space";
  } catch (const IoError& error) {
    const std::string begin = "cannot allocate 1152921504606846976 bytes of memory for arena 'weights': ";
    EXPECT_EQ(std::string(error.what()).substr(0, begin.size()), begin) << error.what();
  }
}

TEST(Arena, HandsOutAlignedDisjointTensors) {
  Arena arena("weights", Device::Cpu, 4096);
  const Tensor a = arena.take({3}, DType::F32), b = arena.take({2, 2}, DType::BF16), none = arena.take({0}, DType::F64);
  for (const Tensor& tensor : {a, b, none}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % Arena::kAlignment, 0u);
  }
  EXPECT_EQ(static_cast<char*>(b.data()) - static_cast<char*>(a.data()), Arena::bytes({3}, DType::F32));
  EXPECT_EQ(arena.used(), Arena::bytes({3}, DType::F32) + Arena::bytes({2, 2}, DType::BF16));
}

TEST(Arena, BytesAreWhatTakeUses) {
  for (const int64_t size : {0, 1, 64, 65, 1000}) {
    Arena arena("a", Device::Cpu, 1 << 20);
    arena.take({size}, DType::F32);
    EXPECT_EQ(arena.used(), Arena::bytes({size}, DType::F32));
  }
  EXPECT_EQ(Arena::bytes({0}, DType::F32), 0);
  EXPECT_EQ(Arena::bytes({64}, DType::F32), 256);
  EXPECT_EQ(Arena::bytes({65}, DType::F32), 512);
}

TEST(Arena, IsFullWhenItIsFull) {
  Arena arena("saved activations", Device::Cpu, 512);
  arena.take({64}, DType::F32);
  arena.take({64}, DType::F32);
  try {
    arena.take({1}, DType::F32);
    FAIL() << "it is full";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("saved activations"), std::string::npos) << error.what();
  }
  EXPECT_EQ(arena.used(), 512);
  arena.take({0}, DType::F32);
}

TEST(Arena, ScopesNestAndTheHighWaterMarkStays) {
  Arena arena("workspace", Device::Cpu, 4096);
  {
    const ArenaScope outer(arena);
    void* first = arena.take({64}, DType::F32).data();
    {
      const ArenaScope inner(arena);
      arena.take({256}, DType::F32);
      EXPECT_EQ(arena.used(), 256 + 1024);
    }
    EXPECT_EQ(arena.used(), 256);
    EXPECT_EQ(static_cast<char*>(arena.take({1}, DType::F32).data()), static_cast<char*>(first) + 256);
  }
  EXPECT_EQ(arena.used(), 0);
  EXPECT_EQ(arena.high_water(), 256 + 1024);
}

}  // namespace
}  // namespace tessera
