#include "scaling/planning/fitting.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "data/data.pb.h"
#include "model/model.pb.h"
#include "parallel/parallel.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// The sections that a candidate changes.
struct Sections {
  ParallelConfig parallel;
  DataConfig data;
};

struct Candidate {
  // Changes the sections and returns the setting; "" where there is nothing to change.
  std::function<std::string(Sections&)> change;
  const char* cost;
};

std::string set_zero_stage(Sections& sections, int stage) {
  if (sections.parallel.zero_stage() >= stage) return "";
  sections.parallel.set_zero_stage(stage);
  return fmt::format("parallel.zero_stage={}", stage);
}

std::string set_recompute(Sections& sections, const char* mode) {
  const std::string& now = sections.parallel.recompute();
  if (now == mode || now == "full") return "";
  sections.parallel.set_recompute(mode);
  return fmt::format("parallel.recompute={}", mode);
}

std::string halve_micro_batch(Sections& sections) {
  const int64_t samples = sections.data.micro_batch_size();
  if (samples % 2 != 0) return "";
  sections.data.set_micro_batch_size(samples / 2);
  return fmt::format("data.micro_batch_size={}", samples / 2);
}

// Half of the data-parallel ranks move to another axis.
bool half_of_dp(Sections& sections) {
  if (sections.parallel.dp() % 2 != 0) return false;
  sections.parallel.set_dp(sections.parallel.dp() / 2);
  return true;
}

std::string double_tp(Sections& sections) {
  if (!half_of_dp(sections)) return "";
  sections.parallel.set_tp(2 * sections.parallel.tp());
  return fmt::format("parallel.tp={}", sections.parallel.tp());
}

std::string double_pp(Sections& sections) {
  if (!half_of_dp(sections)) return "";
  sections.parallel.set_pp(2 * sections.parallel.pp());
  return fmt::format("parallel.pp={}", sections.parallel.pp());
}

// From the cheapest on.
std::vector<Candidate> candidates() {
  return {
      {[](Sections& s) { return set_zero_stage(s, 1); }, "the weights are gathered once a step"},
      {[](Sections& s) { return set_recompute(s, "selective"); },
       "norms, activations and attention are computed a second time"},
      {halve_micro_batch, "twice as many microbatches, each with half the rows"},
      {[](Sections& s) { return set_zero_stage(s, 2); }, "gradients are reduced with every microbatch"},
      {[](Sections& s) { return set_recompute(s, "full"); }, "the forward pass is computed a second time"},
      {double_tp, "more tensor-parallel messages"},
      {double_pp, "a longer pipeline, with more bubble"},
      {[](Sections& s) { return set_zero_stage(s, 3); }, "weights are gathered for every block and pass"},
  };
}

using BytesOf = std::function<std::optional<int64_t>(const Sections&)>;

// The changes made in order, the later one of a field in place of the earlier.
FittingChange applied(const Sections& before, const std::vector<const Candidate*>& changes, const BytesOf& bytes_of) {
  Sections sections = before;
  FittingChange made;
  std::map<std::string, std::string> settings;  // by field
  for (const Candidate* change : changes) {
    const std::string setting = change->change(sections);
    if (setting.empty()) continue;
    settings[setting.substr(0, setting.find('='))] = setting;
    made.cost += (made.cost.empty() ? "" : "; ") + std::string(change->cost);
  }
  for (const auto& [field, setting] : settings) made.settings.push_back(setting);
  made.bytes = bytes_of(sections).value_or(std::numeric_limits<int64_t>::max());
  return made;
}

// Leaves out each change, the dearest first, without which the rest still fits.
FittingChange without_needless(const Sections& before, std::vector<const Candidate*> changes, const BytesOf& bytes_of,
                               int64_t limit) {
  for (size_t i = changes.size() - 1; i-- > 0;) {
    std::vector<const Candidate*> fewer = changes;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (applied(before, fewer, bytes_of).bytes <= limit) changes = std::move(fewer);
  }
  return applied(before, changes, bytes_of);
}

}  // namespace

std::optional<FittingChange> cheapest_fit(const LayoutRequest& request, const MemoryRequest& memory, int64_t limit) {
  const auto bytes_of = [&](const Sections& sections) -> std::optional<int64_t> {
    LayoutRequest changed = {.model = request.model,
                             .parallel = sections.parallel,
                             .data = sections.data,
                             .world = request.world,
                             .compute = request.compute,
                             .products = request.products};
    try {
      const std::vector<RankClass> classes = memory_classes(plan_layout(changed), memory);
      int64_t most = 0;
      for (const RankClass& ranks : classes) most = std::max(most, total_bytes(ranks.lines, memory.target.device));
      return most;
    } catch (const UsageError&) {  // a rule refuses this layout
      return std::nullopt;
    }
  };
  Sections together{request.parallel, request.data};
  together.parallel.set_dp(MeshShape::resolve(request.parallel, request.world).dp);
  const Sections before = together;
  const std::vector<Candidate> all = candidates();
  std::vector<const Candidate*> made;
  for (const Candidate& candidate : all) {
    Sections alone = before;
    const std::string setting = candidate.change(alone);
    if (setting.empty()) continue;
    if (const auto bytes = bytes_of(alone); bytes && *bytes <= limit)
      return FittingChange{.settings = {setting}, .cost = candidate.cost, .bytes = *bytes};
  }
  for (const Candidate& candidate : all) {
    Sections more = together;
    const std::string setting = candidate.change(more);
    if (setting.empty()) continue;
    const auto bytes = bytes_of(more);
    if (!bytes) continue;
    together = more;
    made.push_back(&candidate);
    if (*bytes <= limit) return without_needless(before, made, bytes_of, limit);
  }
  return std::nullopt;
}

}  // namespace tessera
