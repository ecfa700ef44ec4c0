#include "data/shards/token_dataset.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "data/data.pb.h"
#include "data/shards/token_shard_format.h"
#include "tensor/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> list_shards(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    throw DataError(fmt::format("data source {}: no such file or directory", path));
  if (error) throw IoError(fmt::format("cannot read data source {}: {}", path, error.message()));
  if (!fs::is_directory(status)) return {path};
  std::vector<std::string> shards;
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.ends_with(".h5") && !name.starts_with('.')) shards.push_back(entry->path().string());
  }
  if (error) throw IoError(fmt::format("cannot read data source {}: {}", path, error.message()));
  if (shards.empty())
    throw DataError(
        fmt::format("data source {}: no token shard (*.h5) in the directory; make some with `tessera data "
                    "build`",
                    path));
  std::sort(shards.begin(), shards.end());
  return shards;
}

// The one place that compares what two shards were made with.
void check_same_tokenizer(const TokenShardInfo& a, const TokenShardInfo& b) {
  if (a.tokenizer_fingerprint != b.tokenizer_fingerprint)
    throw DataError(fmt::format("token shards were made with different tokenizers: {} with {}, {} with {}", a.path,
                                a.tokenizer_fingerprint, b.path, b.tokenizer_fingerprint));
  if (a.vocab_size != b.vocab_size || a.end_of_text != b.end_of_text)
    throw DataError(
        fmt::format("token shards of one tokenizer disagree: {} has a vocabulary of {} and end-of-text {}, "
                    "{} has {} and {}",
                    a.path, a.vocab_size, a.end_of_text, b.path, b.vocab_size, b.end_of_text));
}

std::string last_part(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

}  // namespace

TokenDataset::TokenDataset(const std::string& path) : path_(path), first_tokens_{0} {
  for (const std::string& file : list_shards(path)) {
    shards_.emplace_back(file);
    check_same_tokenizer(shards_.front().info(), shards_.back().info());
    first_tokens_.push_back(first_tokens_.back() + shards_.back().tokens());
    documents_ += shards_.back().documents();
  }
}

std::string TokenDataset::identity() const {
  token_shard::StreamingHash hash;
  for (const TokenShard& shard : shards_)
    for (const std::string* part : {&shard.info().tokens_hash, &shard.info().offsets_hash})
      hash.update(part->data(), part->size());
  return hash.digest();
}

size_t TokenDataset::shard_of(int64_t token) const {
  TESSERA_CHECK(token >= 0 && token < tokens(), "a token of the data set");
  const auto after = std::upper_bound(first_tokens_.begin(), first_tokens_.end(), token);
  return static_cast<size_t>(after - first_tokens_.begin()) - 1;
}

void TokenDataset::read(int64_t begin, std::span<int32_t> out) const {
  if (out.empty()) return;
  for (size_t s = shard_of(begin); !out.empty(); ++s) {
    TESSERA_CHECK(s < shards_.size(), "a range of tokens inside the data set");
    const auto count = std::min(out.size(), static_cast<size_t>(first_tokens_[s + 1] - begin));
    shards_[s].read(begin - first_tokens_[s], out.first(count));
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
  }
}

void TokenDataset::prefetch(int64_t begin, int64_t count) const {
  const int64_t end = std::min(begin + count, tokens());
  if (begin >= end) return;
  for (size_t s = shard_of(begin); s < shards_.size() && first_tokens_[s] < end; ++s) {
    const int64_t first = std::max(begin, first_tokens_[s]);
    shards_[s].prefetch(first - first_tokens_[s], std::min(end, first_tokens_[s + 1]) - first);
  }
}

TokenDataset::Cursor TokenDataset::documents_from(int64_t token) const {
  Cursor cursor;
  cursor.dataset_ = this;
  cursor.shard_ = shard_of(token);
  cursor.document_ = shards_[cursor.shard_].document_of(token - first_tokens_[cursor.shard_]);
  return cursor;
}

int64_t TokenDataset::Cursor::next_end(int64_t loaded) {
  TESSERA_CHECK(shard_ < dataset_->shards_.size(), "a document before the end of the data set");
  const TokenShard& shard = dataset_->shards_[shard_];
  const int64_t result = dataset_->first_tokens_[shard_] + shard.document(document_).end;
  if (result <= loaded) shard.check_end(document_);
  if (++document_ == shard.documents()) {
    ++shard_;
    document_ = 0;
  }
  return result;
}

std::vector<OpenSource> open_sources(const google::protobuf::RepeatedPtrField<DataSource>& sources) {
  std::vector<OpenSource> open;
  std::set<std::string> names;
  for (const DataSource& source : sources) {
    if (source.path().empty())
      throw UsageError(
          fmt::format("data source \"{}\" has no path; set it to a token shard or a directory of them", source.name()));
    const std::string name = source.has_name() ? source.name() : last_part(source.path());
    if (!names.insert(name).second)
      throw UsageError(fmt::format("two data sources are named \"{}\" (the second is {}); set name to tell them apart",
                                   name, source.path()));
    open.push_back({name, source.weight(), TokenDataset(source.path())});
    check_same_tokenizer(open.front().dataset.shards().front().info(), open.back().dataset.shards().front().info());
  }
  return open;
}

void check_tokenizer(const std::vector<OpenSource>& sources, std::string_view fingerprint) {
  for (const OpenSource& source : sources)
    if (source.dataset.tokenizer_fingerprint() != fingerprint)
      throw DataError(
          fmt::format("data source \"{}\": token shard {} was made with tokenizer {}, the run has {}; build "
                      "the shards again or set data.tokenizer to the one they were made with",
                      source.name, source.dataset.shards().front().info().path, source.dataset.tokenizer_fingerprint(),
                      fingerprint));
}

void verify_shards(const std::vector<OpenSource>& sources, int rank, int ranks, const std::function<void()>& read) {
  int turn = 0;
  for (const OpenSource& source : sources) {
    for (const TokenShard& shard : source.dataset.shards()) {
      if (turn++ % ranks != rank) continue;
      shard.verify();
      if (read) read();
    }
  }
}

int64_t vocab_size(const std::vector<OpenSource>& sources) {
  int64_t largest = 0;
  for (const OpenSource& source : sources) largest = std::max(largest, source.dataset.vocab_size());
  return largest;
}

}  // namespace tessera
