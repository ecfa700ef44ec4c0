// What one rank writes: its rows as an HDF5 file, and the index of that file. No communication, so that a thread of its
// own can do it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/hash.h"
#include "checkpoint/shard_index.h"
#include "checkpoint/storage.h"
#include "parallel/state.h"

namespace tessera {

// Rows of one tensor to be written: never empty, in host memory.
struct Piece {
  std::string name;
  Shape global_shape;
  Interval rows;
  ConstTensor data;  // [rows, ...]
};

// What this rank writes of its slices: of rows that several ranks hold, its share shard(rows, replicas, replica). Views
// into the state.
std::vector<Piece> pieces_to_write(const State& state);

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

// Writes the shard file and the index of `rank` into the directory and fsyncs both. Each block of a tensor is hashed
// and written while it is in the cache. Equal pieces are equal bytes. Throws IoError.
WrittenShard write_shard(Storage& storage, const std::string& directory, int rank, const std::vector<Piece>& pieces);

}  // namespace tessera
