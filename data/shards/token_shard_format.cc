#include "data/shards/token_shard_format.h"

#include <fmt/core.h>

#include <new>
#include <string_view>

namespace tessera::token_shard {

std::string last_hdf5_error() {
  std::string text;
  const auto keep_innermost = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    *static_cast<std::string*>(out) = error->desc ? error->desc : "";
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_innermost, &text);
  // HDF5 wraps what the operating system said in a page of numbers.
  constexpr std::string_view kSystemMessage = "error message = '";
  if (const size_t at = text.find(kSystemMessage); at != std::string::npos) {
    const size_t begin = at + kSystemMessage.size();
    return text.substr(begin, text.find('\'', begin) - begin);
  }
  return text.empty() ? "no message" : text;
}

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

StreamingHash::StreamingHash() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_);
}
StreamingHash::~StreamingHash() { XXH3_freeState(state_); }
void StreamingHash::update(const void* data, size_t bytes) { XXH3_128bits_update(state_, data, bytes); }
std::string StreamingHash::digest() const { return hex(XXH3_128bits_digest(state_)); }

}  // namespace tessera::token_shard
