// XXH3-128, the checksum of everything in a checkpoint: against accidents, not against forgers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;

  bool operator==(const Hash128&) const = default;
  // 32 digits, as `xxhsum -H2` prints them.
  std::string hex() const;
  static std::optional<Hash128> parse(std::string_view hex);
};

Hash128 hash128(std::span<const std::byte> bytes);
Hash128 hash128(std::string_view bytes);

// The hash of a stream: of all the bytes given to update(), in order.
class Hasher128 {
 public:
  Hasher128();
  ~Hasher128();
  Hasher128(const Hasher128&) = delete;
  Hasher128& operator=(const Hasher128&) = delete;

  void update(std::span<const std::byte> bytes);
  Hash128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera
