#include "parallel/schedule/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <optional>
#include <sstream>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::array<std::string_view, kActionKinds> kWords = {"F", "B", "W", "SF", "RF", "SB", "RB", "C",
                                                               "O", "I", "G", "X",  "R",  "N",  "S"};
constexpr const char* kFirstLine = "tessera schedule 1";

std::string_view word(ActionKind kind) { return kWords[static_cast<size_t>(kind)]; }

bool has_stage(ActionKind kind) { return kind < ActionKind::Norm; }

// Only what works block by block may name blocks.
bool has_blocks(ActionKind kind) {
  return is_compute(kind) || kind == ActionKind::Recompute ||
         (kind >= ActionKind::Gather && kind <= ActionKind::Reduce);
}

// One action's text, read from left to right.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::optional<Action> action() {
    const size_t letters =
        std::find_if_not(text_.begin(), text_.end(), [](char c) { return 'A' <= c && c <= 'Z'; }) - text_.begin();
    const auto found = std::find(kWords.begin(), kWords.end(), text_.substr(0, letters));
    if (found == kWords.end()) return {};
    at_ = letters;
    Action action{.kind = static_cast<ActionKind>(found - kWords.begin())};
    const std::optional<int> microbatch = number();
    if (microbatch.has_value() != has_microbatch(action.kind)) return {};
    action.microbatch = microbatch.value_or(-1);
    if (skip('@')) {
      const std::optional<int> stage = number();
      if (!stage || !has_stage(action.kind)) return {};
      action.stage = *stage;
    }
    if (skip(':')) {
      const std::optional<int> first = number();
      if (!first || !skip('-') || !has_blocks(action.kind)) return {};
      action.blocks = {*first, number().value_or(BlockRange::kToEnd)};
      if (action.blocks.first >= action.blocks.last) return {};
    }
    if (at_ != text_.size()) return {};
    return action;
  }

 private:
  bool skip(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::optional<int> number() {
    const size_t begin = at_;
    int value = 0;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      if (at_ - begin == 9) return {};  // the next digit then ends no action
      value = 10 * value + (text_[at_++] - '0');
    }
    if (at_ == begin) return {};
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
};

[[noreturn]] void wrong_line(int line, const std::string& what) {
  throw UsageError(fmt::format("schedule, line {}: {}", line, what));
}

std::vector<int> numbers(std::istringstream& words, int line, const char* what) {
  std::vector<int> found;
  for (std::string each; words >> each;) {
    const bool digits =
        each.size() <= 6 && std::all_of(each.begin(), each.end(), [](unsigned char c) { return std::isdigit(c); });
    if (!digits) wrong_line(line, fmt::format("'{}' is no number of {}", each, what));
    found.push_back(std::stoi(each));
  }
  return found;
}

}  // namespace

std::string to_string(const Action& action) {
  std::string text(word(action.kind));
  if (action.microbatch >= 0) text += std::to_string(action.microbatch);
  if (action.stage != 0) text.append("@").append(std::to_string(action.stage));
  if (!action.blocks.whole()) {
    text.append(":").append(std::to_string(action.blocks.first)).append("-");
    if (action.blocks.last != BlockRange::kToEnd) text += std::to_string(action.blocks.last);
  }
  return text;
}

std::string to_string(const Schedule& schedule) {
  std::string text;
  for (const Action& action : schedule) {
    if (!text.empty()) text += ' ';
    text += to_string(action);
  }
  return text;
}

std::string to_string(const PipelineSchedule& schedule) {
  std::string text = fmt::format("{}\nmicrobatches {}\nplacement {}\n", kFirstLine, schedule.microbatches,
                                 fmt::join(schedule.rank_of_stage, " "));
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    text += fmt::format("rank {}: {}\n", r, to_string(schedule.ranks[r]));
  }
  return text;
}

Schedule parse_schedule(const std::string& text) {
  Schedule schedule;
  std::istringstream words(text);
  for (std::string each; words >> each;) {
    const std::optional<Action> action = Reader(each).action();
    if (!action) {
      throw UsageError(
          fmt::format("schedule: '{}' is no action; actions are F, B, W, SF, RF, SB, RB, C, O, I with a "
                      "microbatch (F0, F0@1 on stage 1, B0@1:2-4 of blocks 2 and 3), G, X, R, N and S",
                      each));
    }
    schedule.push_back(*action);
  }
  return schedule;
}

PipelineSchedule parse_pipeline_schedule(const std::string& text) {
  PipelineSchedule schedule;
  std::istringstream lines(text);
  int number = 0;
  bool headed = false;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    line = line.substr(0, line.find('#'));
    std::istringstream words(line);
    std::string first;
    if (!(words >> first)) continue;
    if (!headed) {
      if (line.substr(0, line.find_last_not_of(" \t\r") + 1) != kFirstLine) {
        wrong_line(number, fmt::format("'{}', but a schedule begins with '{}'", line, kFirstLine));
      }
      headed = true;
    } else if (first == "microbatches") {
      const std::vector<int> found = numbers(words, number, "microbatches");
      if (found.size() != 1 || found[0] < 1) wrong_line(number, "one number of microbatches, 1 or more, belongs here");
      schedule.microbatches = found[0];
    } else if (first == "placement") {
      schedule.rank_of_stage = numbers(words, number, "a rank");
    } else if (first == "rank") {
      std::string index;
      words >> index;
      const std::string wanted = fmt::format("{}:", schedule.ranks.size());
      if (index != wanted) wrong_line(number, fmt::format("'rank {}', but 'rank {}' comes next", index, wanted));
      std::string rest;
      std::getline(words, rest);
      try {
        schedule.ranks.push_back(parse_schedule(rest));
      } catch (const UsageError& error) {
        wrong_line(number, error.what());
      }
    } else {
      wrong_line(number, fmt::format("'{}', but 'microbatches', 'placement' or 'rank' begins a line", first));
    }
  }
  if (!headed) throw UsageError(fmt::format("schedule: it is empty, but begins with '{}'", kFirstLine));
  if (schedule.microbatches == 0) throw UsageError("schedule: the line 'microbatches N' is missing");
  if (schedule.rank_of_stage.empty()) throw UsageError("schedule: the line 'placement RANK ...' is missing");
  for (int s = 0; s < schedule.stages(); ++s) {
    if (schedule.rank_of_stage[s] >= static_cast<int>(schedule.ranks.size())) {
      throw UsageError(fmt::format("schedule: stage {} is placed on rank {}, but there are ranks 0 to {}", s,
                                   schedule.rank_of_stage[s], static_cast<int>(schedule.ranks.size()) - 1));
    }
  }
  return schedule;
}

PipelineSchedule read_schedule_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) throw UsageError(fmt::format("schedule: cannot read '{}'", path));
  try {
    return parse_pipeline_schedule(text.str());
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: {}", path, error.what()));
  }
}

void write_schedule_file(const std::string& path, const PipelineSchedule& schedule) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << to_string(schedule);
  file.close();
  if (!file) throw IoError(fmt::format("schedule: cannot write '{}'", path));
}

std::string grid_with_arrow(const PipelineSchedule& schedule, int rank, const std::vector<size_t>& at) {
  constexpr size_t kWhole = 24, kBefore = 14, kAfter = 8;  // actions
  std::string grid;
  for (int r = 0; r < static_cast<int>(schedule.ranks.size()); ++r) {
    const Schedule& list = schedule.ranks[r];
    const bool cut = list.size() > kWhole;
    const size_t begin = cut && at[r] > kBefore ? at[r] - kBefore : 0;
    const size_t end = cut ? std::min(list.size(), at[r] + kAfter) : list.size();
    std::string line = fmt::format("  rank {}: {}", r, begin > 0 ? "... " : "");
    size_t arrow = line.size();
    for (size_t i = begin; i < end; ++i) {
      if (i == at[r]) arrow = line.size();
      line += to_string(list[i]) + ' ';
    }
    if (at[r] >= list.size()) arrow = line.size();
    if (end < list.size()) line += "...";
    line.resize(line.find_last_not_of(' ') + 1);
    grid.append("\n").append(line);
    if (r == rank) grid.append("\n").append(arrow, ' ').append("^");
  }
  return grid;
}

}  // namespace tessera
