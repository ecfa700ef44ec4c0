#include "data/order/history.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tensor/check.h"
#include "tests/data/shards/shards.h"

namespace tessera {
namespace {

using namespace testing_data;

SourceShare share(const std::string& name, double weight) { return {name, weight, 100, "id-" + name.substr(0, 1)}; }

std::string name_of(const DataHistory& history, const DataHistory::Place& place) {
  return history.periods()[place.period].sources[place.source].name;
}

TEST(DataHistory, ChangedMixturesRepeatAndSkipNothingInAnySource) {
  std::mt19937 random(1);
  const std::vector<std::string> names = {"web", "books", "code", "a name with spaces"};
  for (int trial = 0; trial < 300; ++trial) {
    DataHistory history;
    int64_t first = 0;
    for (int period = 0; period < 5; ++period) {
      std::vector<SourceShare> sources;
      for (const std::string& name : names)
        if (random() % 3 != 0) sources.push_back(share(name, random() % 100));
      if (sources.empty()) sources.push_back(share("web", 1));
      sources.front().weight += 1;
      std::shuffle(sources.begin(), sources.end(), random);
      history.change(first, 1, sources);
      // A run may stop before it has used the new mixture (the same first sample again), and the text is what is kept.
      history = DataHistory::from_text(history.to_text());
      if (random() % 4 != 0) first += random() % 60;
    }
    std::map<std::string, int64_t> next;
    for (int64_t g = 0; g < first + 50; ++g) {
      const auto place = history.locate(g);
      ASSERT_EQ(place.index, next[name_of(history, place)]++) << "trial " << trial << " sample " << g;
    }
  }
}

TEST(DataHistory, RecordsOnlyChanges) {
  DataHistory history;
  history.change(0, 1, {share("b", 1), share("a", 3)});
  history.change(10, 1, {share("a", 6), share("b", 2)});
  EXPECT_EQ(history.periods().size(), 1u) << "the same shares, in another order and unit";
  history.change(10, 1, {share("a", 1)});
  ASSERT_EQ(history.periods().size(), 2u);
  EXPECT_EQ(history.periods()[1].sources[0].base, 7) << "floor(10 * 3 / 4)";
  EXPECT_EQ(history.periods()[1].sources[1].base, 3);
  EXPECT_EQ(history.periods()[1].sources[1].weight, 0u) << "gone, but not forgotten";
  history.change(10, 1, {share("b", 1)});
  EXPECT_EQ(history.periods().size(), 2u) << "a period that gave nothing is replaced";
  history.change(15, 1, {share("a", 1), share("b", 0)});
  EXPECT_EQ(history.locate(15).index, 7);
  EXPECT_EQ(history.periods()[2].sources[1].base, 8);
  EXPECT_EQ(history, DataHistory::from_text(history.to_text()));
}

TEST(DataHistory, RefusesASourceWhoseDataChanged) {
  DataHistory history;
  history.change(0, 1, {share("a", 1)});
  const std::string message = message_of<DataError>([&] { history.change(5, 1, {{"a", 1, 101, "id-a"}}); });
  EXPECT_NE(message.find("\"a\" had 100 samples"), std::string::npos) << message;
  EXPECT_NE(message.find("101"), std::string::npos) << message;
  EXPECT_THROW(history.change(5, 1, {{"a", 1, 100, "other"}}), DataError);
  history.change(5, 1, {{"a2", 1, 101, "other"}});
  EXPECT_THROW(history.change(6, 1, {share("a2", 1)}), DataError);
  EXPECT_THROW(history.change(6, 1, {{"a", 1, 7, "x"}}), DataError) << "remembered after it was removed";
}

TEST(DataHistory, RefusesBadSources) {
  DataHistory history;
  EXPECT_THROW(history.change(0, 1, {}), UsageError);
  EXPECT_THROW(history.change(0, 1, {share("a", 1), share("a", 2)}), UsageError);
  EXPECT_THROW(history.change(0, 1, {share("", 1)}), UsageError);
  EXPECT_THROW(history.change(0, 1, {share("a\nb", 1)}), UsageError);
  EXPECT_THROW(history.change(0, 1, {share("a", -1)}), UsageError);
  EXPECT_THROW(history.change(0, 1, {share("a", 0)}), UsageError);
  EXPECT_TRUE(history.periods().empty()) << "nothing was recorded";
}

TEST(DataHistory, NamesTheLineOfBadText) {
  const std::string head = "tessera data history 2\n";
  const auto line = [](const std::string& text) {
    return message_of<DataError>([&] { DataHistory::from_text(text); });
  };
  EXPECT_NE(line("").find("empty"), std::string::npos);
  EXPECT_NE(line("tessera data history 3\n").find("line 1"), std::string::npos);
  EXPECT_NE(line(head + "source 1 0 1 x a\n").find("line 2"), std::string::npos) << "before any period";
  EXPECT_NE(line(head + "period x\n").find("line 2"), std::string::npos);
  EXPECT_NE(line(head + "period 0\n").find("line 2"), std::string::npos) << "no length";
  EXPECT_NE(line(head + "period 0 0\n").find("line 2"), std::string::npos);
  EXPECT_NE(line(head + "period 0 2\nsource 1 0 3 x b\n").find("whole samples of 2"), std::string::npos);
  EXPECT_NE(line(head + "period -1 1\n").find("line 2"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 1 0 1 x\n").find("line 3"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 1 0 0 x a\n").find("line 3"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 99999999999999999999 0 1 x a\n").find("line 3"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 1 0 1 x b\nsource 1 0 1 x a\n").find("line 4"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 1 0 1 x b\nperiod 0 1\n").find("line 4"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 1 0 1 x b").find("cut off"), std::string::npos);
  EXPECT_NE(line(head + "period 0 1\nsource 0 0 1 x b\n").find("no source with a weight"), std::string::npos);
  EXPECT_NE(line("tessera data history 1\nperiod 0\nsource 1 0 1 x b\n").find("line 3"), std::string::npos)
      << "version 1 has the length in the identity";
  EXPECT_NE(line(head + "epoch 0\n").find("\"epoch\" is unknown"), std::string::npos);
}

// As a checkpoint of version 1 holds it: counts of samples, and the length in the identity.
TEST(DataHistory, ReadsVersion1) {
  const DataHistory read = DataHistory::from_text(
      "tessera data history 1\n"
      "period 0\nsource 1073741824 0 100 id-a/32 a\nsource 3221225472 0 50 id-b/32 b\n"
      "period 80\nsource 4294967296 20 100 id-a/32 a\nsource 0 60 50 id-b/32 b\n");
  DataHistory written;
  written.change(0, 32, {{"a", 1, 100, "id-a"}, {"b", 3, 50, "id-b"}});
  written.change(80, 32, {{"a", 1, 100, "id-a"}});
  EXPECT_EQ(read, written);
  EXPECT_EQ(read.to_text(),
            "tessera data history 2\n"
            "period 0 32\nsource 1073741824 0 3200 id-a a\nsource 3221225472 0 1600 id-b b\n"
            "period 80 32\nsource 4294967296 640 3200 id-a a\nsource 0 1920 1600 id-b b\n");
  for (int64_t g : {0, 79, 80, 500}) EXPECT_EQ(read.locate(g).index, written.locate(g).index);
}

TEST(DataHistory, AnotherLengthIsAPeriodAndAStretchOfItsOwn) {
  DataHistory history;
  history.change(0, 4, {{"a", 1, 100, "id-a"}, {"b", 1, 30, "id-b"}});
  history.change(20, 4, {{"a", 1, 100, "id-a"}});
  history.change(30, 8, {{"a", 1, 50, "id-a"}, {"b", 1, 15, "id-b"}});
  history.change(40, 4, {{"a", 1, 100, "id-a"}, {"b", 1, 30, "id-b"}});
  history = DataHistory::from_text(history.to_text());
  ASSERT_EQ(history.periods().size(), 4u);
  EXPECT_EQ(history.periods()[3].sources[0].base, 20 * 4 + 5 * 8);
  EXPECT_EQ(history.periods()[3].sources[1].base, 10 * 4 + 5 * 8);
  EXPECT_EQ(history.stretches(3, 0), (std::vector<Stretch>{{4, 20}, {8, 5}, {4, 0}}));
  EXPECT_EQ(history.stretches(3, 1), (std::vector<Stretch>{{4, 10}, {8, 5}, {4, 0}}));
  EXPECT_EQ(history.stretches(1, 1), (std::vector<Stretch>{{4, 10}})) << "paused, and not cut";
  EXPECT_EQ(history.locate(25).index, 15) << "the stretch goes on in the next period";
  EXPECT_EQ(history.locate(30).index, 0);
  EXPECT_EQ(history.periods()[history.locate(39).period].sequence_length, 8);
}

TEST(DataHistory, ALengthThatGaveNothingLeavesNoStretch) {
  DataHistory history;
  history.change(0, 4, {{"a", 1, 100, "id-a"}});
  history.change(20, 8, {{"a", 1, 50, "id-a"}});
  history.change(20, 4, {{"a", 2, 100, "id-a"}});
  EXPECT_EQ(history.stretches(static_cast<int>(history.periods().size()) - 1, 0), (std::vector<Stretch>{{4, 20}}));
  EXPECT_EQ(history.locate(20).index, 20) << "as if the length had never changed";
}

TEST(DataHistory, OtherLengthsOfOtherDataAreRefused) {
  DataHistory history;
  history.change(0, 8, {{"a", 1, 12, "id-a"}});  // 96 to 103 tokens
  EXPECT_THROW(history.change(5, 10, {{"a", 1, 11, "id-a"}}), DataError) << "110 tokens at least";
  EXPECT_THROW(history.change(5, 10, {{"a", 1, 8, "id-a"}}), DataError) << "89 tokens at most";
  EXPECT_THROW(history.change(5, 10, {{"a", 1, 10, "other"}}), DataError);
  EXPECT_NO_THROW(history.change(5, 10, {{"a", 1, 10, "id-a"}}));
}

TEST(DataHistory, KnowsTheShareOfWhatWasGivenOnce) {
  DataHistory history;
  history.change(0, 4, {{"a", 1, 10, "id-a"}});
  EXPECT_EQ(history.unique_share(0), 1);
  EXPECT_EQ(history.unique_share(10), 1);
  EXPECT_EQ(history.unique_share(20), 0.5);
  history.change(20, 8, {{"b", 1, 10, "id-b"}});
  EXPECT_EQ(history.unique_share(30), 120.0 / 160) << "10 samples of 4 tokens came twice";
}

}  // namespace
}  // namespace tessera
