#include "launch/config/suggest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

namespace tessera {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

constexpr size_t kMost = 3;

}  // namespace

int edit_distance(const std::string& first, const std::string& second) {
  const std::string a = lower(first), b = lower(second);
  const int rows = static_cast<int>(a.size()) + 1, columns = static_cast<int>(b.size()) + 1;
  std::vector<std::vector<int>> d(rows, std::vector<int>(columns));
  for (int i = 0; i < rows; ++i) d[i][0] = i;
  for (int j = 0; j < columns; ++j) d[0][j] = j;
  for (int i = 1; i < rows; ++i) {
    for (int j = 1; j < columns; ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[rows - 1][columns - 1];
}

std::vector<std::string> nearest(const std::string& name, const std::vector<std::string>& names) {
  // A third of a word may be wrong; more is another word.
  const int limit = std::max(1, static_cast<int>(name.size()) / 3);
  std::vector<std::pair<int, std::string>> ranked;
  for (const std::string& candidate : names) {
    const int distance = edit_distance(name, candidate);
    if (distance <= limit) ranked.emplace_back(distance, candidate);
  }
  if (ranked.empty() && name.size() >= 2) {
    for (const std::string& candidate : names) {
      if (lower(candidate).find(lower(name)) != std::string::npos)
        ranked.emplace_back(static_cast<int>(candidate.size()), candidate);
    }
  }
  std::sort(ranked.begin(), ranked.end());
  if (ranked.size() > kMost) ranked.resize(kMost);
  std::vector<std::string> result;
  for (const auto& [distance, candidate] : ranked) result.push_back(candidate);
  return result;
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& names) {
  const std::vector<std::string> near = nearest(name, names);
  if (near.empty()) return fmt::format("choose one of {}", fmt::join(names, ", "));
  std::string text = "did you mean ";
  for (size_t i = 0; i < near.size(); ++i) {
    if (i > 0) text += i + 1 == near.size() ? " or " : ", ";
    text += '"' + near[i] + '"';
  }
  return text + "?";
}

}  // namespace tessera
