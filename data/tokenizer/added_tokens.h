// Added tokens that plain text may contain: the ones that a tokenizer.json adds without calling them special.
//
// They are cut out of the text before it is split: leftmost first, of several at one place the longest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/context/threads.h"

namespace tessera {

class AddedTokenMatcher {
 public:
  // content must not be empty.
  void add(std::string content, int32_t token);

  // Calls plain(bytes) and added(token) for the parts of `text` in order; plain parts are not empty.
  void split(std::string_view text, FunctionRef<void(std::string_view)> plain, FunctionRef<void(int32_t)> added) const;

 private:
  struct Entry {
    std::string content;
    int32_t token;
  };
  const Entry* match(std::string_view text) const;

  bool empty_ = true;
  std::array<std::vector<Entry>, 256> by_first_byte_;  // longest first
};

}  // namespace tessera
