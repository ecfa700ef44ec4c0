#include "data/order/loader.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <new>
#include <set>

#include "data/data.pb.h"
#include "tensor/check.h"
#include "tests/data/shards/shards.h"

namespace {

// Every allocation of this test program is counted, so that load() can be shown to make none.
std::atomic<int64_t> allocations{0};

}  // namespace

// Not inlined, or the compiler sees malloc behind new and free behind delete and takes them for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace tessera {
namespace {

using namespace testing_data;

constexpr int64_t kLength = 8;

// Every token says which source and which place of its stream it is: documents of source s hold s * 5000 + place.
class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.set_sequence_length(kLength);
    config_.set_global_batch_size(12);
    config_.set_micro_batch_size(1);
    add("web", 0, 403, 3);
    add("books", 1, 203, 1);
    add("code", 2, 97, 2);
  }

  void add(const std::string& name, int source, int tokens, double weight) {
    testing_data::Documents documents;
    std::mt19937 random(source);
    for (int t = 0; t < tokens;) {
      std::vector<int32_t>& document = documents.emplace_back();
      for (int left = std::min<int>(static_cast<int>(random() % 20), tokens - t - 1); left > 0; --left)
        document.push_back(source * 5000 + t++);
      ++t;  // end-of-text
    }
    for (size_t half = 0; half < 2; ++half) {  // two shards
      const auto middle = documents.begin() + static_cast<std::ptrdiff_t>(documents.size() / 2);
      const testing_data::Documents part = half == 0 ? testing_data::Documents(documents.begin(), middle)
                                                     : testing_data::Documents(middle, documents.end());
      write_shard(dir_ / name + "/" + std::to_string(half) + ".h5", part, kWide);
    }
    DataSource* train = config_.add_train();
    train->set_name(name);
    train->set_path(dir_ / name);
    train->set_weight(weight);
    *config_.add_validation() = *train;
  }

  Loader make(LoaderOptions options) const {
    return Loader(config_, open_sources(config_.train()), std::move(options));
  }

  // The samples of a loaded step: its tokens and targets, sample by sample, by global number.
  static void collect(const Loader& loader, int64_t first, const LoaderOptions& options, int64_t micro,
                      std::map<int64_t, std::vector<int32_t>>& out) {
    for (int m = 0; m < loader.microbatches(); ++m) {
      const Batch& batch = loader.batch(m);
      ASSERT_EQ(batch.slots(), micro * kLength);
      for (int64_t i = 0; i < micro; ++i) {
        std::vector<int32_t> sample;
        for (const auto& array : {batch.tokens, batch.targets, batch.position})
          sample.insert(sample.end(), array.begin() + i * kLength, array.begin() + (i + 1) * kLength);
        const int64_t g = first + (int64_t{m} * options.dp_count + options.dp_rank) * micro + i;
        ASSERT_TRUE(out.emplace(g, sample).second) << "sample " << g << " was given twice";
      }
    }
  }

  std::map<int64_t, std::vector<int32_t>> step(int dp, int64_t micro, int64_t first, Order order = Order::Shuffled,
                                               const DataHistory& history = {}) {
    config_.set_micro_batch_size(micro);
    std::map<int64_t, std::vector<int32_t>> out;
    for (int d = 0; d < dp; ++d) {
      const LoaderOptions options{.seed = 1, .dp_rank = d, .dp_count = dp, .order = order, .history = history};
      Loader loader = make(options);
      loader.load(first);
      collect(loader, first, options, micro, out);
    }
    return out;
  }

  inline static const TokenShardFormat kWide{"0123456789abcdef0123456789abcdef", 20000, 19999};
  TempDirectory dir_;
  DataConfig config_;
};

TEST_F(LoaderTest, AStepHoldsTheSameSamplesHoweverItIsDivided) {
  for (const bool apart : {true, false}) {
    config_.set_reset_positions(apart);
    for (const int64_t first : {0, 12, 300, 12345}) {
      const auto whole = step(1, 12, first);
      ASSERT_EQ(whole.size(), 12u);
      for (const int dp : {1, 2, 3, 4, 6, 12})
        for (const int64_t micro : {1, 2, 3, 4, 6, 12})
          if (12 % (dp * micro) == 0) {
            ASSERT_EQ(step(dp, micro, first), whole) << dp << " " << micro;
          }
    }
  }
}

TEST_F(LoaderTest, ResumingAnywhereGivesTheSameBatches) {
  config_.set_micro_batch_size(3);
  const LoaderOptions options{.seed = 9, .dp_rank = 1, .dp_count = 2};
  Loader through = make(options);
  std::map<int64_t, std::vector<int32_t>> all;
  for (int64_t first = 0; first < 600; first += 12) {
    through.load(first);
    collect(through, first, options, 3, all);
  }
  for (const int64_t first : {588, 0, 240, 252, 12}) {
    Loader resumed = make(options);
    resumed.load(first);
    std::map<int64_t, std::vector<int32_t>> again;
    collect(resumed, first, options, 3, again);
    for (const auto& [g, sample] : again) ASSERT_EQ(sample, all.at(g));
  }
}

// The source and the first place of a sample, from its tokens: the first that is not end-of-text says both.
std::pair<int, int64_t> origin(const std::vector<int32_t>& sample) {
  for (int64_t i = 0; i < kLength; ++i)
    if (sample[i] != 19999) return {sample[i] / 5000, sample[i] % 5000 - i};
  return {-1, -1};
}

TEST_F(LoaderTest, EachEpochOfEachSourceHoldsEverySampleOnce) {
  const std::vector<int64_t> samples = {403 / kLength, 203 / kLength, 97 / kLength};
  std::vector<std::vector<int64_t>> given(3);
  Loader loader = make({});
  EXPECT_EQ(loader.samples(), samples[0] + samples[1] + samples[2]);
  std::map<int64_t, std::vector<int32_t>> all;
  for (int64_t first = 0; first < 480; first += 12) {
    loader.load(first);
    collect(loader, first, {}, 1, all);
  }
  for (const auto& [g, sample] : all) {
    const auto [source, place] = origin(sample);
    ASSERT_GE(source, 0);
    ASSERT_EQ(place % kLength, 0);
    given[source].push_back(place / kLength);
  }
  // Weights 3, 1, 2 of 480 samples; less than one off for each of the two levels of the tree.
  EXPECT_NEAR(std::ssize(given[0]), 240, 1);
  EXPECT_NEAR(std::ssize(given[1]), 80, 1);
  EXPECT_NEAR(std::ssize(given[2]), 160, 1);
  for (int s = 0; s < 3; ++s) {
    ASSERT_GE(std::ssize(given[s]), 2 * samples[s]);
    std::vector<std::vector<int64_t>> epochs;
    for (auto begin = given[s].begin(); given[s].end() - begin >= samples[s]; begin += samples[s]) {
      epochs.emplace_back(begin, begin + samples[s]);
      EXPECT_EQ(std::set<int64_t>(begin, begin + samples[s]).size(), static_cast<size_t>(samples[s]));
    }
    EXPECT_NE(epochs[0], epochs[1]) << "another order each epoch";
    EXPECT_FALSE(std::is_sorted(epochs[0].begin(), epochs[0].end()));
  }
}

TEST_F(LoaderTest, AChangedMixtureRepeatsAndSkipsNothing) {
  const auto sources = shares(open_sources(config_.train()), config_);
  DataHistory history;
  history.change(0, config_.sequence_length(), sources);
  config_.mutable_train(0)->set_weight(0.5);
  config_.mutable_train()->DeleteSubrange(1, 1);  // books go
  history.change(24, config_.sequence_length(), shares(open_sources(config_.train()), config_));
  Loader loader = make({.history = history});
  loader.load(24);
  EXPECT_THROW(loader.load(12), DataError) << "books are not open any more";

  DataSource* books = config_.add_train();
  *books = config_.validation(1);
  history.change(60, config_.sequence_length(), shares(open_sources(config_.train()), config_));
  std::map<int64_t, std::vector<int32_t>> all;
  for (int64_t first = 0; first < 96; first += 12) all.merge(step(1, 12, first, Order::Shuffled, history));
  std::vector<std::set<int64_t>> seen(3);
  std::vector<int64_t> counts(3);
  for (const auto& [g, sample] : all) {
    const auto [source, place] = origin(sample);
    ASSERT_GE(source, 0);
    ++counts[source];
    seen[source].insert(place);
    EXPECT_FALSE(source == 1 && g >= 24 && g < 60);
  }
  // Nothing came twice while the first epoch lasted; code (12 samples) is in a later epoch.
  EXPECT_EQ(seen[0].size(), std::min<size_t>(counts[0], 50));
  EXPECT_EQ(seen[1].size(), std::min<size_t>(counts[1], 25));
  EXPECT_EQ(seen[2].size(), 12u);
  EXPECT_LT(counts[0], 50);
  EXPECT_LT(counts[1], 25);

  DataHistory from_start;
  from_start.change(0, config_.sequence_length(), sources);
  for (int64_t first = 0; first < 24; first += 12)
    for (const auto& [g, sample] : step(1, 12, first, Order::Shuffled, from_start)) EXPECT_EQ(sample, all.at(g));
}

TEST_F(LoaderTest, AnotherLengthGoesOnWithTokensThatTheEpochHasNotGiven) {
  DataHistory history;
  history.change(0, kLength, shares(open_sources(config_.train()), config_));
  std::map<int64_t, std::vector<int32_t>> before;
  for (int64_t first = 0; first < 36; first += 12) before.merge(step(1, 12, first, Order::Shuffled, history));
  std::set<int32_t> seen;
  const auto add = [&](const std::vector<int32_t>& sample, int64_t length) {
    for (int64_t i = 0; i < length; ++i)
      if (sample[i] < 10000) {  // of web and books, which are in their first epoch
        EXPECT_TRUE(seen.insert(sample[i]).second) << sample[i];
      }
  };
  for (const auto& [g, sample] : before) add(sample, kLength);
  config_.set_sequence_length(5);
  history.change(36, 5, shares(open_sources(config_.train()), config_));
  Loader loader = make({.history = history});
  EXPECT_NE(message_of<DataError>([&] { loader.load(0); }).find("samples of 8 tokens, and those at hand have 5"),
            std::string::npos);
  for (int64_t first = 36; first < 60; first += 12) {
    loader.load(first);
    for (int m = 0; m < loader.microbatches(); ++m)
      add({loader.batch(m).tokens.begin(), loader.batch(m).tokens.end()}, 5);
  }
}

TEST_F(LoaderTest, ValidationRunsFromFrontToBackAndThenPads) {
  const std::vector<int64_t> tokens = {403, 203, 97};
  int64_t total = 0;
  for (const int64_t count : tokens) total += (count + kLength - 1) / kLength;
  std::map<int64_t, std::vector<int32_t>> all;
  for (int64_t first = 0; first < total + 24; first += 12) {
    const auto whole = step(1, 12, first, Order::Sequential);
    EXPECT_EQ(step(3, 2, first, Order::Sequential), whole);
    all.insert(whole.begin(), whole.end());
  }
  int64_t g = 0;
  for (size_t s = 0; s < tokens.size(); ++s)
    for (int64_t begin = 0; begin < tokens[s]; begin += kLength, ++g)
      for (int64_t i = 0; i < kLength; ++i) {
        const int32_t token = all.at(g)[i], target = all.at(g)[kLength + i];
        const int64_t place = begin + i;
        if (place >= tokens[s]) {
          ASSERT_EQ(token, 19999);
          ASSERT_EQ(target, -1);
        } else if (token != 19999) {
          ASSERT_EQ(token, static_cast<int64_t>(s) * 5000 + place);
          ASSERT_TRUE(target == token + 1 || target == 19999);
        } else {
          ASSERT_EQ(target, -1);
        }
      }
  ASSERT_EQ(g, total);
  for (; g < std::ssize(all); ++g)
    for (int64_t i = 0; i < kLength; ++i) ASSERT_EQ(all.at(g)[kLength + i], -1) << "nothing but padding";

  config_.set_micro_batch_size(12);
  Loader loader = make({.order = Order::Sequential});
  EXPECT_EQ(loader.samples(), total);
  loader.load(total / 12 * 12 + 12);
  EXPECT_EQ(loader.targets(), 0);
  EXPECT_TRUE(loader.batch(0).segments.empty());
  for (const int32_t document : loader.batch(0).document) EXPECT_EQ(document, -1);
}

TEST_F(LoaderTest, ValidationTakesASourceShorterThanASample) {
  config_.set_sequence_length(1000);
  Loader loader = make({.order = Order::Sequential});
  loader.load(0);
  int64_t ends = 0;
  for (int m = 0; m < 3; ++m) {
    const auto tokens = loader.batch(m).tokens;
    const auto documents = loader.batch(m).document;
    for (size_t i = 0; i < tokens.size(); ++i) ends += documents[i] >= 0 && tokens[i] == 19999;
  }
  EXPECT_EQ(loader.targets(), 403 + 203 + 97 - ends);
}

TEST_F(LoaderTest, CountsItsTargets) {
  config_.set_micro_batch_size(2);
  Loader loader = make({.dp_rank = 1, .dp_count = 3});
  EXPECT_EQ(loader.microbatches(), 2);
  EXPECT_EQ(Loader::bytes(config_, 3), 2 * 2 * kLength * 32);
  for (const int64_t first : {0, 12, 24}) {
    loader.load(first);
    int64_t targets = 0;
    for (int m = 0; m < 2; ++m)
      for (const int32_t target : loader.batch(m).targets) targets += target >= 0;
    EXPECT_EQ(loader.targets(), targets);
  }
}

TEST_F(LoaderTest, LoadAllocatesNothing) {
  for (const Order order : {Order::Shuffled, Order::Sequential}) {
    Loader loader = make({.order = order});
    const int64_t before = allocations;
    for (int64_t first = 0; first < 240; first += 12) loader.load(first);
    EXPECT_EQ(allocations - before, 0);
  }
}

TEST_F(LoaderTest, RefusesBatchesThatDoNotDivide) {
  config_.set_global_batch_size(12);
  config_.set_micro_batch_size(5);
  EXPECT_EQ(
      message_of<UsageError>([&] { microbatches(config_, 2); }),
      "data.global_batch_size = 12 is not divisible by parallel.dp * data.micro_batch_size = 2 * 5; what would fit: "
      "a global batch of 10 or 20, or with dp = 2 a micro batch of 1, 2, 3, 6");
  config_.set_micro_batch_size(2);
  EXPECT_EQ(
      message_of<UsageError>([&] { microbatches(config_, 8); }),
      "data.global_batch_size = 12 is not divisible by parallel.dp * data.micro_batch_size = 8 * 2; what would fit: "
      "a global batch of 16, or dp of 1, 2, 3, 6");
  EXPECT_EQ(microbatches(config_, 3), 2);
  config_.set_micro_batch_size(0);
  EXPECT_THROW(microbatches(config_, 1), UsageError);
  config_.set_micro_batch_size(int64_t{1} << 62);
  EXPECT_THROW(microbatches(config_, 4), UsageError) << "and no overflow";
  config_.set_micro_batch_size(1);
  config_.set_global_batch_size(-12);
  EXPECT_THROW(microbatches(config_, 1), UsageError);
}

TEST_F(LoaderTest, RefusesASourceShorterThanASample) {
  config_.set_sequence_length(98);
  const std::string message = message_of<DataError>([&] { make({}); });
  EXPECT_NE(message.find("\"code\""), std::string::npos) << message;
  EXPECT_NE(message.find("97 tokens"), std::string::npos) << message;
  EXPECT_NE(message.find("sequence_length = 98"), std::string::npos) << message;
  config_.set_sequence_length(97);
  EXPECT_EQ(make({}).samples(), 4 + 2 + 1);
  config_.set_sequence_length(0);
  EXPECT_THROW(make({}), UsageError);
}

TEST_F(LoaderTest, RefusesAHistoryOfOtherData) {
  DataHistory history;
  history.change(0, config_.sequence_length(), shares(open_sources(config_.train()), config_));
  config_.mutable_train()->RemoveLast();
  EXPECT_NE(message_of<DataError>([&] { make({.history = history}); }).find("\"code\", which is not among"),
            std::string::npos);
  config_.clear_train();
  EXPECT_THROW(make({}), UsageError);
}

}  // namespace
}  // namespace tessera
