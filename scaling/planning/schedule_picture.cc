#include "scaling/planning/schedule_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera {
namespace {

bool is_drawn(const TimedAction& timed) {
  return timed.end > timed.start && (is_compute(timed.action.kind) || timed.action.kind == ActionKind::Recompute);
}

// By stage: how many of the rank's stages come before it.
std::vector<int> chunks_of(const PipelineSchedule& schedule) {
  std::vector<int> seen(schedule.ranks.size()), chunks;
  for (const int rank : schedule.rank_of_stage) chunks.push_back(seen[rank]++);
  return chunks;
}

char letter(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return 'F';
    case ActionKind::BackwardInput:
      return 'B';
    case ActionKind::BackwardWeight:
      return 'W';
    default:
      return 'C';
  }
}

std::string label(const std::vector<int>& chunks, const Action& action) {
  std::string text = fmt::format("{}{}", letter(action.kind), action.microbatch);
  if (const int c = chunks[action.stage]; c > 0) text += static_cast<char>('a' + c % 26);
  return text;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (char c : text) {
    if (c == '&') {
      safe += "&amp;";
    } else if (c == '<') {
      safe += "&lt;";
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string color(ActionKind kind, int chunk) {
  struct Rgb {
    int r, g, b;
  };
  const Rgb base = kind == ActionKind::Forward          ? Rgb{78, 121, 199}
                   : kind == ActionKind::BackwardInput  ? Rgb{226, 133, 54}
                   : kind == ActionKind::BackwardWeight ? Rgb{87, 163, 92}
                                                        : Rgb{160, 120, 180};
  const double light = std::min(0.6, 0.35 * chunk);
  const auto lighter = [&](int c) { return static_cast<int>(c + (255 - c) * light); };
  return fmt::format("#{:02x}{:02x}{:02x}", lighter(base.r), lighter(base.g), lighter(base.b));
}

const char* words(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return "forward";
    case ActionKind::BackwardInput:
      return "backward: gradients of the inputs";
    case ActionKind::BackwardWeight:
      return "backward: gradients of the weights";
    default:
      return "forward once more (recompute)";
  }
}

// 1, 2 or 5 times a power of ten: so far apart that about `most` ticks fit.
double tick_distance(double span, int most) {
  const double least = span / most, power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}

// A line below the ranks with a tick at round times; unit: pixels of one unit of time.
std::string time_axis(double makespan, double unit, double left, double y) {
  if (!(makespan > 0)) return "";
  std::string svg =
      fmt::format("<path d=\"M{0:.1f} {1:.1f} H{2:.1f}\" stroke=\"#555555\"/>\n", left, y, left + makespan * unit);
  const double distance = tick_distance(makespan, static_cast<int>(std::max(1.0, makespan * unit / 90)));
  for (int tick = 0; tick * distance <= makespan * (1 + 1e-9); ++tick) {
    const double x = left + tick * distance * unit;
    svg += fmt::format(
        "<path d=\"M{0:.1f} {1:.1f} v4\" stroke=\"#555555\"/><text x=\"{0:.1f}\" y=\"{2:.1f}\" "
        "text-anchor=\"middle\" fill=\"#555555\">{3:.6g}</text>\n",
        x, y, y + 15, tick * distance);
  }
  return svg + fmt::format("<text x=\"10\" y=\"{:.1f}\" fill=\"#555555\">time</text>\n", y + 15);
}

}  // namespace

std::string schedule_grid(const PipelineSchedule& schedule, const Simulation& simulation, int columns) {
  const std::vector<int> chunks = chunks_of(schedule);
  // So many characters a unit of time that every label fits, if that is not absurdly many.
  double per_time = 0;
  for (const auto& rank : simulation.ranks) {
    for (const TimedAction& timed : rank) {
      if (!is_drawn(timed)) continue;
      const double needed = static_cast<double>(label(chunks, timed.action).size() + 1) / (timed.end - timed.start);
      per_time = std::max(per_time, needed);
    }
  }
  constexpr double kMostCharacters = 20000;
  if (simulation.makespan > 0) per_time = std::min(per_time, kMostCharacters / simulation.makespan);
  const auto column = [&](double time) { return static_cast<size_t>(std::llround(time * per_time)); };
  std::vector<std::string> lines;
  for (const auto& rank : simulation.ranks) {
    std::string& line = lines.emplace_back(column(simulation.makespan), '.');
    for (const TimedAction& timed : rank) {
      if (!is_drawn(timed)) continue;
      const size_t begin = column(timed.start), end = std::min(column(timed.end), line.size());
      std::string text = label(chunks, timed.action);
      text.resize(end - begin > 0 ? end - begin - 1 : 0, '-');
      line.replace(begin, end - begin, text + (end > begin ? " " : ""));
    }
  }
  const std::string head = fmt::format("rank {}: ", simulation.ranks.size() - 1);
  const size_t band = std::max<size_t>(20, columns - head.size());
  std::string grid;
  for (size_t begin = 0; begin < lines[0].size(); begin += band) {
    if (begin > 0) grid += '\n';
    for (size_t r = 0; r < lines.size(); ++r) {
      grid += fmt::format("{:<{}}{}\n", fmt::format("rank {}:", r), head.size(), lines[r].substr(begin, band));
    }
  }
  return grid;
}

std::string schedule_svg(const PipelineSchedule& schedule, const Simulation& simulation, const std::string& title) {
  const std::vector<int> chunk_of_stage = chunks_of(schedule);
  constexpr double kLeft = 70, kTop = 44, kRow = 26, kBox = 22, kWidth = 1400;
  double shortest = std::numeric_limits<double>::infinity();
  for (const auto& rank : simulation.ranks) {
    for (const TimedAction& timed : rank) {
      if (is_drawn(timed)) shortest = std::min(shortest, timed.end - timed.start);
    }
  }
  // Wide enough for the labels, up to ten screens.
  const double unit = simulation.makespan > 0
                          ? std::clamp(18 / shortest, kWidth / simulation.makespan, 10 * kWidth / simulation.makespan)
                          : 1;
  const double width = std::max(kLeft + simulation.makespan * unit + 40, 1000.0);  // the legend below too
  const double height = kTop + kRow * static_cast<double>(simulation.ranks.size()) + 64;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"10\" y=\"20\" font-size=\"14\">{2}</text>\n",
      width, height, escaped(title));
  for (size_t r = 0; r < simulation.ranks.size(); ++r) {
    const double y = kTop + kRow * static_cast<double>(r);
    svg += fmt::format("<text x=\"10\" y=\"{:.1f}\">rank {}</text>\n", y + 15, r);
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"#eeeeee\"/>\n", kLeft,
                       y, simulation.makespan * unit, kBox);
    for (const TimedAction& timed : simulation.ranks[r]) {
      if (!is_drawn(timed)) continue;
      const double x = kLeft + timed.start * unit, wide = (timed.end - timed.start) * unit;
      svg += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\" stroke=\"white\" "
          "stroke-width=\"0.6\"><title>{} of stage {}, microbatch {}: {:.6g} to {:.6g}</title></rect>\n",
          x, y, wide, kBox, color(timed.action.kind, chunk_of_stage[timed.action.stage]), name(timed.action.kind),
          timed.action.stage, timed.action.microbatch, timed.start, timed.end);
      if (wide >= 12) {
        svg += fmt::format("<text x=\"{:.2f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"#111111\">{}</text>\n",
                           x + wide / 2, y + 15, timed.action.microbatch);
      }
    }
  }
  svg += time_axis(simulation.makespan, unit, kLeft, kTop + kRow * static_cast<double>(simulation.ranks.size()) + 2);
  const double below = height - 14;
  double x = kLeft;
  const int chunks = schedule.stages() / static_cast<int>(schedule.ranks.size());
  for (ActionKind kind : {ActionKind::Forward, ActionKind::BackwardInput, ActionKind::BackwardWeight}) {
    for (int c = 0; c < std::min(chunks, 2); ++c) {
      svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"12\" fill=\"{}\"/>\n", x, below - 10,
                         color(kind, c));
      x += 18;
    }
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x, below, words(kind));
    x += 230;
  }
  if (chunks > 1)
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">lighter: a rank's later stages</text>\n", x, below);
  return svg + "</svg>\n";
}

}  // namespace tessera
