#include "data/tokenizer/tokenizer.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <unordered_set>
#include <utility>

#include "data/tokenizer/tokenizer_model.h"
#include "data/tokenizer/utf8.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::array<std::string_view, 3> kEndOfTextNames = {"<|endoftext|>", "<|end_of_text|>", "</s>"};

std::array<int32_t, 256> find_byte_tokens(const TokenizerDefinition& definition) {
  std::array<int32_t, 256> tokens;
  tokens.fill(-1);
  for (const VocabularyToken& token : definition.vocabulary)
    if (token.byte_level && token.bytes.size() == 1) tokens[static_cast<unsigned char>(token.bytes[0])] = token.id;
  for (const int32_t token : tokens) TESSERA_CHECK(token >= 0, "a vocabulary without all bytes");
  return tokens;
}

// Hashes numbers and strings so that different sequences of them give different bytes.
class Hasher {
 public:
  Hasher() { XXH3_128bits_reset(state_.get()); }
  void add(int64_t value) { XXH3_128bits_update(state_.get(), &value, sizeof value); }
  void add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    XXH3_128bits_update(state_.get(), text.data(), text.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_{XXH3_createState()};
};

}  // namespace

class Tokenizer::Model::Lease {
 public:
  explicit Lease(const Model& model) : model_(model) {
    {
      const std::lock_guard lock(model_.mutex_);
      if (!model_.idle_.empty()) {
        scratch_ = std::move(model_.idle_.back());
        model_.idle_.pop_back();
        return;
      }
      model_.idle_.reserve(++model_.made_);  // so that giving back cannot fail
    }
    scratch_ = std::make_unique<Scratch>();
  }
  ~Lease() {
    if (!scratch_) return;
    const std::lock_guard lock(model_.mutex_);
    model_.idle_.push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Scratch& scratch() { return *scratch_; }

 private:
  const Model& model_;
  std::unique_ptr<Scratch> scratch_;
};

Tokenizer::Model::Model(TokenizerDefinition from, std::string source, const std::string& name)
    : definition(std::move(from)),
      json(std::move(source)),
      byte_tokens(find_byte_tokens(definition)),
      bpe(byte_tokens, definition.merges),
      pretokenizer(definition.split) {
  int32_t highest = definition.vocabulary.back().id;
  if (!definition.added_tokens.empty()) highest = std::max(highest, definition.added_tokens.back().id);
  bytes_of.resize(static_cast<size_t>(highest) + 1);
  for (const VocabularyToken& token : definition.vocabulary) bytes_of[token.id] = token.bytes;

  std::unordered_set<std::string_view> special;
  bool text_has_added = false;
  for (const AddedToken& token : definition.added_tokens) {
    bytes_of[token.id] = token.content;
    if (token.special) {
      special.insert(token.content);
    } else {
      (token.normalized ? added_normalized : added).add(token.content, token.id);
      text_has_added = true;
    }
  }
  for (const std::string_view wanted : kEndOfTextNames) {
    if (end_of_text >= 0) break;
    for (const AddedToken& token : definition.added_tokens)
      if (token.special && token.content == wanted) end_of_text = token.id;
  }
  if (end_of_text < 0)
    throw DataError(
        fmt::format("tokenizer {}: has no special token for the end of a text; one of {} is needed in added_tokens",
                    name, fmt::join(kEndOfTextNames, ", ")));
  if (definition.ignore_merges) {
    // Data never become special tokens, even if the vocabulary lists those.
    for (const VocabularyToken& token : definition.vocabulary)
      if (token.byte_level && !special.contains(token.bytes)) whole_pieces.emplace(token.bytes, token.id);
  }
  plain_bytes = definition.merges.empty() && !text_has_added && !definition.ignore_merges;
}

void Tokenizer::Model::encode(std::string_view text, std::vector<int32_t>& tokens) const {
  if (plain_bytes) {
    for (const char byte : text) tokens.push_back(byte_tokens[static_cast<unsigned char>(byte)]);
    return;
  }
  if (const auto offset = find_invalid_utf8(text))
    throw DataError(fmt::format("the text is not UTF-8 at byte offset {} (value {:#04x})", *offset,
                                static_cast<unsigned char>(text[*offset])));
  Lease lease(*this);
  const auto take = [&](int32_t token) { tokens.push_back(token); };
  added.split(
      text,
      [&](std::string_view part) {
        added_normalized.split(
            part, [&](std::string_view plain) { encode_plain(plain, lease.scratch(), tokens); }, take);
      },
      take);
}

void Tokenizer::Model::encode_plain(std::string_view text, Scratch& scratch, std::vector<int32_t>& tokens) const {
  pretokenizer.split(text, scratch.split, [&](std::string_view piece) {
    if (definition.ignore_merges) {
      if (const auto it = whole_pieces.find(piece); it != whole_pieces.end()) return tokens.push_back(it->second);
    }
    bpe.encode(piece, scratch.bpe, tokens);
  });
}

Tokenizer::Tokenizer(std::unique_ptr<Model> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::bytes() {
  TokenizerDefinition definition;
  for (int byte = 0; byte < 256; ++byte)
    definition.vocabulary.push_back({byte, std::string(1, static_cast<char>(byte))});
  definition.added_tokens.push_back({.id = 256, .content = std::string(kEndOfTextNames[0])});
  return Tokenizer(std::make_unique<Model>(std::move(definition), "", "of bytes"));
}

Tokenizer Tokenizer::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(fmt::format("tokenizer {}: cannot be opened: {}", path, std::strerror(errno)));
  std::string text;
  std::array<char, 1 << 16> block;
  while (text.size() <= kMaxTokenizerFileBytes && (file.read(block.data(), block.size()) || file.gcount() > 0))
    text.append(block.data(), static_cast<size_t>(file.gcount()));
  if (file.bad() || text.empty()) throw DataError(fmt::format("tokenizer {}: is empty or cannot be read", path));
  TokenizerDefinition definition = parse_tokenizer_json(text, path);
  return Tokenizer(std::make_unique<Model>(std::move(definition), std::move(text), path));
}

void Tokenizer::save(const std::string& path) const {
  const std::string json = model_->json.empty() ? write_tokenizer_json(model_->definition) : model_->json;
  const std::string unfinished = path + ".tmp";
  std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
  file << json;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(unfinished, path, error);
  if (!file || error) {
    const std::string reason = error ? error.message() : std::strerror(errno);
    std::filesystem::remove(unfinished, error);
    throw IoError(fmt::format("cannot write the tokenizer {}: {}", path, reason));
  }
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& tokens) const { model_->encode(text, tokens); }

std::string Tokenizer::decode(std::span<const int32_t> tokens) const {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t token = tokens[i];
    if (token < 0 || token >= vocab_size() || model_->bytes_of[token].empty())
      throw DataError(fmt::format("cannot decode token {} at place {}: the vocabulary has ids from 0 to {}{}", token, i,
                                  vocab_size() - 1, token < 0 || token >= vocab_size() ? "" : ", but not this one"));
    text += model_->bytes_of[token];
  }
  return text;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(model_->bytes_of.size()); }

int32_t Tokenizer::end_of_text() const { return model_->end_of_text; }

std::string Tokenizer::fingerprint() const {
  const TokenizerDefinition& definition = model_->definition;
  Hasher hasher;
  hasher.add("tessera byte-level BPE 1");
  hasher.add(static_cast<int64_t>(definition.vocabulary.size()));
  for (const VocabularyToken& token : definition.vocabulary) {
    hasher.add(token.id);
    hasher.add(token.bytes);
    hasher.add(token.byte_level ? 1 : 0);
  }
  hasher.add(static_cast<int64_t>(definition.merges.size()));
  for (const Merge& merge : definition.merges) {
    hasher.add(merge.left);
    hasher.add(merge.right);
    hasher.add(merge.result);
  }
  hasher.add(static_cast<int64_t>(definition.added_tokens.size()));
  for (const AddedToken& token : definition.added_tokens) {
    hasher.add(token.id);
    hasher.add(token.content);
    hasher.add(token.special ? 1 : 0);
    hasher.add(token.normalized ? 1 : 0);
  }
  hasher.add(static_cast<int64_t>(definition.split.size()));
  for (const SplitPattern pattern : definition.split) hasher.add(split_regex(pattern));
  hasher.add(definition.ignore_merges ? 1 : 0);
  return hasher.hex();
}

}  // namespace tessera
