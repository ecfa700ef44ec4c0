// State of a small model over any number of ranks, and a storage in which things go wrong.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/format/names.h"
#include "checkpoint/load.h"
#include "checkpoint/save.h"
#include "checkpoint/sharing.h"
#include "parallel/comm/comm_threads.h"
#include "tests/support/message_of.h"

namespace tessera {

struct TestTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::F32;
};

// Odd sizes, so that shards are uneven; one tensor of fewer rows than ranks.
inline std::vector<TestTensor> small_tensors() {
  return {{"master/blocks.0.attention.qkv", {13, 4}, DType::F32},
          {"master/blocks.0.norm", {3}, DType::F32},
          {"exp_avg/blocks.0.attention.qkv", {13, 4}, DType::F64},
          {"counts", {5, 2, 3}, DType::I32}};
}

// How the rows of every tensor are held: `parts` shards, each on `replicas` ranks; rank = replica * parts + part. Ranks
// beyond parts * replicas hold nothing.
struct Holding {
  int parts = 1;
  int replicas = 1;
};

// A rank's slices and their memory.
struct RankState {
  std::deque<std::vector<std::byte>> memory;
  State state;

  // The slices `held`, of tensors among `tensors`.
  RankState(const std::vector<TestTensor>& tensors, const std::vector<HeldRows>& held) {
    for (const HeldRows& one : held) {
      const auto tensor =
          std::find_if(tensors.begin(), tensors.end(), [&](const TestTensor& t) { return t.name == one.tensor; });
      StateSlice slice;
      slice.name = one.tensor;
      slice.global_shape = tensor->shape;
      slice.rows = one.rows;
      const Shape shape = tensor->shape.with_rows(slice.rows.size());
      memory.emplace_back(shape.size() * size_of(tensor->dtype), std::byte{0});
      slice.data = Tensor(memory.back().data(), shape, tensor->dtype);
      state.slices.push_back(slice);
    }
  }

  RankState(const std::vector<TestTensor>& tensors, const Holding& holding, int rank)
      : RankState(tensors, held_by(tensors, holding, rank)) {}

  static std::vector<HeldRows> held_by(const std::vector<TestTensor>& tensors, const Holding& holding, int rank) {
    std::vector<HeldRows> held;
    if (rank >= holding.parts * holding.replicas) return held;
    for (const TestTensor& tensor : tensors) {
      held.push_back({tensor.name, shard({0, tensor.shape[0]}, holding.parts, rank % holding.parts)});
    }
    return held;
  }

  // Every byte a function of (seed, tensor, global byte).
  void fill(uint64_t seed) {
    for_each_byte(seed, [](std::byte& byte, std::byte value) { byte = value; });
    state.cursors.numbers = {{"samples_seen", static_cast<int64_t>(seed) * 100}, {"stage", -1}};
    state.cursors.texts = {{"history", "stage 0\n\"quoted\" \xc3\xa4\n"}};
  }
  // Number of bytes that are not what fill(seed) writes.
  int64_t wrong(uint64_t seed) {
    int64_t count = 0;
    for_each_byte(seed, [&](std::byte& byte, std::byte value) { count += byte != value; });
    return count;
  }

 private:
  // A cheap bijection without visible pattern (splitmix64's last part): tests fill tens of megabytes.
  static uint64_t scramble(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
  }

  template <class Visit>
  void for_each_byte(uint64_t seed, Visit&& visit) {
    for (StateSlice& slice : state.slices) {
      const uint64_t stream = seed * 0x9e3779b97f4a7c15 + std::hash<std::string>()(slice.name);
      const int64_t first = slice.rows.begin * slice.global_shape.row_size() * size_of(slice.data.dtype());
      auto* bytes = static_cast<std::byte*>(slice.data.data());
      uint64_t word = 0;
      for (int64_t i = 0; i < slice.data.bytes(); ++i) {
        const int64_t global = first + i;
        if (i == 0 || global % 8 == 0) word = scramble(stream + static_cast<uint64_t>(global / 8));
        visit(bytes[i], static_cast<std::byte>(word >> (8 * (global % 8))));
      }
    }
  }
};

inline SaveInfo save_info(const std::string& directory, int64_t step) {
  return {.directory = directory,
          .id = "test",
          .step = step,
          .samples = step * 8,
          .tokens = step * 1024,
          .layout = "pp=1 dp=1 cp=1 tp=1",
          .config = "run {\n  name: \"a\"\n}\n",
          .versions = {{"tessera", "0.1.0"}}};
}

// An empty directory of this test.
inline std::string fresh_directory() {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string name = std::string(test->test_suite_name()) + "." + test->name();
  for (char& c : name) c = c == '/' ? '-' : c;
  const std::string path = ::testing::TempDir() + "tessera_checkpoint/" + name;
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

// Saves fill(seed) of the tensors as step `step` from ranks that are threads.
inline void save_filled(const std::string& directory, int64_t step, uint64_t seed, const Holding& holding,
                        const std::vector<TestTensor>& tensors = small_tensors()) {
  run_ranks(holding.parts * holding.replicas, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, holding, world.rank());
    rank.fill(seed);
    save(world, storage, rank.state, save_info(directory, step));
  });
}

// PosixStorage that calls `before` with what is about to be done, on which path, and lets `alter` change what is read.
// Only for one rank each: not shared between threads unless the functions can be.
class FaultyStorage : public PosixStorage {
 public:
  std::function<void(const std::string& operation, const std::string& path)> before;
  std::function<void(const std::string& path, int64_t offset, std::span<std::byte> bytes)> alter;

  void create_directories(const std::string& path) override {
    tell("create_directories", path);
    PosixStorage::create_directories(path);
  }
  std::unique_ptr<FileWriter> create(const std::string& path, int64_t bytes) override;
  std::unique_ptr<FileReader> open(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override {
    tell("rename", to);
    PosixStorage::rename(from, to);
  }
  void publish(const std::string& from, const std::string& to) override {
    tell("publish", to);
    PosixStorage::publish(from, to);
  }
  void remove_tree(const std::string& path) override {
    tell("remove_tree", path);
    PosixStorage::remove_tree(path);
  }
  int64_t free_bytes(const std::string& directory) override {
    tell("free_bytes", directory);
    return PosixStorage::free_bytes(directory);
  }
  void sync_directory(const std::string& path) override {
    tell("sync_directory", path);
    PosixStorage::sync_directory(path);
  }
  void tell(const std::string& operation, const std::string& path) {
    if (before) before(operation, path);
  }
};

class FaultyWriter : public FileWriter {
 public:
  FaultyWriter(FaultyStorage& storage, std::string path, std::unique_ptr<FileWriter> file)
      : storage_(storage), path_(std::move(path)), file_(std::move(file)) {}
  void append(std::span<const std::byte> bytes) override {
    storage_.tell("append", path_);
    file_->append(bytes);
  }
  void finish() override {
    storage_.tell("finish", path_);
    file_->finish();
  }

 private:
  FaultyStorage& storage_;
  std::string path_;
  std::unique_ptr<FileWriter> file_;
};

class FaultyReader : public FileReader {
 public:
  FaultyReader(FaultyStorage& storage, std::string path, std::unique_ptr<FileReader> file)
      : storage_(storage), path_(std::move(path)), file_(std::move(file)) {}
  int64_t size() const override { return file_->size(); }
  void read(int64_t offset, std::span<std::byte> out) override {
    storage_.tell("read", path_);
    file_->read(offset, out);
    if (storage_.alter) storage_.alter(path_, offset, out);
  }

 private:
  FaultyStorage& storage_;
  std::string path_;
  std::unique_ptr<FileReader> file_;
};

inline std::unique_ptr<FileWriter> FaultyStorage::create(const std::string& path, int64_t bytes) {
  tell("create", path);
  return std::make_unique<FaultyWriter>(*this, path, PosixStorage::create(path, bytes));
}
inline std::unique_ptr<FileReader> FaultyStorage::open(const std::string& path) {
  tell("open", path);
  return std::make_unique<FaultyReader>(*this, path, PosixStorage::open(path));
}

// Bytes of a file, for comparing and changing.
inline std::string slurp(const std::string& path) { return PosixStorage().read_file(path, int64_t{1} << 30); }
inline void spill(const std::string& path, const std::string& bytes) {
  PosixStorage().write_file(path, std::as_bytes(std::span(bytes)));
}

using testing::message_of;

}  // namespace tessera
