// The index beside a shard file: which rows of which tensors lie where, with the hash of every block. The loader reads
// tensors by it, without HDF5. Byte for byte in docs/FORMATS.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/format/hash.h"
#include "tensor/dtype.h"
#include "tensor/interval.h"

namespace tessera {

// A box is hashed in blocks of this many bytes from its first one on; the last block may be short.
inline constexpr int64_t kBlockBytes = int64_t{4} << 20;

inline int64_t block_count(int64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

// Rows of one tensor, one after another in a shard file.
struct Box {
  std::string tensor;
  Interval rows;
  DType dtype = DType::F32;
  int64_t offset = 0;  // of the first byte, in the shard file
  int64_t bytes = 0;
  std::vector<Hash128> blocks;  // block_count(bytes) of them

  bool operator==(const Box&) const = default;
};

// Of the dataset that holds the box: "master/blocks.0.norm.rows-0-64".
std::string dataset_name(const std::string& tensor, const Interval& rows);

// What is wrong with parts that must fill `whole` without a gap and without overlap ("no file holds its rows [2, 4)"),
// or nothing. Sorts the parts; each has rows.
std::optional<std::string> gap_or_overlap(const Interval& whole, std::vector<Interval>& parts);

std::string encode_index(const std::vector<Box>& boxes);

// Throws CheckpointError naming `what` (the file) when the bytes are not an index, or a box cannot lie in a shard file
// of shard_bytes. Allocates no more than a small multiple of the bytes, whatever they say.
std::vector<Box> decode_index(std::string_view bytes, const std::string& what, int64_t shard_bytes);

}  // namespace tessera
