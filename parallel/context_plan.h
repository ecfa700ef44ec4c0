// Which context-parallel rank holds which tokens of a microbatch: a pure function of the documents' lengths, worked out
// on every rank alike without communication.
//
// Each rank has a fixed number of token slots. Long documents are cut into pieces and dealt so that the work of attention
// is even, short ones are placed whole; what a rank has left over is padding, which counts nowhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/batch.h"

namespace tessera {

// Neighbouring tokens of one document on one rank.
struct ContextPiece {
  int32_t rank = 0;
  int32_t slot = 0;      // of its first token on that rank
  int32_t source = 0;    // its first token's place in the packed microbatch, before dealing
  int32_t length = 0;    // tokens, at least one
  int32_t document = 0;  // id within the microbatch
  int32_t position = 0;  // of its first token inside its document
};

// Layers of one kind: so many of them look back so far.
struct AttentionKind {
  int64_t window = 0;  // 0: all of the document
  int64_t layers = 1;
};

// Token slots of one rank for a microbatch of `tokens`: ceil((1 + slack) * tokens / cp), rounded up to a multiple of
// tp * kAttentionTile; with cp = 1, tokens themselves. Throws UsageError with the rule and what would fit when there are
// fewer tiles than ranks.
int64_t context_slots(int64_t tokens, int cp, int tp, double slack);

class ContextPlan {
 public:
  struct Options {
    int ranks = 1;         // cp
    int64_t tokens = 0;    // of a microbatch, padding included
    int64_t slots = 0;     // of one rank: context_slots()
    std::vector<AttentionKind> kinds = {{}};  // of the model's layers, for the work
  };

  explicit ContextPlan(Options options);  // takes the memory for the worst packing

  // Deals the tokens of these segments: ascending, not overlapping, each one piece of a document. Overwrites the plan.
  // Allocates nothing. Throws DataError, with the rule and what would fit, when they cannot be placed in the slots.
  void make(std::span<const Segment> segments);

  int ranks() const { return options_.ranks; }
  int64_t slots() const { return options_.slots; }

  // By rank, then slot: of all ranks, and of one. Pieces of a document on one rank ascend with their position.
  std::span<const ContextPiece> pieces() const;
  std::span<const ContextPiece> pieces(int rank) const;

  // Visible (query, key) pairs of a rank's queries, summed over the layers of all kinds.
  int64_t work(int rank) const;

 private:
  Options options_;
  std::vector<ContextPiece> pieces_;
  std::vector<int32_t> first_;  // [ranks + 1] into pieces_
};

}  // namespace tessera
