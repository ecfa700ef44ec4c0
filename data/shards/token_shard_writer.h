// Writes token shards (docs/FORMATS.md, "Token shards") in bounded memory.
//
// How long a shard will be is not known while it is written, and a contiguous dataset needs its extent: tokens and
// document offsets go to two unnamed temporary files beside the shard and from there into HDF5. The shard has a
// temporary name (PATH.tmp) until it is whole and fsynced, so a file with the right name is a whole shard.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tessera {

struct TokenShardFormat {
  std::string tokenizer_fingerprint;
  int64_t vocab_size = 0;
  int32_t end_of_text = 0;
};

class TokenShardWriter {
 public:
  // Throws IoError: the directory does not exist or cannot be written, and later from every call: the disk is full.
  TokenShardWriter(const std::string& path, const TokenShardFormat& format);
  ~TokenShardWriter();  // without finish() nothing is left behind

  // Adds a document: `tokens` without an end-of-text at their end, which is appended here. Throws DataError when a
  // token is outside the vocabulary.
  void append(std::span<const int32_t> tokens);

  int64_t tokens() const;
  int64_t documents() const;

  // Writes the file, fsyncs it, gives it its name (replacing a file that has it) and fsyncs the directory. At least
  // one document is needed, and nothing can be appended after.
  void finish();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// A sequence of shards shard-000000.h5, shard-000001.h5, ... in one directory. A document is never divided: a shard is
// closed as soon as it holds at least `shard_tokens` tokens.
class TokenShardSequence {
 public:
  TokenShardSequence(std::string directory, TokenShardFormat format, int64_t shard_tokens);
  ~TokenShardSequence();

  void append(std::span<const int32_t> tokens);
  void finish();

  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  const std::vector<std::string>& paths() const { return paths_; }  // of the finished shards

 private:
  void close_shard();

  std::string directory_;
  TokenShardFormat format_;
  int64_t shard_tokens_;
  int64_t tokens_ = 0, documents_ = 0;
  std::unique_ptr<TokenShardWriter> writer_;
  std::vector<std::string> paths_;
};

}  // namespace tessera
