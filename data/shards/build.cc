#include "data/shards/build.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "data/shards/ordered_encoder.h"
#include "data/shards/token_shard_writer.h"
#include "data/tokenizer/tokenizer.h"
#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

// Runs a function of std::filesystem that reports through an error_code, and throws when it does.
template <class F>
auto checked(const std::string& what, F&& function) {
  std::error_code error;
  auto result = function(error);
  if (error) throw IoError(fmt::format("{}: {}", what, error.message()));
  return result;
}

// One of the two output directories, under its temporary name until commit().
class Split {
 public:
  Split(const std::string& output, const std::string& name, ExistingShards existing)
      : directory_(output + "/" + name), building_(directory_ + ".building") {
    check_existing(existing);
    remove(building_);  // left by a build that was killed
  }
  ~Split() {
    sequence_.reset();
    std::error_code ignored;
    fs::remove_all(building_, ignored);
  }
  Split(const Split&) = delete;
  Split& operator=(const Split&) = delete;

  void begin(const TokenShardFormat& format, int64_t shard_tokens) {
    checked("cannot make " + building_, [&](auto& e) { return fs::create_directories(building_, e); });
    sequence_ = std::make_unique<TokenShardSequence>(building_, format, shard_tokens);
  }
  void append(std::span<const int32_t> tokens) { sequence_->append(tokens); }
  void finish() {
    if (sequence_) sequence_->finish();
  }

  // Gives the directory its name; what had it before goes, and with an empty split only that happens.
  void commit() {
    const std::string old = directory_ + ".replaced";
    remove(old);
    if (fs::exists(directory_)) rename(directory_, old);
    if (sequence_ && sequence_->documents() > 0) rename(building_, directory_);
    remove(old);
  }

  SplitSize size() const {
    if (!sequence_) return {};
    return {sequence_->documents(), sequence_->tokens(), std::ssize(sequence_->paths())};
  }

 private:
  void check_existing(ExistingShards existing) const {
    if (!fs::exists(directory_)) return;
    if (!fs::is_directory(directory_)) throw UsageError(fmt::format("{} is not a directory", directory_));
    for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
      const std::string name = entry.path().filename().string();
      if (existing == ExistingShards::Refuse)
        throw UsageError(fmt::format("{} is not empty (it holds {}); choose another output, or replace it with --force",
                                     directory_, name));
      if (!entry.is_regular_file() || !name.ends_with(".h5"))
        throw UsageError(
            fmt::format("{} holds {}, which is not a token shard and would be lost; move it away", directory_, name));
    }
  }

  static void remove(const std::string& path) {
    checked("cannot remove " + path, [&](auto& e) { return fs::remove_all(path, e); });
  }
  static void rename(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0)
      throw IoError(fmt::format("cannot rename {} to {}: {}", from, to, std::strerror(errno)));
  }

  std::string directory_, building_;
  std::unique_ptr<TokenShardSequence> sequence_;
};

void check_options(const BuildOptions& options) {
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1))
    throw UsageError(fmt::format("the validation fraction is {}; it must be at least 0 and less than 1",
                                 options.validation_fraction));
  if (options.shard_tokens < 1)
    throw UsageError(fmt::format("the tokens of a shard are {}; at least 1 is needed", options.shard_tokens));
  if (options.threads < 1) throw UsageError(fmt::format("threads are {}; at least 1 is needed", options.threads));
}

// Decides the split of each document, and knows what would have decided otherwise.
class Splitter {
 public:
  explicit Splitter(const BuildOptions& options)
      : fraction_(options.validation_fraction), seed_(options.seed), stream_(options.seed, "validation split") {}

  bool is_validation(int64_t document) {
    const double u = stream_.uniform(static_cast<uint64_t>(document));
    least_ = std::min(least_, u);
    most_ = std::max(most_, u);
    return u < fraction_;
  }

  void check(int64_t train, int64_t validation) const {
    if (fraction_ == 0 || (train > 0 && validation > 0)) return;
    const std::string problem = fmt::format("no document of {} fell to the {} split (validation fraction {}, seed {})",
                                            train + validation, train > 0 ? "validation" : "train", fraction_, seed_);
    if (train + validation == 1)
      throw DataError(problem +
                      "; one document cannot be in both: use a fraction of 0, or give the text as more documents");
    constexpr double kDigits = 1e6;
    throw DataError(fmt::format("{}; a fraction {} would put one there, another seed may, more documents will", problem,
                                train > 0 ? fmt::format("above {:.6f}", std::ceil(least_ * kDigits) / kDigits)
                                          : fmt::format("of at most {:.6f}", std::floor(most_ * kDigits) / kDigits)));
  }

 private:
  double fraction_;
  uint64_t seed_;
  RandomStream stream_;
  double least_ = 1, most_ = 0;
};

void sync_directory(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool good = file >= 0 && ::fsync(file) == 0;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (!good) throw IoError(fmt::format("cannot sync {}: {}", path, std::strerror(error)));
}

}  // namespace

BuildResult build_shards(const BuildOptions& options, const Tokenizer& tokenizer,
                         const std::function<void(const BuildResult&)>& progress) {
  check_options(options);
  Split train(options.output, "train", options.existing);
  Split validation(options.output, "validation", options.existing);
  Corpus corpus(options.inputs, options.corpus);
  const TokenShardFormat format{tokenizer.fingerprint(), tokenizer.vocab_size(), tokenizer.end_of_text()};
  train.begin(format, options.shard_tokens);
  if (options.validation_fraction > 0) validation.begin(format, options.shard_tokens);

  Splitter splitter(options);
  const auto result = [&] { return BuildResult{train.size(), validation.size(), corpus.report()}; };
  int64_t written = 0;
  OrderedEncoder encoder(
      options.threads, [&](std::string_view text, std::vector<int32_t>& tokens) { tokenizer.encode(text, tokens); },
      [&](std::span<const int32_t> tokens) {
        (splitter.is_validation(written++) ? validation : train).append(tokens);
      });
  constexpr int64_t kProgressBytes = 1 << 20;
  int64_t reported = 0;
  for (Document document; corpus.next(document);) {
    encoder.add(std::move(document.text),
                document.line > 0 ? fmt::format("{}:{}", document.source, document.line) : document.source);
    if (progress && corpus.report().bytes - reported >= kProgressBytes) {
      reported = corpus.report().bytes;
      progress(result());
    }
  }
  encoder.finish();
  splitter.check(train.size().documents, validation.size().documents);
  train.finish();
  validation.finish();
  BuildResult final = result();
  train.commit();
  validation.commit();
  sync_directory(options.output);
  return final;
}

}  // namespace tessera
