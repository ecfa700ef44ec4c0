#include "launch/commands/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

std::string printed(const std::function<void()>& work) {
  ::testing::internal::CaptureStdout();
  work();
  std::fflush(stdout);
  return ::testing::internal::GetCapturedStdout();
}

TEST(Table, HeadingsAreTheKeys) {
  Table table({{"name", Column::Align::Left}, {"tokens"}, {"loss"}});
  table.add({"a", 1234567, real(2.5, ".2f")}, {.note = "best", .members = Json::Object{{"path", "x"}}});
  table.add({"longer", 8, real(std::nan(""), ".2f")});
  EXPECT_EQ(printed([&] { table.print(); }),
            "name       tokens  loss\n"
            "a       1,234,567  2.50  best\n"
            "longer          8   nan\n");
  const auto json = nlohmann::json::parse(table.json().text());
  EXPECT_EQ(json[0], (nlohmann::json{{"name", "a"}, {"tokens", 1234567}, {"loss", 2.5}, {"path", "x"}}));
  EXPECT_TRUE(json[1].at("loss").is_null());
}

TEST(Table, PrintsRowsAsTheyCome) {
  EXPECT_EQ(printed([] {
              Table table({{"size", Column::Align::Right, 6}}, Table::Printing::Rows);
              table.add({12});
            }),
            "  size\n    12\n");
  EXPECT_EQ(printed([] {
              Table table({{"size", Column::Align::Right, 6}}, Table::Printing::Silent);
              table.add({12});
              table.print();
            }),
            "");
}

TEST(Facts, AreLinesAndMembers) {
  Facts facts;
  facts.add("mfu", real(0.5, ".3f"), "a share").add("ranks", 2);
  EXPECT_EQ(printed([&] { facts.print(); }), "mfu    0.500  a share\nranks      2\n");
  EXPECT_EQ(facts.json().text(), R"({"mfu":0.5,"ranks":2})");
}

TEST(Json, PrintsWhatItHolds) {
  Json object = Json::Object{{"a", Json::Array{1, true, Json()}}, {"b", "\x01\xff"}};
  EXPECT_EQ(object.set("a", 1e300).text(), "{\"a\":1e+300,\"b\":\"\\u0001\uFFFD\"}");
  EXPECT_EQ(number_in_last_line("words\n{\"a\": 2.5}\n", "a"), 2.5);
}

TEST(Numbers, HaveCommasAndPlurals) {
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(counted(1, "shard"), "1 shard");
  EXPECT_EQ(counted(1000, "shard"), "1,000 shards");
  EXPECT_EQ(counted(2, "entry", "entries"), "2 entries");
}

}  // namespace
}  // namespace tessera
