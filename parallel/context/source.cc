#include "parallel/context/source.h"

#include "tensor/check.h"

namespace tessera {

ContextSource::Part::Part(const ContextPlan::Options& options) : plan(options), memory(options.slots) {}

ContextSource::ContextSource(Source& whole, const ContextPlan::Options& plan, int rank) : whole_(whole), rank_(rank) {
  TESSERA_CHECK(rank >= 0 && rank < plan.ranks, "a rank of the context-parallel group");
  parts_.reserve(whole.microbatches());  // batches point into their parts, which must stay where they are
  for (int m = 0; m < whole.microbatches(); ++m) parts_.emplace_back(plan);
}

int64_t ContextSource::bytes(const ContextPlan::Options& plan, int microbatches) {
  return microbatches * (ContextPlan::bytes(plan) + BatchMemory::bytes(plan.slots));
}

void ContextSource::load(int64_t first_sample) {
  whole_.load(first_sample);
  targets_ = 0;
  for (int m = 0; m < microbatches(); ++m) deal(whole_.batch(m), parts_[m]);
}

void ContextSource::deal(const Batch& whole, Part& part) {
  TESSERA_CHECK(whole.context == nullptr, "a whole microbatch to deal");
  part.plan.make(whole.segments);
  part.memory.clear();
  for (const ContextPiece& piece : part.plan.pieces(rank_)) {
    part.memory.copy(whole, piece.source, piece.length, piece.slot);
    part.memory.add_segment({piece.slot, piece.slot + piece.length, piece.document, piece.position});
  }
  targets_ += part.memory.count_targets(0, part.memory.slots());
  part.batch = part.memory.view();
  part.batch.context = &part.plan;
}

}  // namespace tessera
