#include "data/order/loader.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "data/data.pb.h"
#include "tensor/check.h"
#include "tensor/divisors.h"

namespace tessera {
namespace {

LastSample last_sample(Order order) { return order == Order::Shuffled ? LastSample::Drop : LastSample::Pad; }

int64_t checked_sequence_length(const DataConfig& config) {
  if (config.sequence_length() < 1)
    throw UsageError(fmt::format("data.sequence_length = {} must be at least 1", config.sequence_length()));
  return config.sequence_length();
}

}  // namespace

int microbatches(const DataConfig& config, int dp_count) {
  TESSERA_CHECK(dp_count >= 1, "a data-parallel group");
  const int64_t global = config.global_batch_size(), micro = config.micro_batch_size();
  if (global < 1 || micro < 1)
    throw UsageError(
        fmt::format("data.global_batch_size = {} and data.micro_batch_size = {} must be at least 1", global, micro));
  if (micro <= global && dp_count <= global / micro && global % (dp_count * micro) == 0) {
    const int64_t count = global / (dp_count * micro);
    if (count <= std::numeric_limits<int>::max()) return static_cast<int>(count);
  }
  const std::string rule =
      fmt::format("data.global_batch_size = {} is not divisible by parallel.dp * data.micro_batch_size = {} * {}",
                  global, dp_count, micro);
  if (micro > std::numeric_limits<int32_t>::max() / dp_count) throw UsageError(rule);
  const int64_t unit = dp_count * micro, below = global / unit * unit;
  std::string fits = below > 0 ? fmt::format("a global batch of {} or {}", below, below + unit)
                               : fmt::format("a global batch of {}", unit);
  if (global % dp_count == 0)
    fits += fmt::format(", or with dp = {} a micro batch of {}", dp_count, divisors(global / dp_count));
  if (global % micro == 0) fits += fmt::format(", or dp of {}", divisors(global / micro));
  throw UsageError(fmt::format("{}; what would fit: {}", rule, fits));
}

std::vector<SourceShare> shares(const std::vector<OpenSource>& sources, const DataConfig& config) {
  const int64_t length = checked_sequence_length(config);
  std::vector<SourceShare> result;
  for (const OpenSource& source : sources) {
    const int64_t samples = sample_count(source.dataset.tokens(), length, LastSample::Drop);
    if (samples == 0)
      throw DataError(
          fmt::format("data source \"{}\" ({}) has {} tokens, fewer than one sample: data.sequence_length = "
                      "{}; give it more text or make sequence_length at most {}",
                      source.name, source.dataset.path(), source.dataset.tokens(), length, source.dataset.tokens()));
    result.push_back({source.name, source.weight, samples, source.dataset.identity()});
  }
  return result;
}

Loader::Loader(const DataConfig& config, std::vector<OpenSource> sources, LoaderOptions options)
    : sources_(std::move(sources)),
      options_(std::move(options)),
      sequence_length_(checked_sequence_length(config)),
      global_batch_size_(config.global_batch_size()),
      micro_batch_size_(config.micro_batch_size()),
      documents_(config.reset_positions() ? Documents::Apart : Documents::Joined),
      samples_{0} {
  const int count = tessera::microbatches(config, options_.dp_count);
  TESSERA_CHECK(options_.dp_rank >= 0 && options_.dp_rank < options_.dp_count, "a rank of the data-parallel group");
  if (sources_.empty()) throw UsageError("there is no data source; name at least one");
  for (const OpenSource& source : sources_) {
    const int64_t samples = sample_count(source.dataset.tokens(), sequence_length_, last_sample(options_.order));
    samples_.push_back(samples_.back() + samples);
  }
  if (options_.order == Order::Shuffled) {
    const std::vector<SourceShare> now = shares(sources_, config);
    if (options_.history.periods().empty()) options_.history.change(0, sequence_length_, now);
    find_period_sources();
  }
  batches_.reserve(count);
  for (int m = 0; m < count; ++m) batches_.emplace_back(micro_batch_size_, sequence_length_);
}

void Loader::find_period_sources() {
  const DataHistory& history = options_.history;
  const Period& last = history.periods().back();
  const auto last_period = static_cast<int>(history.periods().size()) - 1;
  TESSERA_CHECK_EQ(last.sequence_length, sequence_length_, "the length of the history's last samples");
  const auto number_in = [](const Period& period, const std::string& name) {
    const auto found = std::ranges::find(period.sources, name, &PeriodSource::name);
    return found == period.sources.end() ? -1 : static_cast<int>(found - period.sources.begin());
  };
  std::vector<std::vector<Stretch>> stretches;  // of the sources
  for (const OpenSource& source : sources_) {
    const int number = number_in(last, source.name);
    stretches.push_back(number < 0 ? std::vector<Stretch>{{sequence_length_, 0}}
                                   : history.stretches(last_period, number));
    orders_.emplace_back(source.dataset.tokens(), options_.seed, source.name, stretches.back());
  }
  for (int p = 0; p <= last_period; ++p) {
    const Period& period = history.periods()[static_cast<size_t>(p)];
    std::vector<int>& indices = period_sources_.emplace_back();
    for (int s = 0; s < std::ssize(period.sources); ++s) {
      const PeriodSource& wanted = period.sources[static_cast<size_t>(s)];
      const auto found = std::ranges::find(sources_, wanted.name, &OpenSource::name);
      const auto index = static_cast<size_t>(found - sources_.begin());
      if (found == sources_.end()) {
        if (wanted.weight > 0 && p == last_period)
          throw DataError(
              fmt::format("the data history draws on source \"{}\", which is not among the open ones", wanted.name));
        indices.push_back(kNotOpen);
        continue;
      }
      const bool same_stretch = history.stretches(p, s).size() == stretches[index].size() &&
                                stretches[index].back().sequence_length == sequence_length_;
      if (same_stretch && wanted.weight > 0)
        TESSERA_CHECK_EQ((samples_[index + 1] - samples_[index]) * sequence_length_, wanted.epoch,
                         "an epoch of " + wanted.name);
      indices.push_back(same_stretch ? static_cast<int>(index) : kOtherLength);
    }
  }
}

int64_t Loader::bytes(const DataConfig& config, int dp_count) {
  return tessera::microbatches(config, dp_count) *
         PackedBatch::bytes(config.micro_batch_size(), checked_sequence_length(config));
}

Loader::Place Loader::locate(int64_t g) const {
  if (options_.order == Order::Sequential) {
    if (g >= samples_.back()) return {};
    const auto after = std::upper_bound(samples_.begin(), samples_.end(), g);
    const auto source = static_cast<int>(after - samples_.begin()) - 1;
    return {source, g - samples_[source]};
  }
  const DataHistory::Place place = options_.history.locate(g);
  const int source = period_sources_[place.period][place.source];
  if (source < 0) {
    const Period& period = options_.history.periods()[place.period];
    throw DataError(fmt::format("sample {} comes from data source \"{}\", {}", g, period.sources[place.source].name,
                                source == kNotOpen ? "which is not among the open ones"
                                                   : fmt::format("in samples of {} tokens, and those at hand have {}",
                                                                 period.sequence_length, sequence_length_)));
  }
  return {source, orders_[static_cast<size_t>(source)](place.index)};
}

int64_t Loader::global_sample(int64_t first_sample, int m, int64_t i) const {
  return first_sample + (int64_t{m} * options_.dp_count + options_.dp_rank) * micro_batch_size_ + i;
}

void Loader::prefetch(int64_t first_sample) const {
  for (int m = 0; m < microbatches(); ++m)
    for (int64_t i = 0; i < micro_batch_size_; ++i) {
      const Place place = locate(global_sample(first_sample, m, i));
      if (place.source >= 0)
        sources_[place.source].dataset.prefetch(place.sample * sequence_length_, sequence_length_ + 1);
    }
}

void Loader::load(int64_t first_sample) {
  TESSERA_CHECK(first_sample >= 0, "the number of a sample");
  if (prefetched_ != first_sample) prefetch(first_sample);
  for (int m = 0; m < microbatches(); ++m) {
    batches_[m].clear();
    for (int64_t i = 0; i < micro_batch_size_; ++i) {
      const Place place = locate(global_sample(first_sample, m, i));
      if (place.source >= 0)
        batches_[m].add(sources_[place.source].dataset, place.sample, documents_);
      else
        batches_[m].add_padding(sources_.front().dataset.end_of_text());
    }
  }
  // The next step's pages come from the disk while this one computes.
  prefetched_ = first_sample + global_batch_size_;
  prefetch(prefetched_);
}

int64_t Loader::targets() const {
  int64_t sum = 0;
  for (const PackedBatch& batch : batches_) sum += batch.targets();
  return sum;
}

}  // namespace tessera
