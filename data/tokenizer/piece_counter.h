// How often each piece of text occurs, counted by several threads in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/pretokenizer.h"

namespace tessera {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using PieceCounts = std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>;

// Texts are gathered into batches, and the threads share the texts of a batch. Counts are sums and batches depend on
// the texts alone, so the result is the same for any number of threads. When more than `max_pieces` different pieces
// are held after a batch, the rarest are forgotten until three quarters of `max_pieces` are left (of equally rare ones
// those that sort later as bytes).
class PieceCounter {
 public:
  // Longer pieces are counted in parts of this many bytes, which bounds the memory of a piece and the length of tokens.
  static constexpr size_t kMaxPieceBytes = 256;

  // pretokenizer must outlive this. threads >= 1, max_pieces >= 4, batch_bytes >= 1.
  PieceCounter(const Pretokenizer& pretokenizer, int threads, int64_t max_pieces,
               int64_t batch_bytes = int64_t{8} << 20);

  // text is UTF-8 (not checked). The unit that threads share: cut long documents before. Throws what the pretokenizer
  // throws, maybe only when a later text, or finish(), completes the batch.
  void add(std::string text);

  // Counts what is left. The counter is empty afterwards.
  PieceCounts finish();

  int64_t pruned_pieces() const { return pruned_pieces_; }  // forgotten; one that came back and went again counts twice
  int64_t pruned_bytes() const { return pruned_bytes_; }    // of text, occurrences counted

 private:
  void count_batch();
  void count_text(std::string_view text, Pretokenizer::Scratch& scratch, PieceCounts& counts) const;
  void prune();

  const Pretokenizer& pretokenizer_;
  int64_t max_pieces_;
  int64_t batch_bytes_;
  std::vector<std::string> batch_;
  int64_t bytes_in_batch_ = 0;
  std::vector<Pretokenizer::Scratch> scratch_;  // one a thread
  PieceCounts counts_;
  int64_t pruned_pieces_ = 0;
  int64_t pruned_bytes_ = 0;
};

}  // namespace tessera
