#include "data/tokenizer/byte_alphabet.h"

#include <gtest/gtest.h>

#include <set>

namespace tessera {
namespace {

TEST(ByteAlphabet, EveryByteHasItsOwnCharacterAndComesBack) {
  std::set<std::string> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    const std::string character = bytes_to_alphabet(bytes);
    EXPECT_TRUE(characters.insert(character).second) << byte;
    EXPECT_EQ(alphabet_to_bytes(character), bytes) << byte;
  }
}

// Spot values from GPT-2's published vocabulary.
TEST(ByteAlphabet, IsGpt2s) {
  EXPECT_EQ(bytes_to_alphabet(" the"), "\u0120the");
  EXPECT_EQ(bytes_to_alphabet("\n\t"), "\u010A\u0109");
  EXPECT_EQ(bytes_to_alphabet(std::string("\0\x7F\xA0\xAD", 4)), "\u0100\u0121\u0142\u0143");
  EXPECT_EQ(bytes_to_alphabet("\u00E9"), "\u00C3\u00A9");
}

TEST(ByteAlphabet, OtherCharactersAreNotInIt) {
  for (const char* text : {" ", "a b", "\u0144", "\u00AD", "\u65E5", "\xC4", "\xC4x", "\x80", "\U0001F600"})
    EXPECT_EQ(alphabet_to_bytes(text), std::nullopt) << text;
}

}  // namespace
}  // namespace tessera
