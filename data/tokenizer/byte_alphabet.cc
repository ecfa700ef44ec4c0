#include "data/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace tessera {
namespace {

constexpr int kCharacters = 256 + 68;  // the highest is U+0143

constexpr bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

constexpr std::array<uint16_t, 256> make_characters() {
  std::array<uint16_t, 256> characters{};
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte)
    characters[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  return characters;
}

constexpr std::array<uint16_t, 256> kCharacterOfByte = make_characters();

constexpr std::array<int16_t, kCharacters> make_bytes() {
  std::array<int16_t, kCharacters> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  for (int byte = 0; byte < 256; ++byte) bytes[kCharacterOfByte[byte]] = static_cast<int16_t>(byte);
  return bytes;
}

constexpr std::array<int16_t, kCharacters> kByteOfCharacter = make_bytes();

}  // namespace

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string characters;
  characters.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const uint16_t character = kCharacterOfByte[static_cast<unsigned char>(c)];
    if (character < 0x80) {
      characters += static_cast<char>(character);
    } else {
      characters += static_cast<char>(0xC0 | (character >> 6));
      characters += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return characters;
}

std::optional<std::string> alphabet_to_bytes(std::string_view characters) {
  std::string bytes;
  bytes.reserve(characters.size());
  for (size_t i = 0; i < characters.size(); ++i) {
    unsigned character = static_cast<unsigned char>(characters[i]);
    if (character >= 0x80) {
      // Every character of the alphabet has one or two bytes of UTF-8.
      if ((character & 0xE0) != 0xC0 || i + 1 == characters.size()) return std::nullopt;
      const unsigned second = static_cast<unsigned char>(characters[++i]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      character = (character & 0x1F) << 6 | (second & 0x3F);
    }
    if (character >= kByteOfCharacter.size() || kByteOfCharacter[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOfCharacter[character]);
  }
  return bytes;
}

}  // namespace tessera
