// Learns the merges of a byte-level BPE tokenizer from text. Sennrich, Haddow and Birch 2016, algorithm 1.
//
// The text is cut into pieces, equal pieces are counted once. Then, again and again, the most frequent pair of
// neighbouring tokens (of equally frequent ones the one with the smaller left id, then right id) becomes a new token,
// until the vocabulary is full. The result is a function of the text and the options; the number of threads is no part
// of it.
//
// Vocabulary: 0..255 the bytes, then one token per merge in their order, then `<|endoftext|>`. A pair that would spell
// a token that exists already is passed over, so every token has one merge.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/tokenizer/pretokenizer.h"
#include "data/tokenizer/tokenizer.h"

namespace tessera {

struct BpeTrainerOptions {
  int64_t vocab_size = 32768;  // at least 257, which asks for no merges
  SplitPattern pattern = SplitPattern::Gpt2;
  int64_t sample_bytes = 0;               // learn from about this much text, drawn evenly; 0: from all of it
  int threads = 1;                        // that count pieces
  int64_t max_pieces = int64_t{8} << 20;  // bounds memory (some 150 bytes each): rarer pieces are forgotten
  int64_t min_count = 2;                  // a pair that occurs less often is not worth a token
};

struct BpeTrainerReport {
  int64_t documents = 0;      // read
  int64_t bytes = 0;          // of the documents
  int64_t sampled_bytes = 0;  // that were learned from
  int64_t pieces = 0;         // different ones
  int64_t pruned_pieces = 0;  // forgotten because of max_pieces
  int64_t pruned_bytes = 0;   // text in them
  int64_t merges = 0;         // fewer than asked for when no pair reaches min_count
  int64_t tokens = 0;         // that the learned-from text (less what was pruned) has in the end
};

class BpeTrainer {
 public:
  // Overwrites its argument with the next document; false at the end.
  using NextDocument = std::function<bool(std::string& document)>;

  // Throws UsageError naming the option that is out of range.
  explicit BpeTrainer(const BpeTrainerOptions& options);

  // Throws DataError when there is no text at all, or naming the document (from 0) and the byte offset where it is not
  // UTF-8. Documents of more than 1 MiB are cut there for counting, which splits one piece of each MiB.
  Tokenizer train(const NextDocument& next);

  // Of the last training.
  const BpeTrainerReport& report() const { return report_; }

 private:
  BpeTrainerOptions options_;
  BpeTrainerReport report_;
};

}  // namespace tessera
