// Texts for the tokenizer's tests.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>

namespace tessera {

inline void append_utf8(std::string& text, uint32_t code) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

// Letters, digits, signs and white space of several scripts, and now and then any character at all.
inline std::string random_text(std::mt19937& random, int characters) {
  static constexpr std::array<std::array<uint32_t, 2>, 8> kRanges = {
      {{'a', 'f'}, {'a', 'z'}, {' ', ' '}, {0x09, 0x0D}, {'0', '9'}, {'!', '~'}, {0xA0, 0x24F}, {0x4E00, 0x4E20}}};
  std::string text;
  for (int i = 0; i < characters; ++i) {
    uint32_t code = random() % 0x110000;
    if (const uint32_t kind = random() % 16; kind < kRanges.size() * 2 - 1) {
      const auto [low, high] = kRanges[kind / 2];
      code = low + random() % (high - low + 1);
    }
    if (code >= 0xD800 && code < 0xE000) code = 'x';
    append_utf8(text, code);
  }
  return text;
}

}  // namespace tessera
