// Deals another source's microbatches: each context-parallel rank gets the tokens that the plan
// (parallel/context/plan.h) gives it. The one place where a microbatch is cut: sources know of no cut, and targets were
// worked out before it, so that no token at a border is lost.
//
// Ranks that share a microbatch read the same whole one, and deal it alike without communication.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/batch_memory.h"
#include "parallel/context/plan.h"
#include "parallel/source.h"

namespace tessera {

class ContextSource final : public Source {
 public:
  // whole: has microbatches of plan.tokens slots; must outlive this. rank: in the context-parallel group. Takes all
  // memory.
  ContextSource(Source& whole, const ContextPlan::Options& plan, int rank);

  // Loads the whole source, too. Slots that are left over are padding: target -1, document -1, position 0, token 0, and
  // no segment.
  void load(int64_t first_sample) override;
  int microbatches() const override { return static_cast<int>(parts_.size()); }
  const Batch& batch(int m) const override { return parts_.at(m).batch; }
  int64_t targets() const override { return targets_; }  // in this rank's slots

  // Bytes of memory that it takes for that many microbatches, the whole source's not counted.
  static int64_t bytes(const ContextPlan::Options& plan, int microbatches);

 private:
  struct Part {
    Part(const ContextPlan::Options& options);

    ContextPlan plan;
    BatchMemory memory;
    Batch batch;  // of the memory, with the plan
  };
  void deal(const Batch& whole, Part& part);

  Source& whole_;
  int rank_;
  std::vector<Part> parts_;
  int64_t targets_ = 0;
};

}  // namespace tessera
