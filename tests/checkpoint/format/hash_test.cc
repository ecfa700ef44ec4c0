#include "checkpoint/format/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

TEST(Hash, IsXxh3WithItsCanonicalDigits) {
  // What `xxhsum -H2` prints for an empty file.
  EXPECT_EQ(hash128(std::string_view()).hex(), "99aa06d3014798d86001c324468d497f");
  const Hash128 hash = hash128(std::string_view("tessera"));
  EXPECT_EQ(Hash128::parse(hash.hex()), hash);
}

TEST(Hash, RefusesWhatIsNotADigest) {
  EXPECT_FALSE(Hash128::parse(""));
  EXPECT_FALSE(Hash128::parse("99aa06d3014798d86001c324468d497"));
  EXPECT_FALSE(Hash128::parse("99aa06d3014798d86001c324468d497ff"));
  EXPECT_FALSE(Hash128::parse("99AA06D3014798D86001C324468D497F"));
  EXPECT_FALSE(Hash128::parse("99aa06d3014798d86001c324468d497g"));
}

TEST(Hash, AStreamIsHashedLikeTheWhole) {
  std::string text(100001, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 3);
  const auto bytes = std::as_bytes(std::span(text));
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{240}, size_t{65536}, text.size()}) {
    Hasher128 hasher;
    hasher.update(bytes.first(cut));
    hasher.update(bytes.subspan(cut));
    EXPECT_EQ(hasher.digest(), hash128(bytes)) << cut;
  }
}

}  // namespace
}  // namespace tessera
