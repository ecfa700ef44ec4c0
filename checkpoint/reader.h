// An opened checkpoint: what it holds, and any rows of any tensor from whichever files hold them. No communication.
//
// Files are read by the indexes, without HDF5 in the way. Every block that a read touches is checked against its hash,
// so what is returned is what was saved. Not shared between threads.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/format/shard_index.h"
#include "checkpoint/format/storage.h"
#include "parallel/state.h"

namespace tessera {

class Manifest;  // checkpoint/manifest.proto

struct CheckpointInfo {
  std::string path;
  int64_t step = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
  std::string layout;  // of the ranks that wrote it
  std::string config;  // resolved, as text
  std::map<std::string, std::string> versions;
  Cursors cursors;
};

struct StoredTensor {
  // Rows that lie in one file.
  struct Part {
    int shard = 0;
    Box box;
  };
  std::string name;
  Shape shape;
  DType dtype = DType::F32;
  std::vector<Part> parts;  // by rows, without gap or overlap

  int64_t row_bytes() const { return shape.row_size() * size_of(dtype); }
  int64_t bytes() const { return shape.size() * size_of(dtype); }
};

class CheckpointReader {
 public:
  // Reads the manifest and all indexes. Throws CheckpointError, or IoError, naming the file, when one is missing or
  // does not match what vouches for it, when a box does not fit its tensor, or when a row is missing.
  CheckpointReader(Storage& storage, const std::string& path);
  ~CheckpointReader();

  const CheckpointInfo& info() const { return info_; }
  const Manifest& manifest() const { return *manifest_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by name
  const StoredTensor* find(const std::string& name) const;

  // Looks at every file's size only. Throws CheckpointError naming the file that is missing or of another size.
  void check_sizes();

  // Overwrites out with the tensor's bytes from first_byte on (row-major, global). Needs one block of memory besides.
  // Throws CheckpointError naming file, tensor and rows when a block does not match its hash; IoError.
  void read(const StoredTensor& tensor, int64_t first_byte, std::span<std::byte> out);

  // Overwrites out with a block of the part's box, which it must be as long as. Throws as read().
  void read_block(const StoredTensor& tensor, const StoredTensor::Part& part, int64_t block, std::span<std::byte> out);

 private:
  void read_indexes();
  void read_part(const StoredTensor& tensor, const StoredTensor::Part& part, int64_t first, std::span<std::byte> out);
  FileReader& shard_file(int shard);

  Storage& storage_;
  std::unique_ptr<Manifest> manifest_;
  CheckpointInfo info_;
  std::vector<StoredTensor> tensors_;
  std::map<int, std::unique_ptr<FileReader>> files_;  // open ones
  std::vector<std::byte> staging_;                    // the last block of which only a part was wanted
  const Box* staged_box_ = nullptr;
  int64_t staged_block_ = -1;
};

}  // namespace tessera
