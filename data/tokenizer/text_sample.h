// An even sample of a corpus, in one pass and bounded memory.
//
// The text is cut into sections; each has a key that is a hash of its number, and the sections with the smallest keys
// that fit into the budget stay. So every part of the corpus is as likely to be taken, whatever its length turns out
// to be, and the same corpus gives the same sample.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// The longest beginning of `text` that has at most `most` bytes and ends between two characters. most >= 4; on text
// that is not UTF-8 it still is at least most - 3 bytes, or all.
std::string_view utf8_prefix(std::string_view text, size_t most);

class TextSample {
 public:
  // A section has at most max(64, min(65536, budget_bytes / 16)) bytes; at least one section is kept.
  explicit TextSample(int64_t budget_bytes);

  // A document, UTF-8; a section never crosses documents nor cuts a character.
  void add(std::string_view document);

  int64_t bytes() const { return bytes_; }

  // The sections in the order of the corpus. The sample is empty afterwards.
  std::vector<std::string> take();

 private:
  struct Section {
    uint64_t key;
    int64_t number;
    std::string text;
    bool operator<(const Section& other) const { return key < other.key; }
  };

  int64_t budget_;
  int64_t section_bytes_;
  int64_t bytes_ = 0;
  int64_t sections_ = 0;
  uint64_t limit_ = ~uint64_t{0};  // sections with this key or a larger one have been dropped
  std::vector<Section> kept_;      // a heap, the largest key first
};

}  // namespace tessera
