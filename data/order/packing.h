// Samples cut out of a stream of documents, packed into the arrays of a microbatch.
//
// Sample s is tokens s * L .. s * L + L - 1 of the stream, L = sequence_length; nothing is padded, and a document that
// crosses a sample's end goes on in the next one. The target of a token is the token after it in the stream.
#pragma once

#include <cstdint>

#include "data/shards/token_dataset.h"
#include "parallel/batch_memory.h"

namespace tessera {

// What a sample's documents are to each other (data.proto, reset_positions).
enum class Documents {
  // Each piece of a document is a document of its own: positions count from 0 at its first token in the sample, and
  // the target of a document's last token (end-of-text) is -1.
  Apart,
  // The sample is one document: positions 0 .. L - 1, targets cross from one document to the next.
  Joined,
};

// What becomes of the tokens that are left over at the end of the stream.
enum class LastSample {
  Drop,  // training: samples = floor(tokens / L)
  Pad,   // validation: one more sample when there are any, filled up with padding
};

int64_t sample_count(int64_t tokens, int64_t sequence_length, LastSample last);

// One microbatch: room for `samples` samples, taken once. Padding has target -1, document -1, position 0, the
// end-of-text token, and no segment.
class PackedBatch {
 public:
  PackedBatch(int64_t samples, int64_t sequence_length);
  PackedBatch(PackedBatch&&) noexcept = default;  // the view stays right: BatchMemory keeps its arrays when moved

  void clear();
  // Append the next sample; documents go on counting from those of the samples before. Allocate nothing. The target of
  // the stream's very last token is -1. Throws DataError for a token outside the vocabulary
  // and for damaged document offsets.
  void add(const TokenDataset& dataset, int64_t sample, Documents documents);
  void add_padding(int32_t token);

  // All samples; to be asked for when all have been added.
  const Batch& batch() const;
  int64_t targets() const { return targets_count_; }  // that are not -1

  static int64_t bytes(int64_t samples, int64_t sequence_length);  // of memory that it takes

 private:
  void add_segments(const TokenDataset& dataset, int64_t begin, int64_t count, Documents documents);

  int64_t sequence_length_;
  BatchMemory memory_;  // [samples * L]
  int64_t slots_ = 0;   // filled so far
  int32_t next_document_ = 0;
  int64_t targets_count_ = 0;
  Batch batch_;
};

}  // namespace tessera
