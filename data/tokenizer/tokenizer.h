// Byte-level byte-pair encoding in Hugging Face's `tokenizer.json` format, as GPT-2, Llama 3 and Qwen use.
//
// Sennrich, Haddow and Birch 2016 (BPE); Radford et al. 2019 (byte level: every byte string has an encoding, and
// decoding an encoding gives back the bytes). Text is cut into pieces by a regular expression, each piece's bytes are
// merged pair by pair, lowest rank first. The plain byte tokenizer is the one without merges.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

class Tokenizer {
 public:
  // Throws DataError naming the file and what is wrong with it.
  static Tokenizer load(const std::string& path);

  // 256 bytes and the end-of-text token: vocabulary 257, no merges.
  static Tokenizer bytes();

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the tokens of `text` to `tokens`, and nothing around them: a file's post_processor (which adds special
  // tokens) is not applied. Special tokens in the text are treated as plain text; added tokens that the file does not
  // call special are found. text must be UTF-8 (else DataError with the byte offset) unless this is a plain byte
  // tokenizer. Safe to call from several threads at once: each call borrows scratch memory, which is kept.
  void encode(std::string_view text, std::vector<int32_t>& tokens) const;

  // The bytes of the tokens; special tokens give their name. Throws DataError for a token outside the vocabulary.
  std::string decode(std::span<const int32_t> tokens) const;

  int64_t vocab_size() const;   // highest id + 1, special tokens included
  int32_t end_of_text() const;  // ends every document

  // Hash of everything that decides an encoding; equal fingerprints encode alike. 32 hex digits.
  std::string fingerprint() const;

  void save(const std::string& path) const;

 private:
  struct Model;
  explicit Tokenizer(std::unique_ptr<Model> model);
  std::unique_ptr<Model> model_;
  friend class BpeTrainer;
};

}  // namespace tessera
