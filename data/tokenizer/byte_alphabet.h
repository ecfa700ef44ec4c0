// GPT-2's alphabet: one printable character for every byte, so that a token of any bytes is a JSON string.
//
// Printable ASCII (33..126) and Latin-1 (161..172, 174..255) stand for themselves; the other 68 bytes, in order, are
// U+0100, U+0101, ... A space is thus U+0120, a line feed U+010A. Radford et al. 2019.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tessera {

// UTF-8 of the characters that stand for `bytes`.
std::string bytes_to_alphabet(std::string_view bytes);

// The bytes that `characters` (UTF-8) stand for; nothing when one of them is not in the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view characters);

}  // namespace tessera
