#include "data/order/history.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::string_view kHeader = "tessera data history 1";

void check_names(const std::vector<SourceShare>& sources) {
  if (sources.empty()) throw UsageError("data.train is empty; name at least one source");
  std::vector<std::string> names;
  for (const SourceShare& source : sources) {
    if (source.name.empty() || source.name.find_first_of("\n\r") != std::string::npos)
      throw UsageError(fmt::format("data source name \"{}\" is empty or has a line end in it", source.name));
    names.push_back(source.name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twin = std::adjacent_find(names.begin(), names.end()); twin != names.end())
    throw UsageError(fmt::format("two data sources are named \"{}\"; set DataSource.name to tell them apart", *twin));
}

void check_unchanged(const PeriodSource& then, const SourceShare& now) {
  if (then.samples == now.samples && then.identity == now.identity) return;
  throw DataError(
      fmt::format("data source \"{}\" had {} samples an epoch when the run used it before (identity {}) and now has "
                  "{} (identity {}), so the run's place in it means nothing; restore the data (or sequence_length), or "
                  "give the new data another name",
                  now.name, then.samples, then.identity, now.samples, now.identity));
}

// Takes the word before the next blank off the front of the line.
std::string_view take_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

std::optional<int64_t> take_number(std::string_view& line) {
  const std::string_view word = take_word(line);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

void DataHistory::add(Period period) {
  std::vector<uint64_t> weights;
  for (const PeriodSource& source : period.sources) weights.push_back(source.weight);
  mixtures_.emplace_back(std::move(weights));
  periods_.push_back(std::move(period));
}

void DataHistory::change(int64_t first_sample, const std::vector<SourceShare>& sources) {
  check_names(sources);
  TESSERA_CHECK(first_sample >= 0 && (periods_.empty() || periods_.back().first_sample <= first_sample),
                "history is changed at its end");

  // All that were ever seen, with what they have given up to here.
  std::map<std::string, PeriodSource> merged;
  if (!periods_.empty()) {
    const Period& last = periods_.back();
    for (size_t s = 0; s < last.sources.size(); ++s) {
      PeriodSource source = last.sources[s];
      source.base += mixtures_.back().count(static_cast<int>(s), first_sample - last.first_sample);
      source.weight = 0;
      merged.emplace(source.name, std::move(source));
    }
  }
  std::vector<double> weights;
  for (const SourceShare& source : sources) weights.push_back(source.weight);
  const std::vector<uint64_t> fixed = fixed_point_weights(weights);
  for (size_t s = 0; s < sources.size(); ++s) {
    const SourceShare& now = sources[s];
    TESSERA_CHECK(now.samples > 0 && !now.identity.empty() && now.identity.find_first_of(" \n") == std::string::npos,
                  "a source with samples and an identity");
    const auto [place, is_new] = merged.try_emplace(now.name, PeriodSource{now.name, 0, 0, now.samples, now.identity});
    if (!is_new) check_unchanged(place->second, now);
    place->second.weight = fixed[s];
  }

  Period period{first_sample, {}};
  for (auto& [name, source] : merged) period.sources.push_back(std::move(source));
  if (!periods_.empty()) {
    const Period& last = periods_.back();
    const auto same = [](const PeriodSource& a, const PeriodSource& b) {
      return a.name == b.name && a.weight == b.weight;
    };
    if (std::equal(last.sources.begin(), last.sources.end(), period.sources.begin(), period.sources.end(), same))
      return;
    if (last.first_sample == first_sample) {
      periods_.pop_back();
      mixtures_.pop_back();
    }
  }
  add(std::move(period));
}

DataHistory::Place DataHistory::locate(int64_t g) const {
  TESSERA_CHECK(!periods_.empty() && g >= periods_.front().first_sample, "a sample that the history covers");
  const auto after = std::upper_bound(periods_.begin(), periods_.end(), g,
                                      [](int64_t sample, const Period& p) { return sample < p.first_sample; });
  const auto period = static_cast<int>(after - periods_.begin()) - 1;
  const Mixture::Place place = mixtures_[period].locate(g - periods_[period].first_sample);
  return {period, place.source, periods_[period].sources[place.source].base + place.index};
}

std::string DataHistory::to_text() const {
  std::string text = fmt::format("{}\n", kHeader);
  for (const Period& period : periods_) {
    text += fmt::format("period {}\n", period.first_sample);
    for (const PeriodSource& s : period.sources)
      text += fmt::format("source {} {} {} {} {}\n", s.weight, s.base, s.samples, s.identity, s.name);
  }
  return text;
}

DataHistory DataHistory::from_text(std::string_view text) {
  DataHistory history;
  std::vector<Period> periods;
  int number = 0;
  const auto fail = [&](const std::string& problem) {
    throw DataError(fmt::format("data history, line {}: {}", number, problem));
  };
  while (!text.empty()) {
    ++number;
    const size_t stop = text.find('\n');
    if (stop == text.npos) fail("the line has no end: the text was cut off");
    std::string_view line = text.substr(0, stop);
    text.remove_prefix(stop + 1);
    if (number == 1) {
      if (line != kHeader) fail(fmt::format("\"{}\" is not \"{}\"", line, kHeader));
      continue;
    }
    const std::string_view kind = take_word(line);
    if (kind == "period") {
      const auto first = take_number(line);
      if (!first || !line.empty()) fail("a period has one number, its first sample");
      if (!periods.empty() && periods.back().first_sample >= *first) fail("periods are not in ascending order");
      periods.push_back({*first, {}});
    } else if (kind == "source" && !periods.empty()) {
      const auto weight = take_number(line), base = take_number(line), samples = take_number(line);
      const std::string identity(take_word(line));
      constexpr int64_t kMostUnits = int64_t{1} << 33;  // the whole is 2^32, give or take rounding
      if (!weight || !base || !samples || *samples == 0 || *weight > kMostUnits || identity.empty() || line.empty())
        fail("a source has a weight, a base, samples, an identity and a name");
      std::vector<PeriodSource>& sources = periods.back().sources;
      if (!sources.empty() && sources.back().name >= line) fail("sources are not in ascending order of their names");
      sources.push_back({std::string(line), static_cast<uint64_t>(*weight), *base, *samples, identity});
    } else {
      fail(fmt::format("\"{}\" is unknown here", kind));
    }
  }
  if (number == 0) fail("empty text");
  for (Period& period : periods) {
    const auto used = [](const PeriodSource& s) { return s.weight > 0; };
    if (std::none_of(period.sources.begin(), period.sources.end(), used))
      throw DataError(
          fmt::format("data history: the period from sample {} has no source with a weight", period.first_sample));
    history.add(std::move(period));
  }
  return history;
}

}  // namespace tessera
