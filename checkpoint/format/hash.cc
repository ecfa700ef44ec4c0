#include "checkpoint/format/hash.h"

#include <fmt/core.h>

// GCC 12 takes the AVX-512 intrinsics' deliberately undefined operands for mistakes (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
// Compiled here for this build's instruction set; the packaged library is built for the oldest.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tessera {
namespace {

Hash128 value(XXH128_hash_t hash) { return {hash.low64, hash.high64}; }

std::optional<uint64_t> parse_digits(std::string_view hex) {
  uint64_t number = 0;
  for (const char c : hex) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    number = number << 4 | static_cast<uint64_t>(digit);
  }
  return number;
}

}  // namespace

std::string Hash128::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

std::optional<Hash128> Hash128::parse(std::string_view hex) {
  if (hex.size() != 32) return std::nullopt;
  const auto high = parse_digits(hex.substr(0, 16));
  const auto low = parse_digits(hex.substr(16));
  if (!high || !low) return std::nullopt;
  return Hash128{*low, *high};
}

Hash128 hash128(std::span<const std::byte> bytes) { return value(XXH3_128bits(bytes.data(), bytes.size())); }
Hash128 hash128(std::string_view bytes) { return hash128(std::as_bytes(std::span(bytes))); }

struct Hasher128::State {
  XXH3_state_t state;
};

Hasher128::Hasher128() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->state); }
Hasher128::~Hasher128() = default;
void Hasher128::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->state, bytes.data(), bytes.size());
}
Hash128 Hasher128::digest() const { return value(XXH3_128bits_digest(&state_->state)); }

}  // namespace tessera
