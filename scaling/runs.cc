#include "scaling/runs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r"), end = text.find_last_not_of(" \t\r");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"') {
      if (quoted && i + 1 < line.size() && line[i + 1] == '"')
        fields.back() += line[++i];
      else
        quoted = !quoted;
    } else if (line[i] == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += line[i];
    }
  }
  for (std::string& field : fields) field = trimmed(field);
  return fields;
}

const std::map<std::string, std::string Run::*> kWords = {{"name", &Run::name},
                                                          {"variant", &Run::variant},
                                                          {"tokenizer", &Run::tokenizer},
                                                          {"dataset", &Run::dataset},
                                                          {"state", &Run::state}};
const std::map<std::string, double Run::*> kNumbers = {{"parameters", &Run::parameters},
                                                       {"tokens", &Run::tokens},
                                                       {"loss", &Run::loss},
                                                       {"unique_tokens", &Run::unique_tokens},
                                                       {"batch_tokens", &Run::batch_tokens},
                                                       {"learning_rate", &Run::learning_rate},
                                                       {"steps", &Run::steps},
                                                       {"flops", &Run::flops}};

// What a message may show of a file that is no table: control characters and other bytes escaped, and not too much.
std::string printable(const std::string& text) {
  constexpr size_t kMost = 120;
  std::string safe;
  for (const unsigned char c : text.substr(0, kMost)) {
    if (c < 0x20 || c >= 0x7F)
      safe += fmt::format("\\x{:02x}", c);
    else
      safe += static_cast<char>(c);
  }
  return text.size() > kMost ? safe + "..." : safe;
}

double number_of(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == "nan" || lower == "-nan" || lower == "inf" || lower == "+inf") return std::nan("");
  throw DataError(fmt::format("{} = '{}': not a number", where, printable(text)));
}

}  // namespace

Sample Run::sample() const {
  Sample sample(parameters, tokens, loss, unique_tokens);
  if (flops > 0) sample.flops = flops;
  return sample;
}

std::string problem_of(const Run& run) {
  if (run.state == "diverged") return "it diverged";
  if (run.state == "unfinished") return "it did not finish, and its loss is not that of its tokens";
  if (!run.state.empty() && run.state != "finished")
    return fmt::format("its state {} is not one of finished, diverged, unfinished", run.state);
  if (!std::isfinite(run.loss)) return "its loss is not finite: it diverged";
  for (const char* name : {"parameters", "tokens", "loss"}) {
    const double value = run.*kNumbers.at(name);
    if (!(value > 0 && std::isfinite(value))) return fmt::format("{} = {} is not a positive number", name, value);
  }
  if (run.unique_tokens < 0) return fmt::format("unique_tokens = {} is negative", run.unique_tokens);
  if (!(run.flops >= 0 && std::isfinite(run.flops)))
    return fmt::format("flops = {} is not a positive number", run.flops);
  return "";
}

RunTable parse_runs(const std::string& text, const std::string& path) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // spreadsheets begin their UTF-8 with it
  std::istringstream lines(text.starts_with(kByteOrderMark) ? text.substr(kByteOrderMark.size()) : text);
  std::string line;
  std::vector<std::string> header;
  RunTable table;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (trimmed(line).empty() || trimmed(line)[0] == '#') continue;
    std::vector<std::string> fields = fields_of(line);
    if (header.empty()) {
      header = std::move(fields);
      for (const char* needed : {"parameters", "tokens", "loss"})
        if (std::find(header.begin(), header.end(), needed) == header.end())
          throw DataError(fmt::format("{}:{}: no column '{}' among {}; runs need parameters, tokens, loss", path,
                                      number, needed, printable(fmt::format("{}", fmt::join(header, ", ")))));
      continue;
    }
    if (fields.size() != header.size())
      throw DataError(fmt::format("{}:{}: {} fields under a header of {}", path, number, fields.size(), header.size()));
    Run run;
    bool no_loss_yet = false;
    for (size_t i = 0; i < fields.size(); ++i) {
      const std::string where = fmt::format("{}:{}: {}", path, number, header[i]);
      if (const auto word = kWords.find(header[i]); word != kWords.end())
        run.*word->second = fields[i];
      else if (const auto value = kNumbers.find(header[i]); value != kNumbers.end() && !fields[i].empty())
        run.*value->second = number_of(fields[i], where);
      else if (value != kNumbers.end() && (header[i] == "parameters" || header[i] == "tokens"))
        throw DataError(where + " is empty");
      else if (value != kNumbers.end() && header[i] == "loss")
        no_loss_yet = true;
    }
    if (no_loss_yet && run.state.empty()) run.state = "unfinished";
    if (run.name.empty()) run.name = fmt::format("line {}", number);
    const std::string problem = problem_of(run);
    if (problem.empty())
      table.runs.push_back(std::move(run));
    else
      table.left_out.push_back(fmt::format("{}: {}", run.name, problem));
  }
  if (header.empty()) throw DataError(path + ": empty; the first line names the columns parameters, tokens, loss");
  if (table.runs.empty())
    throw DataError(fmt::format("{}: no run that could be fitted{}{}", path, table.left_out.empty() ? "" : "\n  ",
                                fmt::join(table.left_out, "\n  ")));
  return table;
}

RunTable read_runs(const std::string& path) { return parse_runs(read_file(path), path); }

void keep_only(RunTable& table, const std::string& column, const std::string& value) {
  const auto word = kWords.find(column);
  TESSERA_CHECK(word != kWords.end(), "a column of words");
  std::set<std::string> values;
  for (const Run& run : table.runs) values.insert(run.*word->second);
  if (!values.contains(value))
    throw UsageError(fmt::format("{} {}: no run has it; the table has {}", column, value, fmt::join(values, ", ")));
  std::erase_if(table.runs, [&](const Run& run) { return run.*word->second != value; });
}

void check_one_kind(const RunTable& table) {
  for (const char* column : {"tokenizer", "dataset"}) {
    std::map<std::string, int> counts;
    for (const Run& run : table.runs) ++counts[run.*kWords.at(column)];
    if (counts.size() < 2) continue;
    std::string found;
    for (const auto& [value, count] : counts)
      found += fmt::format("\n  {} {}: {} runs", column, value.empty() ? "(not stated)" : value, count);
    throw DataError(
        fmt::format("runs of {} {}s are mixed, and their losses do not compare:{}\nPick one with --{} NAME.",
                    counts.size(), column, found, column));
  }
}

std::vector<Sample> samples_of(const std::vector<Run>& runs) {
  std::vector<Sample> samples;
  for (const Run& run : runs) samples.push_back(run.sample());
  return samples;
}

void check_design(const Form& form, const std::vector<Sample>& samples) {
  std::set<std::pair<double, double>> cells;
  std::set<double> sizes, budgets;
  double least_ratio = INFINITY, most_ratio = 0;
  for (const Sample& sample : samples) {
    cells.insert({sample.parameters, sample.tokens});
    sizes.insert(sample.parameters);
    budgets.insert(sample.tokens);
    least_ratio = std::min(least_ratio, sample.tokens / sample.parameters);
    most_ratio = std::max(most_ratio, sample.tokens / sample.parameters);
  }
  const std::string what = fmt::format("form {}", form.name());
  if (cells.size() < form.size()) {
    std::string fits = cells.size() >= 4 ? "gadre or kaplan (4 constants)" : "no law of N and D";
    if (cells.size() >= 3 && cells.size() < 4) fits = "a power law of compute (--form power, 2 constants)";
    throw DataError(fmt::format("{}: {} runs at different sizes and tokens for {} constants; these can fit {}", what,
                                cells.size(), form.size(), fits));
  }
  if (sizes.size() < 2)
    throw DataError(
        fmt::format("{}: all {} runs have {:.4g} parameters, so nothing says what size does; a power law of "
                    "tokens (--form power) can be fitted",
                    what, samples.size(), *sizes.begin()));
  if (budgets.size() < 2)
    throw DataError(
        fmt::format("{}: all {} runs have {:.4g} tokens, so nothing says what data do; a power law of "
                    "parameters (--form power) can be fitted",
                    what, samples.size(), *budgets.begin()));
  if (most_ratio < least_ratio * 1.05)
    throw DataError(
        fmt::format("{}: all {} runs have about {:.3g} tokens per parameter, so what size does and what data "
                    "do cannot be told apart; a power law of compute (--form power) can be fitted, for this "
                    "ratio only, or runs at two or more ratios can be added",
                    what, samples.size(), least_ratio));
}

}  // namespace tessera
