// What the mixers of a stage need to know of a microbatch, worked out once for all layers of one kind.
//
// A kind of mixer has a plan of its own (attention's: model/attention/attention_plan.h), which serves every layer of
// that kind, whatever their settings. A MicrobatchPlan holds one for each kind that the stage has.
#pragma once

#include <array>
#include <memory>

#include "model/shape/layer_kind.h"
#include "parallel/batch.h"
#include "tensor/check.h"
#include "tensor/context/context.h"

namespace tessera {

class MixerPlan {
 public:
  virtual ~MixerPlan() = default;
  // Overwrites the plan with a microbatch's, which must stay while the plan is used.
  virtual void make(const Context& context, const Batch& batch) = 0;
};

class MicrobatchPlan {
 public:
  void add(MixerKind kind, std::unique_ptr<MixerPlan> plan) { plans_[index(kind)] = std::move(plan); }

  void make(const Context& context, const Batch& batch) {
    for (const auto& plan : plans_) {
      if (plan != nullptr) plan->make(context, batch);
    }
  }

  const MixerPlan& of(MixerKind kind) const {
    TESSERA_CHECK(plans_[index(kind)] != nullptr, "a mixer asks for a plan that its stage has not made");
    return *plans_[index(kind)];
  }

 private:
  static size_t index(MixerKind kind) { return static_cast<size_t>(kind); }

  std::array<std::unique_ptr<MixerPlan>, kMixerKinds> plans_;
};

}  // namespace tessera
