// What a Tokenizer holds; for tokenizer.cc and bpe_trainer.cc only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/pretokenizer.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_json.h"

namespace tessera {

struct Tokenizer::Model {
  // `json` is the file that the definition was read from, kept so that saving writes all of it back; empty for a new
  // tokenizer. `name` stands for the tokenizer in messages. Throws DataError when there is no end-of-text token.
  Model(TokenizerDefinition definition, std::string json, const std::string& name);

  void encode(std::string_view text, std::vector<int32_t>& tokens) const;

  // One thread's memory, lent for the time of a call and taken back, so that its piece cache stays warm.
  struct Scratch {
    Pretokenizer::Scratch split;
    Bpe::Scratch bpe;
  };
  class Lease;

  TokenizerDefinition definition;
  std::string json;
  std::array<int32_t, 256> byte_tokens;
  Bpe bpe;
  Pretokenizer pretokenizer;
  std::unordered_map<std::string_view, int32_t> whole_pieces;  // with ignore_merges; views into definition
  AddedTokenMatcher added, added_normalized;
  std::vector<std::string_view> bytes_of;  // [id], into definition; empty where no token has the id
  int32_t end_of_text = -1;
  bool plain_bytes = false;

 private:
  void encode_plain(std::string_view text, Scratch& scratch, std::vector<int32_t>& tokens) const;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;
  mutable size_t made_ = 0;
};

}  // namespace tessera
