// One microbatch as one rank sees it: what the loader hands out for the token slots that the context plan gives this
// rank.
#pragma once

#include <cstdint>
#include <span>

namespace tessera {

class ContextPlan;  // parallel/context/plan.h

// A run of neighbouring slots that holds one piece of one document, in order.
struct Segment {
  int32_t begin = 0;     // first slot
  int32_t end = 0;       // one past the last
  int32_t document = 0;  // id, unique within the microbatch
  int32_t position = 0;  // position of the first token inside its document
};

// Views of length `slots`; every tensor-parallel rank of a context-parallel rank sees the same ones.
struct Batch {
  std::span<const int32_t> tokens;
  std::span<const int32_t> targets;      // next token, or -1: counts nowhere
  std::span<const int32_t> position;     // inside the document
  std::span<const int32_t> document;     // id within the microbatch; -1: padding
  std::span<const Segment> segments;     // ascending by slot, covering all slots but padding
  const ContextPlan* context = nullptr;  // where all tokens of the microbatch are; null: all here (cp = 1)

  int64_t slots() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace tessera
