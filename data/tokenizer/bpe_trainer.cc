#include "data/tokenizer/bpe_trainer.h"

#include <fmt/core.h>

#include <memory>
#include <optional>
#include <utility>

#include "data/tokenizer/merge_learner.h"
#include "data/tokenizer/piece_counter.h"
#include "data/tokenizer/text_sample.h"
#include "data/tokenizer/tokenizer_model.h"
#include "data/tokenizer/utf8.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr int32_t kBytes = 256;
constexpr size_t kSectionBytes = 1 << 20;  // what one thread counts at a time
constexpr std::string_view kEndOfText = "<|endoftext|>";

void require_at_least(std::string_view option, int64_t value, int64_t least) {
  if (value < least) throw UsageError(fmt::format("{} = {} must be at least {}", option, value, least));
}

}  // namespace

BpeTrainer::BpeTrainer(const BpeTrainerOptions& options) : options_(options) {
  require_at_least("vocab_size", options.vocab_size, kBytes + 1);
  if (options.vocab_size > kMaxTokenId + 1)
    throw UsageError(fmt::format("vocab_size = {} must be at most {}", options.vocab_size, kMaxTokenId + 1));
  require_at_least("sample_bytes", options.sample_bytes, 0);
  require_at_least("threads", options.threads, 1);
  require_at_least("max_pieces", options.max_pieces, 4);
  require_at_least("min_count", options.min_count, 1);
}

Tokenizer BpeTrainer::train(const NextDocument& next) {
  report_ = {};
  const Pretokenizer pretokenizer({options_.pattern});
  PieceCounter counter(pretokenizer, options_.threads, options_.max_pieces);
  std::optional<TextSample> sample;
  if (options_.sample_bytes > 0) sample.emplace(options_.sample_bytes);

  for (std::string document; next(document);) {
    if (const auto offset = find_invalid_utf8(document))
      throw DataError(
          fmt::format("document {} of the corpus is not UTF-8 at byte offset {}", report_.documents, *offset));
    ++report_.documents;
    report_.bytes += static_cast<int64_t>(document.size());
    if (sample) {
      sample->add(document);
    } else {
      for (std::string_view rest = document; !rest.empty();) {
        const std::string_view section = utf8_prefix(rest, kSectionBytes);
        counter.add(std::string(section));
        rest.remove_prefix(section.size());
      }
    }
  }
  if (report_.bytes == 0)
    throw DataError(
        fmt::format("there is no text to learn a tokenizer from ({} documents, all empty)", report_.documents));
  report_.sampled_bytes = sample ? sample->bytes() : report_.bytes;
  if (sample)
    for (std::string& section : sample->take()) counter.add(std::move(section));
  const PieceCounts pieces = counter.finish();
  report_.pieces = static_cast<int64_t>(pieces.size());
  report_.pruned_pieces = counter.pruned_pieces();
  report_.pruned_bytes = counter.pruned_bytes();

  MergeLearner learner(pieces, std::string(kEndOfText));
  TokenizerDefinition definition;
  definition.merges = learner.learn(options_.vocab_size - kBytes - 1, options_.min_count);
  definition.split = {options_.pattern};
  for (const std::string& bytes : learner.tokens())
    definition.vocabulary.push_back({static_cast<int32_t>(definition.vocabulary.size()), bytes});
  definition.added_tokens.push_back(
      {.id = static_cast<int32_t>(definition.vocabulary.size()), .content = std::string(kEndOfText)});
  report_.merges = static_cast<int64_t>(definition.merges.size());
  report_.tokens = learner.token_count();
  return Tokenizer(std::make_unique<Tokenizer::Model>(std::move(definition), "", "just trained"));
}

}  // namespace tessera
