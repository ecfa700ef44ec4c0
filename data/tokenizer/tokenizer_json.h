// Hugging Face's `tokenizer.json`, as far as it describes byte-level BPE.
//
// Read: model BPE; pre_tokenizer ByteLevel, or a Sequence of Split (by an accepted pattern, data/tokenizer/pretokenizer.h) and
// Digits that ends with ByteLevel; decoder ByteLevel or none; merges as "a b" or ["a", "b"]; ignore_merges;
// added_tokens. Whatever else would change an encoding is refused by name: normalizers, dropout, unk_token,
// byte_fallback, prefixes and suffixes of words, add_prefix_space, truncation, padding. Post-processors that add
// special tokens around a text (TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel) are read over: what
// is encoded here is plain text, and the caller places end-of-text itself.
//
// A file comes from anywhere: its size, nesting, ids and references are checked, and a key may not occur twice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/pretokenizer.h"

namespace tessera {

constexpr int32_t kMaxTokenId = (1 << 21) - 1;  // eight times the largest vocabulary in use
constexpr size_t kMaxTokenizerFileBytes = size_t{128} << 20;

struct VocabularyToken {
  int32_t id;
  std::string bytes;  // what it decodes to
  // Whether its name is spelled in the byte alphabet. Others keep their name as bytes, and no text leads to them.
  bool byte_level = true;
};

struct AddedToken {
  int32_t id;
  std::string content;
  bool special = true;  // never found in text
  // Not special ones are looked for in the text, first those that are not `normalized`, then in the rest those that
  // are.
  bool normalized = false;
};

struct TokenizerDefinition {
  std::vector<VocabularyToken> vocabulary;  // by rising id; ids are distinct, byte-level bytes too
  std::vector<Merge> merges;                // by rank; all ids are in the vocabulary
  std::vector<AddedToken> added_tokens;     // by rising id; may repeat a token of the vocabulary
  std::vector<SplitPattern> split;
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say (Llama 3)
};

// `name` stands for the file in messages. Throws DataError.
TokenizerDefinition parse_tokenizer_json(std::string_view text, const std::string& name);

std::string write_tokenizer_json(const TokenizerDefinition& definition);

}  // namespace tessera
