// What layers of one kind of mixer take for a document's tokens: what a context plan balances (parallel/context/plan.h).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace tessera {

struct MixerWork {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  int64_t layers = 1;
  // The work of one layer for a document's first n tokens, in a unit that all kinds of a model share: 0 for none, and
  // not falling in n.
  std::function<int64_t(int64_t n)> first;
  // The number of tokens after which every further one takes as much as the one before it: 0 for a recurrence, the
  // window of attention with one, kNever where work grows for ever.
  int64_t even_after = kNever;
};

// Layers of attention of one kind: so many of them look back so far.
struct AttentionKind {
  int64_t window = 0;  // 0: all of the document
  int64_t layers = 1;
};

// Work as visible (query, key) pairs: query i sees keys max(0, i - window + 1) .. i.
MixerWork attention_work(const AttentionKind& kind);
std::vector<MixerWork> attention_work(std::span<const AttentionKind> kinds);

}  // namespace tessera
