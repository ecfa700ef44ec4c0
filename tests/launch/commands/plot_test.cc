// tessera plot and fields, through the command line.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "launch/commands/command.h"
#include "tensor/check.h"
#include "tests/launch/commands/command_run.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(PlotCommand, DrawsTheLossesOfARun) {
  const fs::path run = fs::path(::testing::TempDir()) / ("plotted_" + std::to_string(getpid()));
  fs::create_directories(run);
  std::ofstream(run / "metrics.jsonl") << R"({"step":1,"loss":4.5})"
                                       << "\n"
                                       << R"({"step":2,"loss":null})"
                                       << "\n"
                                       << R"({"step":2,"validation_loss":4.2,"dataset":"web"})"
                                       << "\n"
                                       << R"({"step":3,"loss":4.)";  // cut by a crash
  const testing::CommandRun drawn = testing::run_command(add_plot, {"plot", run.string()});
  EXPECT_EQ(drawn.code, 0);
  EXPECT_EQ(drawn.out, (run / "loss.png").string() + "\n");
  EXPECT_EQ(testing::read_whole(run / "loss.png").substr(1, 3), "PNG");
  std::ofstream(run / "metrics.jsonl") << "{\"step\":1}\n";
  EXPECT_THROW(testing::run_command(add_plot, {"plot", run.string()}), DataError) << "no losses";
  EXPECT_THROW(testing::run_command(add_plot, {"plot", (run / "none").string()}), IoError);
  fs::remove_all(run);
}

TEST(FieldsCommand, ListsDefaultsAndRanges) {
  const testing::CommandRun all = testing::run_command(add_fields, {"fields", "--json"});
  EXPECT_EQ(all.code, 0);
  const nlohmann::json layers = {
      {"field", "model.num_hidden_layers"}, {"default", "4"}, {"values", "integer, 1 to 16,384"}};
  const nlohmann::json fields = all.last_line().at("fields");
  EXPECT_NE(std::find(fields.begin(), fields.end(), layers), fields.end()) << all.out;
  const testing::CommandRun optimizer = testing::run_command(add_fields, {"fields", "optimizer"});
  EXPECT_TRUE(optimizer.has("optimizer.beta1")) << optimizer.out;
  EXPECT_FALSE(optimizer.has("model.")) << optimizer.out;
  EXPECT_THROW(testing::run_command(add_fields, {"fields", "modle"}), UsageError);
}

}  // namespace
}  // namespace tessera
