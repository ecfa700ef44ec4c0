#include "optim/lr_schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <numbers>

#include "optim/optim.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

double cosine(double fraction) { return 0.5 * (1.0 + std::cos(std::numbers::pi * fraction)); }

// What is left of peak - floor, as a share, after `fraction` of WSD's decay.
double wsd_shape(LrScheduleConfig::Decay decay, double fraction) {
  switch (decay) {
    case LrScheduleConfig::LINEAR_DECAY:
      return 1.0 - fraction;
    case LrScheduleConfig::COSINE_DECAY:
      return cosine(fraction);
    case LrScheduleConfig::SQRT_DECAY:
      return 1.0 - std::sqrt(fraction);
  }
  throw InternalError("a decay that this version does not know");
}

// The same share for all kinds, after warm-up and before the end.
double remaining(const LrScheduleConfig& config, int64_t step) {
  const double after_warmup = static_cast<double>(step - config.warmup_steps()) /
                              static_cast<double>(config.decay_end_step() - config.warmup_steps());
  switch (config.kind()) {
    case LrScheduleConfig::CONSTANT:
      return 1.0;
    case LrScheduleConfig::LINEAR:
      return 1.0 - after_warmup;
    case LrScheduleConfig::COSINE:
      return cosine(after_warmup);
    case LrScheduleConfig::WSD: {
      const int64_t begin = config.decay_end_step() - config.decay_steps();
      if (step <= begin) return 1.0;
      return wsd_shape(config.decay(), static_cast<double>(step - begin) / static_cast<double>(config.decay_steps()));
    }
  }
  throw InternalError("a learning rate schedule that this version does not know");
}

}  // namespace

std::vector<std::string> problems(const LrScheduleConfig& c) {
  std::vector<std::string> found;
  if (!(std::isfinite(c.learning_rate()) && c.learning_rate() > 0))
    found.push_back(fmt::format("lr_schedule.learning_rate = {}: must be finite and above 0", c.learning_rate()));
  if (!(std::isfinite(c.min_learning_rate()) && c.min_learning_rate() >= 0))
    found.push_back(
        fmt::format("lr_schedule.min_learning_rate = {}: must be finite and at least 0", c.min_learning_rate()));
  else if (c.min_learning_rate() > c.learning_rate())
    found.push_back(fmt::format("lr_schedule.min_learning_rate = {}: must not exceed lr_schedule.learning_rate = {}",
                                c.min_learning_rate(), c.learning_rate()));
  if (c.warmup_steps() < 0)
    found.push_back(fmt::format("lr_schedule.warmup_steps = {}: must be at least 0", c.warmup_steps()));
  if (c.kind() == LrScheduleConfig::CONSTANT) return found;

  if (c.decay_end_step() < 1) {
    found.push_back(fmt::format("lr_schedule.decay_end_step = {}: must be at least 1", c.decay_end_step()));
  } else if (c.warmup_steps() > c.decay_end_step()) {
    found.push_back(
        fmt::format("lr_schedule.warmup_steps = {}: must not exceed lr_schedule.decay_end_step = {}, where the decay "
                    "ends; choose fewer warm-up steps or a later end",
                    c.warmup_steps(), c.decay_end_step()));
  } else if (c.kind() == LrScheduleConfig::WSD) {
    const int64_t room = c.decay_end_step() - std::max<int64_t>(c.warmup_steps(), 0);
    if (c.decay_steps() < 0 || c.decay_steps() > room)
      found.push_back(
          fmt::format("lr_schedule.decay_steps = {}: must be from 0 to {}, the steps from the end of warm-up ({}) to "
                      "lr_schedule.decay_end_step = {}",
                      c.decay_steps(), room, c.warmup_steps(), c.decay_end_step()));
  }
  return found;
}

double learning_rate_at(const LrScheduleConfig& config, int64_t step) {
  if (const auto found = problems(config); !found.empty()) throw UsageError(fmt::format("{}", fmt::join(found, "\n")));
  TESSERA_CHECK(step >= 1, "steps count from 1");
  const double peak = config.learning_rate(), floor = config.min_learning_rate();
  if (step <= config.warmup_steps())
    return peak * static_cast<double>(step) / static_cast<double>(config.warmup_steps());
  if (config.kind() == LrScheduleConfig::CONSTANT) return peak;
  if (step >= config.decay_end_step()) return floor;
  return floor + (peak - floor) * remaining(config, step);
}

}  // namespace tessera
