// Is it UTF-8? (RFC 3629: shortest forms only, no surrogates, nothing above U+10FFFF.)
#pragma once

#include <optional>
#include <string_view>

namespace tessera {

// Byte offset of the first byte that does not begin or continue a valid character; nothing when all of it is UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view text);

}  // namespace tessera
