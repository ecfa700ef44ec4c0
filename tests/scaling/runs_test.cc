#include "scaling/runs.h"

#include <gtest/gtest.h>

#include <functional>

#include "scaling/law/forms.h"
#include "tensor/check.h"

namespace tessera {
namespace {

template <class Exception>
std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

TEST(Runs, ReadsATable) {
  const RunTable table = parse_runs(
      "# a comment\nloss,parameters,tokens,name,unique_tokens,color\n3.5,1e7,2e8,\"a, b\",1e8,red\n3.25,2e7,4e8,c,,\n",
      "points.csv");
  ASSERT_EQ(table.runs.size(), 2u);
  EXPECT_EQ(table.runs[0].name, "a, b");
  EXPECT_EQ(table.runs[0].unique_tokens, 1e8);
  EXPECT_EQ(table.runs[1].sample().unique_tokens, 4e8);
  EXPECT_EQ(table.runs[1].loss, 3.25);
  EXPECT_TRUE(table.left_out.empty());
}

TEST(Runs, AByteOrderMarkIsNoPartOfATable) {
  EXPECT_EQ(parse_runs("\xEF\xBB\xBFparameters,tokens,loss\n1e7,2e8,3.5\n", "points.csv").runs.size(), 1u);
}

TEST(Runs, WhatIsNoTextIsShownEscaped) {
  const std::string message = message_of<DataError>(
      [] { parse_runs(std::string("\x1b[31m\x00\xff", 7) + std::string(1000, 'x'), "points.csv"); });
  for (const char c : message) EXPECT_TRUE(c >= ' ' && c < 127) << message;
  EXPECT_NE(message.find("\\x1b[31m\\x00\\xff"), std::string::npos) << message;
  EXPECT_LT(message.size(), 300u);
}

TEST(Runs, CountedFlopsStandFor6ND) {
  const RunTable table =
      parse_runs("parameters,tokens,loss,flops\n1e7,2e8,3.5,2e16\n1e7,2e8,3.5,\n1e7,2e8,3.5,-1\n", "points.csv");
  ASSERT_EQ(table.runs.size(), 2u);
  EXPECT_EQ(table.runs[0].sample().flops, 2e16);
  EXPECT_DOUBLE_EQ(table.runs[1].sample().flops, 6 * 1e7 * 2e8);
  ASSERT_EQ(table.left_out.size(), 1u);
  expect_has(table.left_out[0], "flops = -1");
}

TEST(Runs, SetsAsideWhatCannotBeFittedByName) {
  const RunTable table = parse_runs(
      "name,parameters,tokens,loss,state\na,1e7,2e8,3.5,\nb,1e7,2e8,nan,\nc,1e7,2e8,3.4,unfinished\nd,1e7,2e8,,\n"
      "e,1e7,2e8,9,diverged\nf,-1,2e8,3,\n,1e7,2e8,inf,\n",
      "points.csv");
  ASSERT_EQ(table.runs.size(), 1u);
  ASSERT_EQ(table.left_out.size(), 6u);
  EXPECT_EQ(table.left_out[0], "b: its loss is not finite: it diverged");
  EXPECT_EQ(table.left_out[1], "c: it did not finish, and its loss is not that of its tokens");
  EXPECT_EQ(table.left_out[2], "d: it did not finish, and its loss is not that of its tokens");
  EXPECT_EQ(table.left_out[3], "e: it diverged");
  EXPECT_EQ(table.left_out[4], "f: parameters = -1 is not a positive number");
  EXPECT_EQ(table.left_out[5].substr(0, 7), "line 8:");
}

TEST(Runs, BrokenTablesAreToldWithTheLine) {
  const auto message = [](const std::string& text) {
    return message_of<DataError>([&] { parse_runs(text, "points.csv"); });
  };
  expect_has(message(""), "points.csv: empty");
  expect_has(message("parameters,loss\n1,2\n"), "points.csv:1: no column 'tokens' among parameters, loss");
  expect_has(message("parameters,tokens,loss\n1,2\n"), "points.csv:2: 2 fields under a header of 3");
  expect_has(message("parameters,tokens,loss\n1,2,three\n"), "points.csv:2: loss = 'three': not a number");
  expect_has(message("parameters,tokens,loss\n1,,3\n"), "points.csv:2: tokens is empty");
  expect_has(message("parameters,tokens,loss\n1e7,2e8,nan\n"), "line 2: its loss is not finite");
  EXPECT_THROW(read_runs("/nowhere/points.csv"), IoError);
}

TEST(Runs, MixedTokenizersAndDataAreTold) {
  RunTable table = parse_runs(
      "parameters,tokens,loss,tokenizer,variant\n1e7,2e8,3.5,gpt2,x\n2e7,2e8,3.4,gpt2,y\n2e7,2e8,3.4,llama,x\n", "p");
  const std::string message = message_of<DataError>([&] { check_one_kind(table); });
  expect_has(message, "2 tokenizers are mixed");
  expect_has(message, "tokenizer gpt2: 2 runs");
  expect_has(message, "--tokenizer NAME");
  expect_has(message_of<UsageError>([&] { keep_only(table, "tokenizer", "bert"); }), "the table has gpt2, llama");
  keep_only(table, "tokenizer", "gpt2");
  EXPECT_EQ(table.runs.size(), 2u);
  check_one_kind(table);
}

TEST(Runs, DesignsThatCannotTellConstantsApartAreTold) {
  const auto form = make_form("chinchilla");
  const auto message = [&](const std::vector<Sample>& samples) {
    return message_of<DataError>([&] { check_design(*form, samples); });
  };
  std::vector<Sample> one_ratio, one_size, one_budget, fine;
  for (int i = 1; i <= 6; ++i) {
    one_ratio.emplace_back(1e7 * i, 2e8 * i, 3);
    one_size.emplace_back(1e7, 2e8 * i, 3);
    one_budget.emplace_back(1e7 * i, 2e8, 3);
    fine.emplace_back(1e7 * i, 2e8 * i * (i % 3 + 1), 3);
  }
  expect_has(message(one_ratio), "all 6 runs have about 20 tokens per parameter");
  expect_has(message(one_ratio), "a power law of compute (--form power) can be fitted");
  expect_has(message(one_size), "all 6 runs have 1e+07 parameters");
  expect_has(message(one_budget), "all 6 runs have 2e+08 tokens");
  expect_has(message({fine[0], fine[0], fine[0], fine[1], fine[2], fine[3]}),
             "4 runs at different sizes and tokens for 5 constants; these can fit gadre or kaplan");
  check_design(*form, fine);
}

}  // namespace
}  // namespace tessera
