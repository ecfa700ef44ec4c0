// What one rank writes: its rows as an HDF5 file, and the index of that file. Writing needs no communication and never
// calls HDF5, so that a thread of its own can do it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/format/failpoint.h"
#include "checkpoint/format/hash.h"
#include "checkpoint/format/shard_index.h"
#include "checkpoint/format/storage.h"
#include "parallel/state.h"
#include "tensor/context/threads.h"

namespace tessera {

class Hdf5Image;

// Rows of one tensor to be written: never empty.
struct Piece {
  std::string name;
  Shape global_shape;
  Interval rows;
  ConstTensor data;  // [rows, ...]
};

// The pieces of this rank's slices: for each slice the rows that it is to deal with (checkpoint/sharing.h). Views into
// the state.
std::vector<Piece> pieces_to_write(const State& state, const std::vector<std::vector<Interval>>& shares);

// Where the pieces lie in the file. Depends on their names, shapes and dtypes only, so it is computed once for all
// saves of a run. Equal pieces are equal layouts.
class ShardLayout {
 public:
  explicit ShardLayout(const std::vector<Piece>& pieces);
  ~ShardLayout();
  ShardLayout(ShardLayout&&) noexcept;
  ShardLayout& operator=(ShardLayout&&) noexcept;

  // At most kBlockBytes of a piece: what is hashed and written at once.
  struct Block {
    size_t piece;
    int64_t first;  // byte of the piece
    int64_t bytes;
  };

  const std::vector<Box>& boxes() const { return boxes_; }      // of the pieces, without hashes
  const std::vector<Block>& blocks() const { return blocks_; }  // in the order in which they lie in the file
  int64_t bytes() const;                                        // of the file
  int64_t piece_bytes() const { return piece_bytes_; }          // of all pieces

  // The file's own structures, between the blocks.
  void read_structures(int64_t offset, std::span<std::byte> out) const;

 private:
  std::unique_ptr<Hdf5Image> image_;
  std::vector<Box> boxes_;
  std::vector<Block> blocks_;
  int64_t piece_bytes_ = 0;
};

struct WrittenFile {
  std::string name;
  int64_t bytes = 0;
  Hash128 hash;  // of the bytes as they were meant to be written, not as read back
};

struct WrittenShard {
  WrittenFile data;
  WrittenFile index;
  std::string index_bytes;
};

// Supplies the bytes of the layout's blocks, in order; each stays until the next is asked for.
using BlockSource = FunctionRef<std::span<const std::byte>(const ShardLayout::Block&)>;

// Writes the shard file and the index of `rank` into the directory and fsyncs both. Each block is hashed and written
// while it is in the cache. Equal bytes are equal files. Throws IoError, and what the source throws.
WrittenShard write_shard(Storage& storage, const std::string& directory, int rank, const ShardLayout& layout,
                         BlockSource source, const Failpoint& failpoint = {});

// The bytes of a piece in host memory.
std::span<const std::byte> bytes_of(const Piece& piece, const ShardLayout::Block& block);

}  // namespace tessera
