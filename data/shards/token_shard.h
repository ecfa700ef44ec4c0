// A token shard: one HDF5 file of documents as tokens (docs/FORMATS.md, "Token shards"). This is the reading side.
//
// HDF5 opens the file to read its attributes and where its two datasets lie; the tokens are then read from there, so a
// shard of any size opens in milliseconds and takes no memory of its own. A shard that is cut off or written to while it
// is open is a DataError of whatever reads it next.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/shards/published_file.h"
#include "tensor/dtype.h"
#include "tensor/interval.h"

namespace tessera {

// What a shard says about itself, from its attributes.
struct TokenShardInfo {
  std::string path;
  DType dtype = DType::U16;  // U16 when vocab_size <= 65536, else U32
  int64_t tokens = 0;        // at least 1
  int64_t documents = 0;     // at least 1
  int64_t vocab_size = 0;
  int32_t end_of_text = 0;
  std::string tokenizer_fingerprint;
  std::string tokens_hash;   // XXH3-128 of the tokens' bytes, 32 hex digits
  std::string offsets_hash;  // of the document offsets' bytes
  int64_t file_bytes = 0;
};

class TokenShard {
 public:
  // Checks everything but the tokens themselves (see verify). Throws DataError naming the file and what is wrong: not
  // HDF5, cut off (expected and actual bytes), never closed by its writer, another version, a missing or wrong
  // attribute, a dataset that is missing, of another type or shape, or anything but contiguous inside this very file;
  // IoError when the file cannot be read.
  explicit TokenShard(const std::string& path);

  const TokenShardInfo& info() const { return info_; }
  int64_t tokens() const { return info_.tokens; }
  int64_t documents() const { return info_.documents; }

  // Overwrites out with tokens begin .. begin + out.size() - 1. Throws DataError when one is outside the vocabulary.
  void read(int64_t begin, std::span<int32_t> out) const;

  // A document's tokens, the last of them end-of-text. Throws DataError naming the shard and the document when its
  // offsets are out of order or lead outside the shard: opening does not read them all.
  Interval document(int64_t d) const;

  // The document that holds a token; binary search, O(log documents). Throws DataError as document() does.
  int64_t document_of(int64_t token) const;

  // Throws DataError naming the shard and the document when it does not end with end-of-text: its end is damaged then.
  void check_end(int64_t d) const;

  // Asks the kernel to have these tokens in memory soon; returns at once.
  void prefetch(int64_t begin, int64_t count) const;

  // Reads everything: both hashes, offsets strictly ascending from 0 to the number of tokens, tokens inside the
  // vocabulary, every document ending with end-of-text. Throws DataError naming the file and the first thing found.
  void verify() const;

 private:
  void read_offsets(int64_t first, std::span<uint64_t> out) const;
  void check_hashes() const;
  void check_documents() const;

  TokenShardInfo info_;
  PublishedFile file_;
  int64_t tokens_at_ = 0, offsets_at_ = 0;  // where the datasets begin in the file
};

}  // namespace tessera
