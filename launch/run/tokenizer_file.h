// Tokenizers as users name them: a tokenizer.json, or "bytes" for the one that needs no file.
#pragma once

#include <string>

#include "data/tokenizer/tokenizer.h"

namespace tessera {

// Where a checkpoint keeps the fingerprint of the tokenizer: among the texts of its cursors.
inline constexpr const char* kTokenizerCursor = "tokenizer";

inline Tokenizer open_tokenizer(const std::string& name) {
  return name == "bytes" ? Tokenizer::bytes() : Tokenizer::load(name);
}

}  // namespace tessera
