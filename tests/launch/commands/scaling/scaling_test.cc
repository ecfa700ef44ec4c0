// tessera scaling fit, predict, plan and compare, through the command line.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "launch/commands/command.h"
#include "scaling/law/forms.h"
#include "tensor/check.h"
#include "tests/launch/commands/command_run.h"
#include "tests/scaling/ladder.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

const std::vector<double> kValues = {1.69, 406.4, 410.7, 0.34, 0.28};

using Output = testing::CommandRun;

Output run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "scaling");
  return testing::run_command(add_scaling, arguments);
}

std::string file(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "scaling_" + name;
  std::ofstream(path) << text;
  return path;
}

std::string rows_of(const std::vector<double>& values, const std::string& end, double noise, uint64_t seed = 1) {
  const auto form = make_form("chinchilla");
  std::string text;
  for (const Sample& sample : testing::ladder(*form, form->theta(values), {.noise = noise, .seed = seed}))
    text += fmt::format("{:.17g},{:.17g},{:.17g}{}\n", sample.parameters, sample.tokens, sample.loss, end);
  return text;
}

std::string points(double noise) {
  return file(fmt::format("points_{}.csv", noise), "parameters,tokens,loss\n" + rows_of(kValues, "", noise));
}

template <class Exception>
std::string message_of(const std::vector<std::string>& arguments) {
  try {
    run(arguments);
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ScalingCommand, FitsWithTheKeysOfTheContract) {
  for (const char* method : {"huber", "projection"}) {
    const Output output =
        run({"fit", "--csv", points(0), "--form", "chinchilla", "--method", method, "--replicates", "50", "--json"});
    EXPECT_EQ(output.code, 0);
    const auto object = output.last_line();
    const char* names[] = {"E", "A", "B", "alpha", "beta"};
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_NEAR(object.at(names[k]).get<double>() / kValues[k], 1, 1e-5) << names[k];
      EXPECT_EQ(object.at("intervals").at(names[k]).size(), 2u);
    }
    EXPECT_LT(object.at("objective"), 1e-10);
  }
}

TEST(ScalingCommand, FitsNoisyRunsWithIntervalsAndValidation) {
  const Output output = run({"fit", "--csv", points(0.005), "--replicates", "200", "--json"});
  const auto object = output.last_line();
  for (const char* name : {"E", "A", "B", "alpha", "beta"}) {
    EXPECT_LT(object.at("intervals").at(name)[0], object.at(name)) << name;
    EXPECT_GT(object.at("intervals").at(name)[1], object.at(name)) << name;
  }
  EXPECT_EQ(object.at("runs"), 60);
  EXPECT_EQ(object.at("k_fold").at("runs"), 60);
  EXPECT_LT(object.at("leave_largest_out").at("mean_absolute_log_error"), 0.02);
  EXPECT_EQ(object.at("influence").size(), 3u);
  EXPECT_TRUE(output.has("sum of Huber's loss of log loss, delta 0.001")) << output.out;
}

TEST(ScalingCommand, OtherFormsAreFitted) {
  for (const char* form : {"coupled", "kaplan", "gadre", "power"})
    EXPECT_EQ(
        run({"fit", "--csv", points(0.005), "--form", form, "--replicates", "50", "--json"}).last_line().at("form"),
        form);
  // Five ratios of a ladder whose sizes step like its ratios share budgets.
  std::string text = "parameters,tokens,loss\n";
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(kValues);
  for (double flops : {1e18, 1e19, 1e20})
    for (int i = -3; i <= 3; ++i) {
      const double n = std::sqrt(flops / 120) * std::pow(1.5, i), d = flops / (6 * n);
      text += fmt::format("{},{},{}\n", n, d, form->loss(Sample(n, d, 1), theta));
    }
  const Output isoflop = run({"fit", "--csv", file("isoflop.csv", text), "--form", "isoflop", "--json"});
  EXPECT_TRUE(isoflop.has("WARNING: isoFLOP parabolas are biased even on clean data")) << isoflop.out;
  EXPECT_NEAR(isoflop.last_line().at("a"), 0.28 / 0.62, 0.03);
}

TEST(ScalingCommand, PredictsWithIntervalsAndSaysHowFarOut) {
  const Output near = run(
      {"predict", "--csv", points(0.005), "--parameters", "1e9", "--tokens", "2e10", "--replicates", "200", "--json"});
  EXPECT_FALSE(near.has("WARNING")) << near.out;
  const Output far = run(
      {"predict", "--csv", points(0.005), "--parameters", "1e12", "--tokens", "2e13", "--replicates", "200", "--json"});
  EXPECT_TRUE(far.has("WARNING: this lies at")) << far.out;
  const auto width = [](const nlohmann::json& object, const char* key) {
    return (object.at(key)[1].get<double>() - object.at(key)[0].get<double>()) / object.at("loss").get<double>();
  };
  EXPECT_GT(width(far.last_line(), "interval"), width(near.last_line(), "interval"));
  EXPECT_GT(width(near.last_line(), "run_interval"), width(near.last_line(), "interval"));
  EXPECT_NEAR(near.last_line().at("loss"), 1.69 + 406.4 / std::pow(1e9, 0.34) + 410.7 / std::pow(2e10, 0.28), 0.03);
}

TEST(ScalingCommand, PlansABudgetInFlopsOrHours) {
  const Output plan = run({"plan", "--csv", points(0.002), "--flops", "1e24", "--hardware",
                           testing::source_dir() + "/configs/hardware/h100.textproto", "--devices", "1024",
                           "--replicates", "100", "--json"});
  const auto object = plan.last_line();
  EXPECT_NEAR(object.at("parameters").get<double>() * object.at("tokens").get<double>() * 6 / 1e24, 1, 1e-9);
  EXPECT_GT(object.at("extrapolation"), 10);
  EXPECT_TRUE(plan.has("WARNING")) << plan.out;
  EXPECT_NEAR(object.at("time").at("gpu_hours"), 1e24 / (989e12 * 0.4) / 3600, 1);
  EXPECT_EQ(object.at("over_training").size(), 3u);
  EXPECT_LT(object.at("next_run").at("width_left"), 1);
  EXPECT_TRUE(object.at("learning_rate").is_null());
  EXPECT_TRUE(plan.has("learning_rate not planned: no run of the table states it")) << plan.out;
  const Output hours = run({"plan", "--csv", points(0.002), "--gpu-hours", "1000", "--hardware",
                            testing::source_dir() + "/configs/hardware/h100.textproto", "--mfu", "0.5", "--replicates",
                            "100", "--json"});
  EXPECT_NEAR(hours.last_line().at("flops").get<double>() / (1000 * 3600 * 989e12 * 0.5), 1, 1e-12);
}

TEST(ScalingCommand, PlansLearningRatesWhereSizesWereTriedAtSeveral) {
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(kValues);
  std::string text = "parameters,tokens,loss,learning_rate\n";
  for (double n : {1e7, 3e7, 1e8, 3e8})
    for (double ratio : {10.0, 40.0})
      for (int i = -2; i <= 2; ++i) {
        const double d = ratio * n, best = 0.5 * std::pow(n, -0.25) * std::pow(d, -0.05);
        text += fmt::format("{},{},{},{}\n", n, d, form->loss(Sample(n, d, 1), theta) * (1 + 0.002 * i * i),
                            best * std::pow(2.0, i));
      }
  const auto plan =
      run({"plan", "--csv", file("rates.csv", text), "--flops", "1e22", "--replicates", "50", "--json"}).last_line();
  const double n = plan.at("parameters"), d = plan.at("tokens");
  EXPECT_NEAR(plan.at("learning_rate").at("value").get<double>() / (0.5 * std::pow(n, -0.25) * std::pow(d, -0.05)), 1,
              1e-6);
}

TEST(ScalingCommand, ComparesVariants) {
  const std::string csv = file("variants.csv", "parameters,tokens,loss,variant\n" + rows_of(kValues, ",base", 0.001) +
                                                   rows_of({1.69, 380.0, 385.0, 0.34, 0.28}, ",better", 0.001, 2));
  const auto object =
      run({"compare", "--csv", csv, "--variants", "base", "better", "--replicates", "60", "--json"}).last_line();
  EXPECT_GT(object.at("gain_interval")[0], 1);
  EXPECT_NE(message_of<DataError>({"fit", "--csv", csv}).find("2 variants (base, better) are mixed"),
            std::string::npos);
  EXPECT_EQ(run({"fit", "--csv", csv, "--variant", "base", "--replicates", "50", "--json"}).last_line().at("runs"), 60);
}

TEST(ScalingCommand, BadInputIsToldByName) {
  EXPECT_NE(message_of<UsageError>({"fit", "--csv", points(0), "--form", "chincilla"}).find("form chincilla"),
            std::string::npos);
  EXPECT_NE(message_of<UsageError>({"fit", "--csv", points(0), "--form", "kaplan", "--method", "projection"})
                .find("no sum of terms"),
            std::string::npos);
  EXPECT_NE(message_of<UsageError>({"plan", "--csv", points(0)}).find("takes a budget"), std::string::npos);
  EXPECT_NE(message_of<UsageError>({"plan", "--csv", points(0), "--gpu-hours", "5"}).find("--hardware"),
            std::string::npos);
  EXPECT_NE(
      message_of<DataError>({"fit", "--csv", points(0.005), "--form", "muennighoff"}).find("r_D (column unique_tokens"),
      std::string::npos);
  EXPECT_NE(message_of<IoError>({"fit", "--csv", "/nowhere.csv"}).find("/nowhere.csv"), std::string::npos);
  const std::string broken = file("broken.csv", "name,parameters,tokens,loss\nbad,1e7,2e8,nan\ngood,1e7,2e8,3\n");
  EXPECT_NE(
      message_of<DataError>({"fit", "--csv", broken}).find("1 runs at different sizes and tokens for 5 constants"),
      std::string::npos);
}

}  // namespace
}  // namespace tessera
