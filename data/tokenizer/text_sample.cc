#include "data/tokenizer/text_sample.h"

#include <algorithm>
#include <utility>

namespace tessera {
namespace {

// SplitMix64's output function (Steele, Lea and Flood 2014): a bijection, so no two sections share a key.
uint64_t key_of(int64_t number) {
  uint64_t x = (static_cast<uint64_t>(number) + 1) * 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

std::string_view utf8_prefix(std::string_view text, size_t most) {
  if (text.size() <= most) return text;
  size_t length = most;
  while (length + 3 > most && continues_character(text[length])) --length;
  return text.substr(0, length);
}

TextSample::TextSample(int64_t budget_bytes)
    : budget_(budget_bytes), section_bytes_(std::max<int64_t>(64, std::min<int64_t>(65536, budget_bytes / 16))) {}

void TextSample::add(std::string_view document) {
  while (!document.empty()) {
    const std::string_view section = utf8_prefix(document, static_cast<size_t>(section_bytes_));
    const uint64_t key = key_of(sections_);
    if (key < limit_) {
      kept_.push_back({key, sections_, std::string(section)});
      std::push_heap(kept_.begin(), kept_.end());
      bytes_ += static_cast<int64_t>(section.size());
    }
    ++sections_;
    document.remove_prefix(section.size());
    while (bytes_ > budget_ && kept_.size() > 1) {
      std::pop_heap(kept_.begin(), kept_.end());
      limit_ = kept_.back().key;
      bytes_ -= static_cast<int64_t>(kept_.back().text.size());
      kept_.pop_back();
    }
  }
}

std::vector<std::string> TextSample::take() {
  std::ranges::sort(kept_, {}, &Section::number);
  std::vector<std::string> texts;
  texts.reserve(kept_.size());
  for (Section& section : kept_) texts.push_back(std::move(section.text));
  kept_.clear();
  bytes_ = 0;
  return texts;
}

}  // namespace tessera
