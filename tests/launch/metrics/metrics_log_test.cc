#include "launch/metrics/metrics_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tensor/check.h"

namespace tessera {
namespace {

using nlohmann::json;

class MetricsLogTest : public ::testing::Test {
 protected:
  MetricsLogTest() : path_(::testing::TempDir() + "metrics_log_test.jsonl") { std::filesystem::remove(path_); }

  std::string text() const {
    std::ifstream in(path_, std::ios::binary);
    std::ostringstream all;
    all << in.rdbuf();
    return all.str();
  }
  void set_text(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  std::vector<json> lines() const {
    std::vector<json> objects;
    std::istringstream in(text());
    for (std::string line; std::getline(in, line);) objects.push_back(json::parse(line));
    return objects;
  }
  void write_steps(int64_t first, int64_t last, int64_t resumed) const {
    MetricsLog log(path_, resumed);
    for (int64_t step = first; step <= last; ++step) {
      StepMetrics metrics;
      metrics.step = step;
      metrics.loss = 10.0 / static_cast<double>(step);
      log.write(metrics);
    }
  }

  std::string path_;
};

TEST_F(MetricsLogTest, AStepsLineHoldsEveryValueExactly) {
  Traffic tp;
  tp.add(Collective::AllGather, 4096);
  tp.add(Collective::ReduceScatter, 2048);
  tp.seconds = 0.03;
  const StepMetrics m{.step = 7,
                      .tokens = 57344,
                      .loss = 4.123456789012345,
                      .grad_norm = 0.1,
                      .learning_rate = 2.9999999999999997e-4,
                      .step_seconds = 0.25,
                      .tokens_per_second = 32768,
                      .mfu = 0.61,
                      .attention_pairs = int64_t{3} << 40,
                      .gradient_square = 0.3,
                      .gradient_noise = -0.7,
                      .own = {.compute_seconds = 0.125,
                              .bubble_seconds = 0.0625,
                              .data_seconds = 0.001,
                              .optimizer_seconds = 0.01,
                              .host_seconds = 1e-5,
                              .memory_bytes = 4e10},
                      .mean = {.host_seconds = 0.5},
                      .worst = {.compute_seconds = 0.25, .memory_bytes = 0x1p36},
                      .traffic = {{"tp", tp}, {"world", {}}}};
  MetricsLog(path_, MetricsLog::kFresh).write(m);
  ASSERT_EQ(lines().size(), 1u);
  const json line = lines()[0];
  EXPECT_EQ(line.size(), 22u);
  EXPECT_EQ(line["attention_pairs"], m.attention_pairs);
  EXPECT_EQ(line["gradient_square"], m.gradient_square);
  EXPECT_EQ(line["gradient_noise"], m.gradient_noise);
  EXPECT_EQ(line["step"], m.step);
  EXPECT_EQ(line["tokens"], m.tokens);
  EXPECT_EQ(line["loss"].get<double>(), m.loss);
  EXPECT_EQ(line["grad_norm"].get<double>(), m.grad_norm);
  EXPECT_EQ(line["learning_rate"].get<double>(), m.learning_rate);
  EXPECT_EQ(line["step_seconds"].get<double>(), m.step_seconds);
  EXPECT_EQ(line["tokens_per_second"].get<double>(), m.tokens_per_second);
  EXPECT_EQ(line["mfu"].get<double>(), m.mfu);
  EXPECT_EQ(line["memory_bytes"], int64_t{40000000000});
  EXPECT_EQ(line["worst"]["memory_bytes"], int64_t{1} << 36);
  EXPECT_EQ(line["worst"]["compute_seconds"].get<double>(), 0.25);
  EXPECT_EQ(line["worst"].size(), 7u);
  EXPECT_EQ(line["mean"]["host_seconds"].get<double>(), 0.5);
  EXPECT_EQ(line["compute_seconds"].get<double>(), m.own.compute_seconds);
  EXPECT_EQ(line["bubble_seconds"].get<double>(), m.own.bubble_seconds);
  EXPECT_EQ(line["data_seconds"].get<double>(), m.own.data_seconds);
  EXPECT_EQ(line["optimizer_seconds"].get<double>(), m.own.optimizer_seconds);
  EXPECT_EQ(line["host_seconds"].get<double>(), m.own.host_seconds);
  EXPECT_EQ(line["communication"], (json{{"tp", {{"seconds", 0.03}, {"all_gather", 4096}, {"reduce_scatter", 2048}}},
                                         {"world", {{"seconds", 0.0}}}}));
}

TEST_F(MetricsLogTest, AnEvaluationsLineQuotesItsDataset) {
  MetricsLog(path_, MetricsLog::kFresh).write({.step = 20, .validation_loss = 3.5, .dataset = "a \"b\"\n\\ é"});
  EXPECT_EQ(lines(), (std::vector<json>{{{"step", 20}, {"validation_loss", 3.5}, {"dataset", "a \"b\"\n\\ é"}}}));
}

TEST_F(MetricsLogTest, WhatIsNotFiniteIsNull) {
  StepMetrics metrics;
  metrics.loss = std::nan("");
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  MetricsLog(path_, MetricsLog::kFresh).write(metrics);
  EXPECT_TRUE(lines()[0]["loss"].is_null());
  EXPECT_TRUE(lines()[0]["grad_norm"].is_null());
}

TEST_F(MetricsLogTest, ALineIsInTheFileWhenWriteReturns) {
  MetricsLog log(path_, MetricsLog::kFresh);
  log.write(StepMetrics{});
  EXPECT_EQ(lines().size(), 1u);
  log.sync();
}

TEST_F(MetricsLogTest, ResumeDropsLaterStepsAndEvaluations) {
  write_steps(1, 10, MetricsLog::kFresh);
  {
    MetricsLog log(path_, 10);
    log.write(EvaluationMetrics{.step = 6, .validation_loss = 3, .dataset = "v"});
    log.write(EvaluationMetrics{.step = 10, .validation_loss = 2, .dataset = "v"});
    EXPECT_EQ(log.repair().dropped_steps, 0);
  }
  {
    MetricsLog log(path_, 6);
    EXPECT_EQ(log.repair().dropped_steps, 5);  // steps 7 to 10 and the evaluation at 10
    EXPECT_EQ(log.repair().dropped_damaged, 0);
  }
  ASSERT_EQ(lines().size(), 7u);
  write_steps(7, 8, 6);
  std::vector<int64_t> steps;
  for (const json& line : lines()) steps.push_back(line["step"]);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 6, 7, 8}));
}

TEST_F(MetricsLogTest, AResumedRunsFileEqualsAnUninterruptedOne) {
  write_steps(1, 9, MetricsLog::kFresh);
  const std::string uninterrupted = text();
  write_steps(1, 6, MetricsLog::kFresh);
  write_steps(5, 9, 4);
  EXPECT_EQ(text(), uninterrupted);
}

TEST_F(MetricsLogTest, AFreshRunKeepsNothing) {
  set_text("{\"step\":0,\"validation_loss\":8.3,\"dataset\":\"v\"}\n{\"step\":1}\n");
  MetricsLog log(path_, MetricsLog::kFresh);
  EXPECT_EQ(log.repair().dropped_steps, 2);
  EXPECT_EQ(text(), "");
}

TEST_F(MetricsLogTest, ACutLastLineIsDroppedWhereverItWasCut) {
  const std::string good = "{\"step\":1,\"loss\":2}\n";
  const std::string last = "{\"step\":2,\"loss\":1.5}\n";
  for (size_t cut = 1; cut + 1 < last.size(); ++cut) {
    set_text(good + last.substr(0, cut));
    {
      MetricsLog log(path_, 2);
      EXPECT_EQ(log.repair().dropped_damaged, 1) << cut;
      log.write(EvaluationMetrics{.step = 2, .validation_loss = 1, .dataset = "v"});
    }
    EXPECT_EQ(text(), good + "{\"step\":2,\"validation_loss\":1,\"dataset\":\"v\"}\n") << cut;
  }
}

TEST_F(MetricsLogTest, AMissingLastNewlineIsAdded) {
  set_text("{\"step\":1}\n{\"step\":2}");
  { MetricsLog log(path_, 2); }
  EXPECT_EQ(text(), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(MetricsLogTest, BlocksLostInAPowerCutAreDropped) {
  set_text("{\"step\":1}\n" + std::string(100, '\0') + "\n{\"loss\":3}\n[1]\n{\"step\":\"2\"}\n{\"step\":2}\n");
  MetricsLog log(path_, 2);
  EXPECT_EQ(log.repair().dropped_damaged, 4);
  EXPECT_EQ(text(), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(MetricsLogTest, AGoodFileIsLeftAlone) {
  write_steps(1, 3, MetricsLog::kFresh);
  const auto before = std::filesystem::last_write_time(path_);
  { MetricsLog log(path_, 3); }
  EXPECT_EQ(std::filesystem::last_write_time(path_), before);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp"));
}

TEST_F(MetricsLogTest, ALeftoverOfACrashedRepairIsReplaced) {
  set_text("{\"step\":1}\n{\"step\":2}\n");
  std::ofstream(path_ + ".tmp") << "{\"step\":99}\n";
  { MetricsLog log(path_, 1); }
  EXPECT_EQ(text(), "{\"step\":1}\n");
  EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp"));
}

TEST_F(MetricsLogTest, NamesAPathThatCannotBeWritten) {
  try {
    MetricsLog log(::testing::TempDir() + "no/such/directory/metrics.jsonl", 0);
    FAIL() << "no error";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("no/such/directory/metrics.jsonl"), std::string::npos);
    EXPECT_EQ(error.code(), ExitCode::Io);
  }
}

TEST_F(MetricsLogTest, AFullDiskIsAnError) {
  MetricsLog log("/dev/full", 0);
  EXPECT_THROW(log.write(StepMetrics{}), IoError);
}

}  // namespace
}  // namespace tessera
