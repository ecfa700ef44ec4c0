#include "data/order/history.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::string_view kHeader = "tessera data history 2";
constexpr std::string_view kHeader1 = "tessera data history 1";

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

// Whole samples of two lengths leave less than one of each over: their epochs are of one source when these fit together.
void check_unchanged(const PeriodSource& then, int64_t length_then, const SourceShare& now, int64_t length_now) {
  const int64_t epoch = now.samples * length_now;
  const bool fits = epoch < then.epoch + length_then && then.epoch < epoch + length_now;
  if (then.identity == now.identity && fits) return;
  throw DataError(fmt::format(
      "data source \"{}\" had {} samples of {} tokens an epoch when the run used it before (identity {}) and now has "
      "{} "
      "of {} (identity {}), so the run's place in it means nothing; restore the data, or give the new data another "
      "name",
      now.name, then.epoch / length_then, length_then, then.identity, now.samples, length_now, now.identity));
}

// What of a source's stretches is known when a period begins with it: they go on from those of the period before.
std::vector<Stretch> continued(std::vector<Stretch> before, int64_t given, const PeriodSource& source, int64_t length) {
  if (!before.empty()) before.back().samples += given;
  if (!before.empty() && before.back().samples == 0) before.pop_back();
  const bool goes_on = !before.empty() && (source.weight == 0 || before.back().sequence_length == length);
  if (!goes_on) before.push_back({length, 0});
  return before;
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
  std::vector<std::vector<Stretch>> stretches;
  for (const PeriodSource& source : period.sources) {
    weights.push_back(source.weight);
    std::vector<Stretch> before;
    int64_t given = 0;
    if (!periods_.empty()) {
      const Period& last = periods_.back();
      const auto known = std::find_if(last.sources.begin(), last.sources.end(),
                                      [&](const PeriodSource& other) { return other.name == source.name; });
      if (known != last.sources.end()) {
        before = stretches_.back()[static_cast<size_t>(known - last.sources.begin())];
        given = (source.base - known->base) / last.sequence_length;
      }
    }
    stretches.push_back(continued(std::move(before), given, source, period.sequence_length));
  }
  mixtures_.emplace_back(std::move(weights));
  stretches_.push_back(std::move(stretches));
  periods_.push_back(std::move(period));
}

void DataHistory::remove_last() {
  periods_.pop_back();
  mixtures_.pop_back();
  stretches_.pop_back();
}

void DataHistory::change(int64_t first_sample, int64_t sequence_length, const std::vector<SourceShare>& sources) {
  check_names(sources);
  TESSERA_CHECK(first_sample >= 0 && (periods_.empty() || periods_.back().first_sample <= first_sample),
                "history is changed at its end");
  TESSERA_CHECK(sequence_length >= 1, "samples have tokens");

  // All that were ever seen, with what they have given up to here.
  std::map<std::string, PeriodSource> merged;
  std::map<std::string, int64_t> lengths;  // of their samples
  if (!periods_.empty()) {
    const Period& last = periods_.back();
    for (size_t s = 0; s < last.sources.size(); ++s) {
      PeriodSource source = last.sources[s];
      source.base +=
          last.sequence_length * mixtures_.back().count(static_cast<int>(s), first_sample - last.first_sample);
      source.weight = 0;
      lengths[source.name] = stretches_.back()[s].back().sequence_length;
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
    const int64_t epoch = now.samples * sequence_length;
    const auto [place, is_new] = merged.try_emplace(now.name, PeriodSource{now.name, 0, 0, epoch, now.identity});
    if (!is_new) check_unchanged(place->second, lengths.at(now.name), now, sequence_length);
    place->second.weight = fixed[s];
    place->second.epoch = epoch;
  }

  Period period{first_sample, sequence_length, {}};
  for (auto& [name, source] : merged) period.sources.push_back(std::move(source));
  if (!periods_.empty()) {
    const Period& last = periods_.back();
    const auto same = [](const PeriodSource& a, const PeriodSource& b) {
      return a.name == b.name && a.weight == b.weight;
    };
    if (last.sequence_length == sequence_length &&
        std::equal(last.sources.begin(), last.sources.end(), period.sources.begin(), period.sources.end(), same))
      return;
    if (last.first_sample == first_sample) remove_last();
  }
  add(std::move(period));
}

double DataHistory::unique_share(int64_t end) const {
  const Period& period = periods_.back();
  double weights = 0, given = 0, unique = 0;
  for (const PeriodSource& source : period.sources) weights += static_cast<double>(source.weight);
  const auto since = static_cast<double>((end - period.first_sample) * period.sequence_length);
  for (const PeriodSource& source : period.sources) {
    const double tokens = static_cast<double>(source.base) + since * static_cast<double>(source.weight) / weights;
    given += tokens;
    unique += std::min(tokens, static_cast<double>(source.epoch));
  }
  return given > 0 ? unique / given : 1;
}

DataHistory::Place DataHistory::locate(int64_t g) const {
  TESSERA_CHECK(!periods_.empty() && g >= periods_.front().first_sample, "a sample that the history covers");
  const auto after = std::upper_bound(periods_.begin(), periods_.end(), g,
                                      [](int64_t sample, const Period& p) { return sample < p.first_sample; });
  const auto period = static_cast<int>(after - periods_.begin()) - 1;
  const Mixture::Place place = mixtures_[period].locate(g - periods_[period].first_sample);
  return {period, place.source, stretches_[period][place.source].back().samples + place.index};
}

std::string DataHistory::to_text() const {
  std::string text = fmt::format("{}\n", kHeader);
  for (const Period& period : periods_) {
    text += fmt::format("period {} {}\n", period.first_sample, period.sequence_length);
    for (const PeriodSource& s : period.sources)
      text += fmt::format("source {} {} {} {} {}\n", s.weight, s.base, s.epoch, s.identity, s.name);
  }
  return text;
}

namespace {

// Reads the text line by line; fail() names the line at hand.
class Parser {
 public:
  std::vector<Period> parse(std::string_view text) {
    while (!text.empty()) {
      ++number_;
      const size_t stop = text.find('\n');
      if (stop == text.npos) fail("the line has no end: the text was cut off");
      line(text.substr(0, stop));
      text.remove_prefix(stop + 1);
    }
    if (number_ == 0) fail("empty text");
    return std::move(periods_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw DataError(fmt::format("data history, line {}: {}", number_, problem));
  }

  void line(std::string_view line) {
    if (number_ == 1) {
      counts_samples_ = line == kHeader1;
      if (line != kHeader && !counts_samples_) fail(fmt::format("\"{}\" is not \"{}\"", line, kHeader));
      return;
    }
    const std::string_view kind = take_word(line);
    if (kind == "period") {
      period(line);
    } else if (kind == "source" && !periods_.empty()) {
      source(line);
    } else {
      fail(fmt::format("\"{}\" is unknown here", kind));
    }
  }

  void period(std::string_view line) {
    const auto first = take_number(line);
    const auto length = counts_samples_ ? std::optional<int64_t>(0) : take_number(line);
    if (!first || !length || !line.empty() || (*length == 0 && !counts_samples_))
      fail("a period has its first sample and its sequence length");
    if (!periods_.empty() && periods_.back().first_sample >= *first) fail("periods are not in ascending order");
    periods_.push_back({*first, *length, {}});
  }

  void source(std::string_view line) {
    const auto weight = take_number(line), base = take_number(line), epoch = take_number(line);
    PeriodSource source{"", 0, base.value_or(0), epoch.value_or(0), std::string(take_word(line))};
    constexpr int64_t kMostUnits = int64_t{1} << 33;  // the whole is 2^32, give or take rounding
    if (!weight || !base || !epoch || *epoch == 0 || *weight > kMostUnits || source.identity.empty() || line.empty())
      fail("a source has a weight, a base, an epoch, an identity and a name");
    source.weight = static_cast<uint64_t>(*weight);
    source.name = line;
    Period& period = periods_.back();
    if (counts_samples_) to_tokens(source, period);
    if (source.weight > 0 && source.epoch % period.sequence_length != 0)
      fail(fmt::format("an epoch of {} tokens is not whole samples of {}", source.epoch, period.sequence_length));
    if (!period.sources.empty() && period.sources.back().name >= line)
      fail("sources are not in ascending order of their names");
    period.sources.push_back(std::move(source));
  }

  // Version 1: of a source that is paused the length may be another one than the period's.
  void to_tokens(PeriodSource& source, Period& period) const {
    const size_t slash = source.identity.rfind('/');
    std::string_view digits(source.identity);
    digits.remove_prefix(slash == std::string::npos ? digits.size() : slash + 1);
    const auto length = take_number(digits);
    if (!length || *length == 0 || source.base > std::numeric_limits<int64_t>::max() / *length ||
        source.epoch > std::numeric_limits<int64_t>::max() / *length)
      fail("an identity ends with \"/\" and the sequence length");
    source.identity.resize(slash);
    source.base *= *length;
    source.epoch *= *length;
    if (source.weight > 0 || period.sequence_length == 0) period.sequence_length = *length;
  }

  std::vector<Period> periods_;
  bool counts_samples_ = false;  // version 1
  int number_ = 0;               // of the line
};

}  // namespace

DataHistory DataHistory::from_text(std::string_view text) {
  DataHistory history;
  for (Period& period : Parser().parse(text)) {
    const auto used = [](const PeriodSource& s) { return s.weight > 0; };
    if (std::none_of(period.sources.begin(), period.sources.end(), used))
      throw DataError(
          fmt::format("data history: the period from sample {} has no source with a weight", period.first_sample));
    history.add(std::move(period));
  }
  return history;
}

}  // namespace tessera
