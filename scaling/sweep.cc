#include "scaling/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "scaling/sweep.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// One point of a ladder's product, its budget aside.
struct Setting {
  const SweepConfig::Size* size;
  const SweepConfig::Ladder* ladder;
  std::string name;                    // without the budget
  std::vector<std::string> overrides;  // without steps and schedule
};

std::vector<const SweepConfig::Size*> sizes_of(const SweepConfig& config, const SweepConfig::Ladder& ladder) {
  std::vector<const SweepConfig::Size*> sizes;
  std::vector<std::string> names;
  for (const SweepConfig::Size& size : config.size()) names.push_back(size.name());
  if (ladder.size().empty()) {
    for (const SweepConfig::Size& size : config.size()) sizes.push_back(&size);
    return sizes;
  }
  for (const std::string& name : ladder.size()) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      throw UsageError(
          fmt::format("ladder.size = {}: there is no such size; there are {}", name, fmt::join(names, ", ")));
    sizes.push_back(&config.size(static_cast<int>(found - names.begin())));
  }
  return sizes;
}

// Calls visit(suffix of the name, override) for each value, or once with nothing where the list is empty.
template <class List, class Visit>
void for_each_value(const List& list, const char* letter, const char* path, Visit visit) {
  if (list.empty()) return visit(std::string(), std::string());
  for (const auto value : list) visit(fmt::format("-{}{}", letter, value), fmt::format("{}={}", path, value));
}

std::vector<Setting> settings_of(const SweepConfig& config, const SweepConfig::Ladder& ladder) {
  std::vector<Setting> settings;
  for (const SweepConfig::Size* size : sizes_of(config, ladder)) {
    for_each_value(ladder.global_batch_size(), "b", "data.global_batch_size", [&](auto batch_name, auto batch) {
      for_each_value(ladder.learning_rate(), "lr", "lr_schedule.learning_rate", [&](auto rate_name, auto rate) {
        for_each_value(ladder.seed(), "s", "run.seed", [&](auto seed_name, auto seed) {
          Setting setting{size, &ladder, (ladder.has_variant() ? ladder.variant() + "-" : "") + size->name(), {}};
          setting.name += batch_name + rate_name + seed_name;
          setting.overrides.assign(size->set().begin(), size->set().end());
          setting.overrides.insert(setting.overrides.end(), ladder.set().begin(), ladder.set().end());
          if (ladder.has_variant()) setting.overrides.push_back("run.variant=" + ladder.variant());
          for (const std::string& value : {batch, rate, seed})
            if (!value.empty()) setting.overrides.push_back(value);
          settings.push_back(std::move(setting));
        });
      });
    });
  }
  return settings;
}

constexpr double kMostTokens = 1e17;  // of a run: counted in 64 bits, with room for sums
constexpr int kMostConcurrent = 1024, kMostRanks = 1 << 20;

struct Budget {
  std::string name;
  double tokens;
};

std::vector<Budget> budgets_of(const SweepConfig& config, const SweepConfig::Ladder& ladder, const DescribedRun& run) {
  const double n = config.count() == SweepConfig::TOTAL ? run.parameters : run.non_embedding;
  std::vector<Budget> budgets;
  for (const double tokens : ladder.tokens()) budgets.push_back({"-d" + short_number(tokens), tokens});
  for (const double ratio : ladder.tokens_per_parameter()) budgets.push_back({fmt::format("-r{:g}", ratio), ratio * n});
  for (const double flops : ladder.flops()) budgets.push_back({fmt::format("-c{:g}", flops), flops / (6 * n)});
  if (budgets.empty()) throw UsageError("a ladder has no budget: give it tokens, tokens_per_parameter or flops");
  for (const Budget& budget : budgets)
    if (!(budget.tokens > 0 && budget.tokens <= kMostTokens))
      throw UsageError(fmt::format("a ladder's budget of {} tokens: must be positive, and at most {:g}", budget.tokens,
                                   kMostTokens));
  return budgets;
}

std::vector<std::string> with(std::vector<std::string> overrides, std::initializer_list<std::string> more) {
  overrides.insert(overrides.end(), more);
  return overrides;
}

void check(const SweepConfig& config) {
  if (config.name().empty()) throw UsageError("the sweep has no name");
  if (config.base().empty()) throw UsageError("the sweep has no base: the run config that its runs start from");
  if (config.size().empty()) throw UsageError("the sweep has no size: at least one, with a name");
  if (config.ladder().empty()) throw UsageError("the sweep has no ladder: sizes and budgets to train");
  std::set<std::string> names;
  for (const SweepConfig::Size& size : config.size()) {
    if (size.name().empty() || size.name().find_first_of("/ ") != std::string::npos)
      throw UsageError(fmt::format("size.name = \"{}\": must be a word without / and blanks", size.name()));
    if (!names.insert(size.name()).second) throw UsageError(fmt::format("size.name = {}: twice", size.name()));
  }
  const double decay = config.decay_fraction();
  if (!(decay > 0 && decay < 1)) throw UsageError(fmt::format("decay_fraction = {}: must lie between 0 and 1", decay));
  if (config.concurrent() < 1 || config.ranks() < 1)
    throw UsageError(
        fmt::format("concurrent = {}, ranks = {}: must be at least 1", config.concurrent(), config.ranks()));
  if (config.concurrent() > kMostConcurrent || config.ranks() > kMostRanks)
    throw UsageError(fmt::format("concurrent = {}, ranks = {}: must be at most {} and {}", config.concurrent(),
                                 config.ranks(), kMostConcurrent, kMostRanks));
}

class Planner {
 public:
  Planner(const SweepConfig& config, const DescribeRun& describe) : config_(config), describe_(describe) {
    plan_.directory = config.has_dir() ? config.dir() : "runs/" + config.name();
  }

  void add(const Setting& setting) {
    const DescribedRun described = describe_(setting.overrides);
    for (const Budget& budget : budgets_of(config_, *setting.ladder, described)) {
      const std::string name = setting.name + budget.name;
      if (!names_.insert(name).second) continue;
      PlannedRun run;
      run.name = name;
      run.size = setting.size->name();
      run.directory = plan_.directory + "/" + name;
      run.steps = std::max<int64_t>(1, std::llround(budget.tokens / static_cast<double>(described.batch_tokens)));
      run.tokens = run.steps * described.batch_tokens;
      run.flops = described.flops_per_step * static_cast<double>(run.steps);
      const bool wsd = described.wsd || setting.ladder->trunk();
      const int64_t decay =
          wsd ? std::max<int64_t>(1, std::llround(config_.decay_fraction() * static_cast<double>(run.steps))) : 0;
      if (described.warmup_steps + decay > run.steps)
        throw UsageError(
            fmt::format("{}: {} steps of {} tokens are fewer than {} of warm-up and {} of decay; lengthen "
                        "the budget, or lower lr_schedule.warmup_steps, the batch or decay_fraction",
                        name, run.steps, described.batch_tokens, described.warmup_steps, decay));
      run.overrides = with(setting.overrides,
                           {"run.name=" + name, "run.dir=" + run.directory, fmt::format("run.steps={}", run.steps),
                            fmt::format("lr_schedule.decay_end_step={}", run.steps)});
      if (setting.ladder->trunk()) run.overrides.push_back("lr_schedule.kind=WSD");
      if (wsd) run.overrides.push_back(fmt::format("lr_schedule.decay_steps={}", decay));
      if (setting.ladder->trunk()) {
        run.from = run.steps - decay;
        run.trunk = trunk_of(setting);
        plan_.trunks[static_cast<size_t>(run.trunk)].stops.push_back(run.from);
      }
      run.run = describe_(run.overrides);
      plan_.runs.push_back(std::move(run));
    }
  }

  SweepPlan finish() {
    for (PlannedTrunk& trunk : plan_.trunks) {
      std::sort(trunk.stops.begin(), trunk.stops.end());
      trunk.stops.erase(std::unique(trunk.stops.begin(), trunk.stops.end()), trunk.stops.end());
    }
    // The longest first would keep several at once busy to the end, but what comes early is what is learnt from early.
    std::stable_sort(plan_.runs.begin(), plan_.runs.end(),
                     [](const PlannedRun& a, const PlannedRun& b) { return a.flops < b.flops; });
    return std::move(plan_);
  }

 private:
  int trunk_of(const Setting& setting) {
    const auto [found, is_new] = trunks_.emplace(setting.name, static_cast<int>(plan_.trunks.size()));
    if (is_new) {
      PlannedTrunk trunk;
      trunk.name = setting.name;
      trunk.size = setting.size->name();
      trunk.directory = plan_.directory + "/trunks/" + setting.name;
      trunk.overrides = with(setting.overrides, {"run.name=" + trunk.name, "run.dir=" + trunk.directory,
                                                 "lr_schedule.kind=CONSTANT", "checkpoint.save_last=true"});
      trunk.run = describe_(trunk.overrides);
      plan_.trunks.push_back(std::move(trunk));
    }
    return found->second;
  }

  const SweepConfig& config_;
  const DescribeRun& describe_;
  SweepPlan plan_;
  std::set<std::string> names_;
  std::map<std::string, int> trunks_;
};

}  // namespace

double SweepPlan::flops_to_do() const {
  double flops = 0;
  for (const PlannedRun& run : runs) flops += run.flops_to_do();
  for (const PlannedTrunk& trunk : trunks) flops += trunk.flops_to_do();
  return flops;
}

SweepPlan plan_sweep(const SweepConfig& config, const DescribeRun& describe) {
  check(config);
  Planner planner(config, describe);
  for (const SweepConfig::Ladder& ladder : config.ladder()) {
    for (const Setting& setting : settings_of(config, ladder)) planner.add(setting);
  }
  return planner.finish();
}

std::string short_number(double value) {
  for (const auto& [unit, letter] : {std::pair(1e12, "T"), {1e9, "G"}, {1e6, "M"}, {1e3, "k"}})
    if (value >= 0.9995 * unit) return fmt::format("{:.3g}{}", value / unit, letter);
  return fmt::format("{:.3g}", value);
}

}  // namespace tessera
