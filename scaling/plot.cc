#include "scaling/plot.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "scaling/process.h"
#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr const char* kPalette[] = {"#08519c", "#d94801", "#238b45", "#6a51a3", "#a50f15",
                                    "#737373", "#3690c0", "#fe9929", "#74c476", "#df65b0"};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + "\"";
}

bool drawable(const Plot& plot, const Series& series, size_t i) {
  const bool ranged = series.style == Series::Style::Band || series.style == Series::Style::ErrorBars;
  const double y = series.style == Series::Style::Band ? series.low[i] : series.y[i];
  if (!std::isfinite(series.x[i]) || !std::isfinite(y)) return false;
  if (ranged && !(std::isfinite(series.low[i]) && std::isfinite(series.high[i]))) return false;
  return (!plot.log_x || series.x[i] > 0) && (!plot.log_y || (y > 0 && (!ranged || series.low[i] > 0)));
}

struct Drawn {
  std::string data, plot;
};

Drawn drawn(const Plot& plot, const Series& series, const std::string& block) {
  Drawn result{"$" + block + " << EOD\n", ""};
  int points = 0;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!drawable(plot, series, i)) continue;
    ++points;
    result.data += fmt::format("{:.9g}", series.x[i]);
    if (series.style != Series::Style::Band) result.data += fmt::format(" {:.9g}", series.y[i]);
    if (!series.low.empty()) result.data += fmt::format(" {:.9g} {:.9g}", series.low[i], series.high[i]);
    result.data += '\n';
  }
  result.data += "EOD\n";
  if (points == 0) return result;
  const std::string colour = fmt::format("lc rgb '{}'", kPalette[series.colour % 10]);
  const char* words = "";
  switch (series.style) {
    case Series::Style::Line:
      words = "with lines lw 2";
      break;
    case Series::Style::Dashed:
      words = "with lines lw 2 dt 2";
      break;
    case Series::Style::Points:
      words = "with points pt 7 ps 0.9";
      break;
    case Series::Style::LinePoints:
      words = "with linespoints lw 2 pt 7 ps 0.8";
      break;
    case Series::Style::Band:
      words = "with filledcurves fs transparent solid 0.2 noborder";
      break;
    case Series::Style::ErrorBars:
      words = "with yerrorbars pt 7 ps 0.9 lw 1.5";
      break;
  }
  result.plot = fmt::format("${} {} {} {}", block, words, colour,
                            series.title.empty() ? "notitle" : "title " + quoted(series.title) + " noenhanced");
  return result;
}

}  // namespace

std::string gnuplot_script(const std::vector<Plot>& panels, const std::string& picture, int columns, int width,
                           int height) {
  const auto rows = static_cast<int>((panels.size() + static_cast<size_t>(columns) - 1) / static_cast<size_t>(columns));
  std::string script = fmt::format(
      "set terminal pngcairo size {},{} font 'sans,11' background '#ffffff'\n"
      "set output {}\n",
      width, height, quoted(picture));
  std::string plots;
  int block = 0;
  for (const Plot& panel : panels) {
    std::string list;
    for (const Series& series : panel.series) {
      const Drawn one = drawn(panel, series, fmt::format("d{}", block++));
      script += one.data;
      if (!one.plot.empty()) list += (list.empty() ? "plot " : ", \\\n  ") + one.plot;
    }
    if (list.empty()) list = "set xrange [0:1]; set yrange [0:1]; plot NaN notitle";
    plots += fmt::format(
        "reset\nset title {} noenhanced\nset xlabel {} noenhanced\nset ylabel {} noenhanced\n"
        "set grid lc rgb '#dddddd' lt 1\nset key {}\n{}{}{}\n",
        quoted(panel.title), quoted(panel.x_label), quoted(panel.y_label),
        panel.key == "off" ? "off" : panel.key + " box lc rgb '#cccccc' opaque",
        !panel.log_x     ? ""
        : panel.powers_x ? "set logscale x\nset format x '10^{%L}'\n"
                         : "set logscale x\nset format x '%.0s%c'\n",
        panel.log_y ? "set logscale y\n" : "", list);
  }
  return script + fmt::format("set multiplot layout {},{}\n", rows, columns) + plots + "unset multiplot\n";
}

void draw(const std::vector<Plot>& panels, const std::string& picture, int columns, int width, int height) {
  const std::string beside = picture + ".tmp", script = picture + ".gnuplot";
  replace_file(script, gnuplot_script(panels, beside, columns, width, height));
  std::string output;
  const int code = run_process({"gnuplot", script}, output);
  std::filesystem::remove(script);
  if (code == 127) throw IoError("gnuplot is not there: install gnuplot-nox (launch/install.sh does)");
  if (code != 0 || !std::filesystem::exists(beside))
    throw IoError(fmt::format("gnuplot could not draw {} (exit code {}) {}", picture, code, output));
  std::filesystem::rename(beside, picture);
}

}  // namespace tessera
