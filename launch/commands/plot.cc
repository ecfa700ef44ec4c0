// tessera plot: a picture of a run's losses.
#include "scaling/plot.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "tensor/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

// Training loss, and the loss of each validation set, by step.
std::vector<Series> loss_curves(const std::string& metrics) {
  std::ifstream file(metrics);
  if (!file) throw IoError(metrics + ": cannot be opened; give the directory of a run that has begun");
  Series training{.title = "training", .style = Series::Style::Line, .colour = 0, .x = {}, .y = {}};
  std::map<std::string, Series> validation;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    if (object.is_discarded() && file.eof()) break;  // a crash may cut the last line
    if (!object.is_object() || !object.contains("step"))
      throw DataError(fmt::format("{}:{}: no line of metrics", metrics, number));
    const auto point = [&](Series& series, const char* key) {
      if (!object[key].is_number()) return;  // null: it was not finite
      series.x.push_back(object["step"].get<double>());
      series.y.push_back(object[key].get<double>());
    };
    if (object.contains("validation_loss")) {
      const std::string name = object.value("dataset", "");
      const auto colour = static_cast<int>(validation.size()) + 1;
      Series& series = validation[name];
      if (series.title.empty())
        series = {
            .title = "validation: " + name, .style = Series::Style::LinePoints, .colour = colour, .x = {}, .y = {}};
      point(series, "validation_loss");
    } else if (object.contains("loss")) {
      point(training, "loss");
    }
  }
  std::vector<Series> curves;
  if (!training.x.empty()) curves.push_back(std::move(training));
  for (auto& [name, series] : validation) {
    if (!series.x.empty()) curves.push_back(std::move(series));
  }
  if (curves.empty()) throw DataError(metrics + ": has no losses yet");
  return curves;
}

int run(const std::string& directory, const std::string& output) {
  const fs::path folder = fs::absolute(directory).lexically_normal();
  const std::string picture = output.empty() ? directory + "/loss.png" : output;
  const std::string name = folder.has_filename() ? folder.filename() : folder.parent_path().filename();
  draw({{.title = name,
         .x_label = "step",
         .y_label = "loss (nats per token)",
         .series = loss_curves(directory + "/metrics.jsonl")}},
       picture);
  fmt::print("{}\n", picture);
  return 0;
}

}  // namespace

void add_plot(Command& program) {
  struct Arguments {
    std::string directory, output;
  };
  const auto arguments = std::make_shared<Arguments>();
  Command command = program.add_command("plot", "Draw the training and validation losses of a run, by gnuplot");
  command.add_option("RUN_DIR", &arguments->directory, "The directory of a run: runs/NAME").required();
  command.add_option("--output", &arguments->output, "The PNG; RUN_DIR/loss.png");
  command.runs([arguments] { return run(arguments->directory, arguments->output); });
}

}  // namespace tessera
