// The bytes of a file, decompressed on the way: gzip (*.gz, RFC 1952) and Zstandard (*.zst, RFC 8878).
#pragma once

#include <memory>
#include <span>
#include <string>

namespace tessera {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Fills the front of `out` and returns how many bytes; 0 only at the end. Throws IoError when the file cannot be
  // read, DataError when compressed data are damaged or cut off.
  virtual size_t read(std::span<char> out) = 0;

  // Chooses by the name's suffix. Throws IoError when the file cannot be opened.
  static std::unique_ptr<ByteStream> open(const std::string& path);
};

// The path without .gz or .zst.
std::string without_compression_suffix(const std::string& path);

}  // namespace tessera
