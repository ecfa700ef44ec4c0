// A file that was written once and is read for as long as a run lasts.
//
// Every read is a call that answers: a file that was cut off or written to behind the run's back is an error with its name
// (with a memory map it would be a signal, or other bytes without a word). A file that was replaced by another of its name
// is no error: what was opened is read on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <string>

namespace tessera {

class PublishedFile {
 public:
  // `kind` is how messages call it ("token shard"). Throws IoError when the file cannot be opened, DataError when it is
  // not a regular file.
  PublishedFile(std::string kind, std::string path);
  ~PublishedFile();
  PublishedFile(PublishedFile&& other) noexcept;
  PublishedFile& operator=(PublishedFile&&) = delete;

  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }  // when it was opened
  int descriptor() const { return file_; }

  // Overwrites out with the bytes from `offset` on. Throws DataError when the file was cut off or written to since it was
  // opened (seen by its size and time of modification), IoError when it cannot be read. Any number of threads.
  void read(int64_t offset, std::span<std::byte> out) const;

  // Asks the kernel to have these bytes in memory soon; returns at once.
  void prefetch(int64_t offset, int64_t bytes) const;

 private:
  void check_unchanged() const;

  std::string kind_, path_;
  int file_ = -1;
  int64_t bytes_ = 0;
  timespec modified_ = {};
};

}  // namespace tessera
