// The shards of one data source as one stream of tokens: the documents of the first shard, of the second, and so on.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/shards/token_shard.h"

// What protobuf declares and generates, for config messages passed through.
namespace google::protobuf {
template <typename Element>
class RepeatedPtrField;
}

namespace tessera {

class DataSource;  // data.proto

class TokenDataset {
 public:
  // path is a token shard or a directory: its files *.h5 in the order of their names (hidden ones left out). Throws
  // DataError: the path does not exist, a directory without shards, a bad shard (token_shard.h), shards that were made
  // with different tokenizers or vocabularies (naming both shards and both fingerprints).
  explicit TokenDataset(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TokenShard>& shards() const { return shards_; }
  int64_t tokens() const { return first_tokens_.back(); }
  int64_t documents() const { return documents_; }

  // The same for all shards.
  const std::string& tokenizer_fingerprint() const { return shards_.front().info().tokenizer_fingerprint; }
  int64_t vocab_size() const { return shards_.front().info().vocab_size; }
  int32_t end_of_text() const { return shards_.front().info().end_of_text; }

  // Hash of the shards' own hashes: equal for equal tokens in equal shards, wherever they lie. 32 hex digits.
  std::string identity() const;

  // Overwrites out with tokens begin .. begin + out.size() - 1 of the stream.
  void read(int64_t begin, std::span<int32_t> out) const;

  void prefetch(int64_t begin, int64_t count) const;

  // Walks through the document ends of the stream from a token on: O(log) to begin, O(1) a step, no index.
  class Cursor {
   public:
    // One past the last token of the document that holds the current token; then moves on to the next document. When
    // that end is at most `loaded` its last token must be end-of-text: the caller reads the tokens before `loaded`
    // anyhow. Throws DataError naming the shard and the document whose offsets are damaged.
    int64_t next_end(int64_t loaded);

   private:
    friend class TokenDataset;
    const TokenDataset* dataset_;
    size_t shard_;
    int64_t document_;
  };
  Cursor documents_from(int64_t token) const;  // throws DataError: damaged offsets

 private:
  size_t shard_of(int64_t token) const;

  std::string path_;
  std::vector<TokenShard> shards_;
  std::vector<int64_t> first_tokens_;  // [shards + 1]
  int64_t documents_ = 0;
};

// A source of the config, opened.
struct OpenSource {
  std::string name;
  double weight = 1;
  TokenDataset dataset;
};

// Opens data.train or data.validation. A name that is not set is the last part of the path. Throws UsageError: a source
// without a path, two of one name; DataError: as TokenDataset, and sources made with different tokenizers.
std::vector<OpenSource> open_sources(const google::protobuf::RepeatedPtrField<DataSource>& sources);

// Throws DataError naming the first shard and both fingerprints when the sources were made with another tokenizer.
void check_tokenizer(const std::vector<OpenSource>& sources, std::string_view fingerprint);

// Reads all shards of the sources and throws DataError naming the first that is damaged (TokenShard::verify). Rank `rank`
// of `ranks` takes every ranks-th shard, so together they read each once; `read` is called after each shard.
void verify_shards(const std::vector<OpenSource>& sources, int rank, int ranks, const std::function<void()>& read = {});

// The largest vocabulary of the sources: what a model's must reach.
int64_t vocab_size(const std::vector<OpenSource>& sources);

}  // namespace tessera
