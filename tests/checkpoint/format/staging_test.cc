#include "checkpoint/format/staging.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

// Blocks of many sizes: 4 MiB ones, short last ones, and small tensors.
const std::vector<TestTensor> kTensors = {
    {"a", {2500000}, DType::F64}, {"b", {77}}, {"c", {1600, 1000}}, {"d", {3}}, {"e", {3000001}}};

struct Rig {
  RankState rank{kTensors, {}, 0};
  std::vector<Piece> pieces;
  std::unique_ptr<ShardLayout> layout;
  Staging staging;

  explicit Rig(HostCopy copy = {}) : staging(std::move(copy)) {
    std::vector<std::vector<Interval>> shares;
    for (const StateSlice& slice : rank.state.slices) shares.push_back({slice.rows});
    pieces = pieces_to_write(rank.state, shares);
    layout = std::make_unique<ShardLayout>(pieces);
  }
  // Takes all blocks; the number of bytes that are not those of `expected`, which never changes.
  int64_t write(const RankState& expected, const std::function<void(size_t)>& before = {}) {
    int64_t wrong = 0;
    for (size_t i = 0; i < layout->blocks().size(); ++i) {
      if (before) before(i);
      const ShardLayout::Block& block = layout->blocks()[i];
      const auto bytes = staging.take();
      const auto* right = static_cast<const std::byte*>(expected.state.slices[block.piece].data.data()) + block.first;
      wrong += static_cast<int64_t>(bytes.size()) != block.bytes || std::memcmp(bytes.data(), right, bytes.size()) != 0;
    }
    staging.done();
    return wrong;
  }
};

// The writer gets what the state was at the hand-over, however early or late that comes and however small the ring is.
TEST(Staging, WhatIsWrittenIsWhatTheStateWas) {
  RankState expected(kTensors, {}, 0);
  expected.fill(1);
  for (const int64_t ring : {2 * kBlockBytes, 3 * kBlockBytes + 12345, int64_t{1} << 30}) {
    for (const size_t blocks_before : {0, 1, 4, 9, 1000}) {
      Rig rig;
      rig.staging.reserve(ring, *rig.layout);
      rig.rank.fill(1);
      rig.staging.begin(*rig.layout, rig.pieces);
      std::atomic<size_t> reached = 0;
      int64_t wrong = -1;
      std::thread writer([&] {
        wrong = rig.write(expected, [&](size_t block) {
          reached = block;
          reached.notify_all();
        });
      });
      const size_t wait_for = std::min(blocks_before, rig.layout->blocks().size() - 1);
      for (size_t seen = 0; (seen = reached) < wait_for;) reached.wait(seen);
      rig.staging.hand_over();
      rig.rank.fill(2);
      rig.staging.hand_over();  // nothing more
      writer.join();
      EXPECT_EQ(wrong, 0) << ring << " bytes, handed over at block " << blocks_before;
    }
  }
}

TEST(Staging, MemoryIsBounded) {
  Rig rig;
  rig.staging.reserve(3 * kBlockBytes, *rig.layout);
  EXPECT_EQ(rig.staging.bytes(), 3 * kBlockBytes);
  rig.staging.reserve(1, *rig.layout);
  EXPECT_EQ(rig.staging.bytes(), 2 * kBlockBytes);
  rig.staging.reserve(int64_t{1} << 40, *rig.layout);
  EXPECT_EQ(rig.staging.bytes(), rig.layout->piece_bytes() + kBlockBytes) << "no more than the state takes";
  rig.staging.reserve(0, *rig.layout);
  EXPECT_EQ(rig.staging.bytes(), 0);
}

TEST(Staging, AWriterThatFailsHoldsNobodyUp) {
  for (const int64_t ring : {int64_t{0}, 2 * kBlockBytes}) {
    Rig rig;
    rig.staging.reserve(ring, *rig.layout);
    rig.staging.begin(*rig.layout, rig.pieces);
    std::thread writer([&] {
      rig.staging.take();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      rig.staging.done();
    });
    rig.staging.hand_over();
    writer.join();
  }
}

// State on a device passes through the copy that the device supplies, from the writer's thread and from training's.
TEST(Staging, ADeviceSuppliesTheCopy) {
  std::atomic<int> copies = 0;
  Rig rig([&](const ConstTensor& from, int64_t first, std::span<std::byte> host) {
    ++copies;
    std::memcpy(host.data(), static_cast<const std::byte*>(from.data()) + first, host.size());
  });
  rig.rank.fill(1);
  for (Piece& piece : rig.pieces) {
    piece.data = ConstTensor(piece.data.data(), piece.data.shape(), piece.data.dtype(), Device::Cuda);
  }
  RankState expected(kTensors, {}, 0);
  expected.fill(1);
  rig.staging.reserve(4 * kBlockBytes, *rig.layout);
  rig.staging.begin(*rig.layout, rig.pieces);
  int64_t wrong = -1;
  std::thread writer([&] { wrong = rig.write(expected); });
  rig.staging.hand_over();
  rig.rank.fill(2);
  writer.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(copies, static_cast<int>(rig.layout->blocks().size()));
}

}  // namespace
}  // namespace tessera
