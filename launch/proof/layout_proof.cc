#include "launch/proof/layout_proof.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "data/order/synthetic_source.h"
#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "optim/lr_schedule.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

// This rank's rows into the whole tensor.
void put(WholeTensors& whole, const std::string& name, const Shape& global, const Interval& rows,
         const ConstTensor& part) {
  std::vector<double>& values = whole[name];
  values.resize(global.size());
  const auto from = part.span<double>();
  std::copy(from.begin(), from.end(), values.begin() + rows.begin * global.row_size());
}

double relative(double a, double b) {
  if (a == b) return 0;
  const double scale = std::max(std::abs(a), std::abs(b));
  return std::isfinite(scale) ? std::abs(a - b) / scale : INFINITY;
}

double relative(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  if (difference == 0) return 0;
  return std::isfinite(difference) ? std::sqrt(difference / std::max(size, difference)) : INFINITY;
}

// The largest difference between tensors of equal names; `first`: the first name above the tolerance.
double largest(const WholeTensors& a, const WholeTensors& b, std::string* first) {
  double most = 0;
  const auto meet = [&](const std::string& name, double difference) {
    if (difference > kLayoutTolerance && first->empty()) *first = name;
    most = std::max(most, difference);
  };
  for (const auto& [name, values] : b) {
    const auto found = a.find(name);
    meet(name, found == a.end() ? INFINITY : relative(found->second, values));
  }
  for (const auto& [name, values] : a) {
    if (!b.contains(name)) meet(name, INFINITY);
  }
  return most;
}

}  // namespace

RunRecord record_run(const RunConfig& config, const Layout& layout, int64_t steps, const Interference& interference) {
  const int ranks = layout.mesh.size();
  const int threads = std::max(1, usable_cores() / ranks);
  RunRecord record;
  record.gradients.resize(steps);
  std::mutex mutex;
  run_ranks(ranks, [&](Comm& world) {
    Assembly parts(config, layout, world, threads);
    TESSERA_CHECK(parts.shape().compute == DType::F64, "a proof is made in F64");
    SyntheticSource random({.vocab = config.model().vocab_size(),
                            .sequence_length = config.data().sequence_length(),
                            .micro_batch_size = config.data().micro_batch_size(),
                            .global_batch_size = config.data().global_batch_size(),
                            .mean_document = std::max<int64_t>(1, config.data().sequence_length() / 4),
                            .dp = parts.mesh().extent(Axis::Dp),
                            .dp_rank = parts.mesh().coordinate(Axis::Dp),
                            .seed = config.run().seed()});
    const std::unique_ptr<Source> source = interference.source ? interference.source(random, parts.mesh()) : nullptr;
    const std::unique_ptr<Reducer> reducer =
        interference.reducer ? interference.reducer(parts.optimizer(), parts.mesh()) : nullptr;
    const std::unique_ptr<Pipeline> pipeline =
        parts.training(source ? *source : random, reducer ? *reducer : static_cast<Reducer&>(parts.optimizer()));
    for (int64_t step = 1; step <= steps; ++step) {
      const StepResult result = pipeline->step(parts.context(), (step - 1) * config.data().global_batch_size(),
                                               learning_rate_at(config.lr_schedule(), step), step);
      const std::lock_guard lock(mutex);
      if (world.rank() == 0) {
        record.losses.push_back(result.loss);
        record.norms.push_back(result.gradient_norm);
      }
      for (const StateSlice& slice : (reducer ? *reducer : static_cast<Reducer&>(parts.optimizer())).gradients())
        put(record.gradients[step - 1], slice.name, slice.global_shape, slice.rows, slice.data);
    }
    const std::lock_guard lock(mutex);
    for (const StateSlice& slice : parts.optimizer().state())
      put(record.state, slice.name, slice.global_shape, slice.rows, slice.data);
  });
  return record;
}

bool LayoutDifference::equal() const { return std::max({loss, norm, gradient, state}) <= kLayoutTolerance; }

LayoutDifference compare_runs(const RunRecord& one, const RunRecord& other) {
  TESSERA_CHECK_EQ(one.losses.size(), other.losses.size(), "steps of two runs");
  LayoutDifference difference;
  for (size_t step = 0; step < one.losses.size(); ++step) {
    difference.loss = std::max(difference.loss, relative(other.losses[step], one.losses[step]));
    difference.norm = std::max(difference.norm, relative(other.norms[step], one.norms[step]));
    std::string first;
    difference.gradient = std::max(difference.gradient, largest(other.gradients[step], one.gradients[step], &first));
    if (difference.first_gradient.empty() && !first.empty()) {
      difference.first_gradient = first;
      difference.first_step = static_cast<int64_t>(step) + 1;
    }
  }
  difference.state = largest(other.state, one.state, &difference.first_state);
  return difference;
}

}  // namespace tessera
