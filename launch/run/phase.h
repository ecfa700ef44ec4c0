// One phase of a run: what belongs to one layout, one mixture of data and one sequence length. A *stage* is the
// pipeline's.
//
// A run (launch/run/training_run.h) has one phase at a time. A new one has initial weights and opens its data; then its
// state is overwritten, from a checkpoint or from the phase before; then it begins where the run stands.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/order/history.h"
#include "data/order/loader.h"
#include "launch/metrics/step_metrics.h"
#include "launch/process/session.h"
#include "launch/run/assembly.h"
#include "launch/run/validation.h"
#include "optim/gradient_noise.h"
#include "parallel/pipeline.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Where a run stands: what the checkpoint's cursors hold.
struct RunPosition {
  int64_t step = 0;     // done
  int64_t samples = 0;  // given to the model
  int64_t tokens = 0;   // target tokens among them
};

class Phase {
 public:
  // config: resolved, and its layout; config and session must outlive the phase. Collective over the world. Throws UsageError when ranks
  // and layout do not match, DataError when the data are missing or of another tokenizer.
  Phase(const RunConfig& config, const Layout& layout, Session& session);
  ~Phase();
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

  Assembly& assembly() { return assembly_; }
  const RunConfig& config() const { return config_; }
  // Fingerprint of the tokenizer that the training data were made with, as those of validation must be.
  const std::string& tokenizer() const { return tokenizer_; }

  // Reads all training data before the run begins, where data.verify asks for it; `read` is called after each shard.
  // Throws DataError naming the first shard that is damaged.
  void verify_data(const std::function<void()>& read) const;

  // Calls `load` with the weights' and moments' slices in host memory, to be overwritten. Takes what they hold then when
  // it returns true; the phase keeps its initial weights when it returns false.
  void load(const std::function<bool(State& state)>& load);

  // Notes in the history what comes from this position on, and makes the loader, the validation sets and the step.
  // guard: what the optimizer is to go through.
  void begin(const RunPosition& position, uint64_t seed, DataHistory& history,
             const std::function<Reducer&(Reducer&)>& guard);

  // From here on only after begin().
  // Trains a step and moves the position behind it. Collective; throws as Pipeline::step, and the position stays.
  StepMetrics step(RunPosition& position);
  std::vector<ValidationSet>& validation() { return validation_; }
  EvaluationResult evaluate(ValidationSet& set) { return tessera::evaluate(assembly_, config_, set); }

  const Loader& loader() const { return *loader_; }
  // Memory of this rank that the phase holds, by category.
  std::vector<MemoryLine> memory();

 private:
  Reducer& measured(
      const RunPosition& position);  // the optimizer, with its gradients' noise measured where that can be

  const RunConfig& config_;
  Session& session_;
  Assembly assembly_;
  std::vector<OpenSource> sources_;  // until the loader takes them
  std::string tokenizer_;
  std::unique_ptr<Loader> loader_;
  std::vector<ValidationSet> validation_;
  std::unique_ptr<GradientNoise> noise_;  // null where it cannot be measured
  std::unique_ptr<Pipeline> pipeline_;
  AbandonOnFailure abandon_on_failure_{assembly_.link()};  // before what waits for other ranks is destroyed
};

}  // namespace tessera
