#include "scaling/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
namespace {

Plot plot() {
  return {
      .title = "a \"b\" \\ c",
      .x_label = "x_1",
      .y_label = "y",
      .log_x = true,
      .series = {{.title = "line", .style = Series::Style::Line, .x = {1, 10, 0, 100}, .y = {1, 2, 3, std::nan("")}},
                 {.title = "", .style = Series::Style::Band, .x = {1, 10}, .y = {}, .low = {0, 1}, .high = {2, 3}},
                 {.title = "none", .style = Series::Style::Points, .x = {-1}, .y = {1}}}};
}

TEST(Plot, LeavesOutWhatCannotBeDrawn) {
  const std::string script = gnuplot_script({plot()}, "p.png", 1, 100, 100);
  EXPECT_NE(script.find("$d0 << EOD\n1 1\n10 2\nEOD\n"), std::string::npos) << script;
  EXPECT_NE(script.find("1 0 2\n10 1 3\n"), std::string::npos) << script;
  EXPECT_EQ(script.find("\"none\""), std::string::npos) << "an empty series is not named";
  EXPECT_NE(script.find("set title \"a \\\"b\\\" \\\\ c\" noenhanced"), std::string::npos) << script;
}

TEST(Plot, DrawsAPng) {
  const std::string path = ::testing::TempDir() + "plot_test.png";
  std::filesystem::remove(path);
  try {
    draw({plot(), plot()}, path, 2, 400, 200);
  } catch (const IoError& error) {
    if (std::string(error.what()).find("gnuplot is not there") != std::string::npos) GTEST_SKIP() << error.what();
    throw;
  }
  EXPECT_EQ(read_file(path).substr(1, 3), "PNG");
  EXPECT_THROW(draw({plot()}, "/nowhere/p.png"), IoError);
}

}  // namespace
}  // namespace tessera
