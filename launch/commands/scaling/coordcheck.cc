// tessera scaling coordcheck: whether settings carry across widths.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/commands/run_arguments.h"
#include "launch/commands/scaling/arguments.h"
#include "launch/config/read.h"
#include "launch/proof/coordinates.h"
#include "launch/run.pb.h"
#include "scaling/plot.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

void draw_coordinates(const Coordinates& found, const std::string& picture) {
  std::vector<Plot> panels;
  for (size_t place = 0; place < found.places.size(); ++place) {
    Plot plot{.title = found.places[place],
              .x_label = "width (hidden_size)",
              .y_label = "change (root mean square)",
              .log_x = true,
              .log_y = true,
              .key = place == 0 ? "bottom right" : "off"};
    for (size_t t = 1; t < found.size.size(); ++t) {
      Series series{.title = fmt::format("step {}", t),
                    .style = Series::Style::LinePoints,
                    .colour = static_cast<int>(t) - 1,
                    .x = {},
                    .y = {}};
      for (size_t w = 0; w < found.widths.size(); ++w) {
        series.x.push_back(static_cast<double>(found.widths[w]));
        series.y.push_back(found.size[t][w][place]);
      }
      plot.series.push_back(std::move(series));
    }
    panels.push_back(std::move(plot));
  }
  const int columns = std::min<int>(3, static_cast<int>(panels.size()));
  const int rows = (static_cast<int>(panels.size()) + columns - 1) / columns;
  draw(panels, picture, columns, 420 * columns, 340 * rows);
}

}  // namespace

int run_scaling_coordcheck(const CoordcheckArguments& arguments) {
  RunConfig config;
  Origins origins;
  read_config(arguments.config, arguments.overrides, config, origins);
  if (!config.model().has_vocab_size()) {
    const int64_t vocabulary = tokenizer_vocabulary(config, Surroundings::Data::NotNeeded);
    if (vocabulary > 0) config.mutable_model()->set_vocab_size(vocabulary);
  }
  const std::set<int64_t> widths(arguments.widths.begin(), arguments.widths.end());
  if (widths.size() < 3 || *widths.begin() < 1)
    throw UsageError(
        fmt::format("--widths {}: at least three different ones are needed", fmt::join(arguments.widths, " ")));
  const Coordinates found = check_coordinates(config, {.widths = {widths.begin(), widths.end()},
                                                       .steps = arguments.steps,
                                                       .seeds = arguments.seeds,
                                                       .threads = usable_cores()});
  const bool maximal = config.model().parametrization() == ModelConfig::MUP;
  fmt::print(
      "{} parametrisation: root mean square of what {} steps changed, by width; slope = d log size / d log width\n",
      maximal ? "maximal update" : "standard", arguments.steps);
  std::vector<Column> columns = {{"place", Column::Align::Left, 12}};
  for (const int64_t width : found.widths) columns.push_back({std::to_string(width), Column::Align::Right, 9});
  columns.push_back({"slope", Column::Align::Right, 7});
  Table table(columns);
  Json rows = Json::Array();  // sizes as a list
  std::vector<std::string> drifting;
  for (size_t place = 0; place < found.places.size(); ++place) {
    const double slope = found.slope(place);
    const bool drifts = !(std::abs(slope) <= arguments.tolerance);
    std::vector<Cell> cells = {found.places[place]};
    std::vector<double> sizes;
    for (const auto& at : found.size.back()) sizes.push_back(at[place]);
    for (const double size : sizes) cells.push_back(real(size, ".4g"));
    cells.push_back(real(slope, "+.3f"));
    table.add(cells, {.note = drifts ? "drifts" : ""});
    if (drifts) drifting.push_back(fmt::format("{} as width^{:.2f}", found.places[place], slope));
    rows.push_back(
        Json::Object{{"place", found.places[place]}, {"sizes", sizes}, {"slope", slope}, {"drifts", drifts}});
  }
  table.print();
  if (!arguments.picture.empty()) {
    draw_coordinates(found, arguments.picture);
    fmt::print("{}\n", arguments.picture);
  }
  if (arguments.as_json)
    print_json(Json::Object{{"parametrization", maximal ? "MUP" : "STANDARD"},
                            {"widths", found.widths},
                            {"steps", arguments.steps},
                            {"tolerance", arguments.tolerance},
                            {"places", rows},
                            {"drifts", !drifting.empty()}});
  if (!drifting.empty()) {
    std::fflush(stdout);
    throw NumericalError(
        fmt::format("activations drift with the width ({}): a learning rate found at one width is not "
                    "the best at another{}",
                    fmt::join(drifting, ", "), maximal ? "" : "; model.parametrization = MUP is made for that"));
  }
  return 0;
}

}  // namespace tessera
