#include "parallel/context/source.h"

#include <algorithm>
#include <numeric>

#include "tensor/check.h"

namespace tessera {

ContextSource::Part::Part(const ContextPlan::Options& options)
    : plan(options),
      tokens(options.slots),
      targets(options.slots),
      position(options.slots),
      document(options.slots),
      segments(options.slots) {}

ContextSource::ContextSource(Source& whole, const ContextPlan::Options& plan, int rank) : whole_(whole), rank_(rank) {
  TESSERA_CHECK(rank >= 0 && rank < plan.ranks, "a rank of the context-parallel group");
  parts_.reserve(whole.microbatches());  // batches point into their parts, which must stay where they are
  for (int m = 0; m < whole.microbatches(); ++m) parts_.emplace_back(plan);
}

int64_t ContextSource::bytes(const ContextPlan::Options& plan, int microbatches) {
  return microbatches *
         (ContextPlan::bytes(plan) + plan.slots * static_cast<int64_t>(4 * sizeof(int32_t) + sizeof(Segment)));
}

void ContextSource::load(int64_t first_sample) {
  whole_.load(first_sample);
  targets_ = 0;
  for (int m = 0; m < microbatches(); ++m) deal(whole_.batch(m), parts_[m]);
}

void ContextSource::deal(const Batch& whole, Part& part) {
  TESSERA_CHECK(whole.context == nullptr, "a whole microbatch to deal");
  part.plan.make(whole.segments);
  size_t segment = 0;
  for (const ContextPiece& piece : part.plan.pieces(rank_)) {
    const auto copy = [&](std::span<const int32_t> from, std::vector<int32_t>& to) {
      std::copy_n(from.begin() + piece.source, piece.length, to.begin() + piece.slot);
    };
    copy(whole.tokens, part.tokens);
    copy(whole.targets, part.targets);
    copy(whole.position, part.position);
    copy(whole.document, part.document);
    part.segments[segment++] = {piece.slot, piece.slot + piece.length, piece.document, piece.position};
  }
  const int64_t filled = part.plan.filled_slots(rank_);
  std::fill(part.tokens.begin() + filled, part.tokens.end(), 0);
  std::fill(part.targets.begin() + filled, part.targets.end(), -1);
  std::fill(part.position.begin() + filled, part.position.end(), 0);
  std::fill(part.document.begin() + filled, part.document.end(), -1);
  targets_ += filled - std::count(part.targets.begin(), part.targets.begin() + filled, -1);
  part.batch = {
      part.tokens, part.targets, part.position, part.document, std::span<const Segment>(part.segments).first(segment),
      &part.plan};
}

}  // namespace tessera
