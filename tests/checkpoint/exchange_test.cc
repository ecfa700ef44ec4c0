#include "checkpoint/exchange.h"

#include <numeric>

#include "tests/checkpoint/layouts.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

void save_in(const std::string& directory, const Layout& layout, uint64_t seed,
             const std::vector<TestTensor>& tensors) {
  run_ranks(layout.ranks(), [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, held_by(tensors, layout, world.rank()));
    rank.fill(seed);
    save(world, storage, rank.state, save_info(directory, 1));
  });
}

// Returns the bytes of shard files that were read, by rank.
std::vector<int64_t> load_in(const std::string& directory, const Layout& layout, uint64_t seed,
                             const std::vector<TestTensor>& tensors) {
  std::vector<int64_t> read(static_cast<size_t>(layout.ranks()));
  run_ranks(layout.ranks(), [&](Comm& world) {
    FaultyStorage storage;
    storage.alter = [&](const std::string& path, int64_t, std::span<std::byte> bytes) {
      if (path.ends_with(".h5")) read[world.rank()] += static_cast<int64_t>(bytes.size());
    };
    RankState rank(tensors, held_by(tensors, layout, world.rank()));
    load(world, storage, directory + "/step-00000001", rank.state);
    EXPECT_EQ(rank.wrong(seed), 0) << "rank " << world.rank();
  });
  return read;
}

int64_t bytes_of(const std::vector<TestTensor>& tensors) {
  int64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.shape.size() * size_of(tensor.dtype);
  return bytes;
}

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {},
      {.tp = 2},
      {.tp = 4},
      {.dp = 2},
      {.dp = 3, .zero = true},
      {.dp = 7, .zero = true},
      {.dp = 2, .tp = 2},
      {.dp = 2, .tp = 3, .zero = true},
      {.pp = 2},
      {.pp = 4},
      {.pp = 2, .tp = 2},
      {.pp = 2, .dp = 2, .zero = true},
      {.cp = 2, .tp = 2},
      {.pp = 2, .dp = 2, .cp = 2, .tp = 2, .zero = true},
  };
  return all;
}

struct Pair {
  Layout saved, loaded;
};

std::string pair_name(const ::testing::TestParamInfo<Pair>& tested) {
  return tested.param.saved.str() + "_" + tested.param.loaded.str();
}

void expect_loads(const Pair& pair) {
  const std::string directory = fresh_directory();
  const auto tensors = transformer_tensors(22);
  save_in(directory, pair.saved, 5, tensors);
  const auto read = load_in(directory, pair.loaded, 5, tensors);
  // Replicas share the reading: nothing is read twice.
  EXPECT_EQ(std::accumulate(read.begin(), read.end(), int64_t{0}), bytes_of(tensors));
  std::filesystem::remove_all(directory);
}

// Each layout once as the one saved and once as the one loaded.
class Layouts : public ::testing::TestWithParam<Pair> {};
TEST_P(Layouts, LoadWhatAnotherSaved) { expect_loads(GetParam()); }

std::vector<Pair> some_pairs() {
  std::vector<Pair> pairs;
  for (size_t i = 0; i < layouts().size(); ++i)
    pairs.push_back({layouts()[i], layouts()[(5 * i + 3) % layouts().size()]});
  return pairs;
}
INSTANTIATE_TEST_SUITE_P(Some, Layouts, ::testing::ValuesIn(some_pairs()), pair_name);

// All pairs: in the full tier.
class AllLayouts : public ::testing::TestWithParam<Pair> {};
TEST_P(AllLayouts, DISABLED_LoadWhatAnotherSaved) { expect_loads(GetParam()); }

std::vector<Pair> all_pairs() {
  std::vector<Pair> pairs;
  for (const Layout& saved : layouts()) {
    for (const Layout& loaded : layouts()) pairs.push_back({saved, loaded});
  }
  return pairs;
}
INSTANTIATE_TEST_SUITE_P(All, AllLayouts, ::testing::ValuesIn(all_pairs()), pair_name);

// Matrices of several blocks, whose boundaries fall within rows and within what ranks hold.
TEST(Exchange, SharesTheReadingOfLargeTensorsEvenly) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"a", {2501, 3001}}, {"b", {1200, 3001}, DType::BF16}};
  save_in(directory, {.dp = 3, .zero = true}, 2, tensors);
  const auto read = load_in(directory, {.dp = 4}, 2, tensors);
  const int64_t bytes = bytes_of(tensors);
  EXPECT_EQ(std::accumulate(read.begin(), read.end(), int64_t{0}), bytes);
  for (const int64_t each : read) EXPECT_LE(each, bytes / 4 + kBlockBytes);
}

// The newest checkpoint has a damaged block that one rank reads and all want.
TEST(Exchange, ABlockThatIsDamagedIsEveryRanksError) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"a", {2501, 3001}}, {"b", {4000}}};
  save_in(directory, {}, 2, tensors);
  const std::string file = directory + "/step-00000001/shard-00000.h5";
  std::string bytes = slurp(file);
  bytes[15000000] ^= 1;
  spill(file, bytes);
  run_ranks(3, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, held_by(tensors, {.dp = 3}, world.rank()));
    const std::string message =
        message_of<CheckpointError>([&] { load(world, storage, directory + "/step-00000001", rank.state); });
    EXPECT_NE(message.find("shard-00000.h5"), std::string::npos) << message;
    EXPECT_NE(message.find("rows [1048, 1398) of a"), std::string::npos) << message;
  });
}

}  // namespace
}  // namespace tessera
