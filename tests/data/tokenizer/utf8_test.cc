#include "data/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

// The character's encoding by the definition in RFC 3629, section 3, lengths as asked for.
std::string encode(uint32_t code, int length) {
  if (length == 1) return std::string(1, static_cast<char>(code));
  std::string out;
  static constexpr unsigned kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(kLead[length] | code >> (6 * (length - 1)));
  for (int i = length - 2; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  return out;
}

int shortest(uint32_t code) { return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4; }

TEST(Utf8, AcceptsExactlyTheCharactersOfUnicode) {
  for (uint32_t code = 0; code < 0x120000; ++code) {
    const bool is_character = code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
    const std::string text = encode(code, shortest(code));
    ASSERT_EQ(!find_invalid_utf8(text).has_value(), is_character) << code;
    ASSERT_EQ(!find_invalid_utf8("12345678" + text + "x").has_value(), is_character) << code;
  }
}

TEST(Utf8, RefusesLongerFormsThanNeeded) {
  for (uint32_t code = 0; code < 0x10000; ++code)
    for (int length = shortest(code) + 1; length <= 4; ++length)
      ASSERT_EQ(find_invalid_utf8(encode(code, length)), 0u) << code << " in " << length;
}

TEST(Utf8, NamesTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("abc\xFF"), 3u);
  EXPECT_EQ(find_invalid_utf8("123456789\x80 abc"), 9u);
  EXPECT_EQ(find_invalid_utf8("\xC3\xA9\xC3"), 2u) << "cut off in the middle of a character";
  EXPECT_EQ(find_invalid_utf8("1234567\xE2\x82"), 7u);
}

}  // namespace
}  // namespace tessera
