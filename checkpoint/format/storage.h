// The seam to the file system. All that checkpoint/ does with files goes through it, so that tests can inject faults
// and another kind of store can take its place. Every call throws IoError naming the path and the system's reason.
// Calls may come from several threads at once, on different files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tessera {

// A file that is being written from its first byte to its last. Without finish() its content is not promised.
class FileWriter {
 public:
  virtual ~FileWriter() = default;
  virtual void append(std::span<const std::byte> bytes) = 0;
  // Returns when the content is on the disk (fsync), and closes.
  virtual void finish() = 0;
};

class FileReader {
 public:
  virtual ~FileReader() = default;
  virtual int64_t size() const = 0;
  // Fills out from the bytes at offset; a file that ends before is an error.
  virtual void read(int64_t offset, std::span<std::byte> out) = 0;
  // Advice, which may do nothing: what memory holds of the file's content is to be dropped, so that reading comes from
  // the disk again.
  virtual void forget() {}
};

class Storage {
 public:
  struct Entry {
    std::string name;
    bool directory = false;
  };

  virtual ~Storage() = default;

  // Parents included; one that exists is fine.
  virtual void create_directories(const std::string& path) = 0;
  // A new file; one that exists is emptied. Room for the bytes that it is going to have is taken at once where the file
  // system can, so that a full disk is known before anything is written.
  virtual std::unique_ptr<FileWriter> create(const std::string& path, int64_t bytes) = 0;
  virtual std::unique_ptr<FileReader> open(const std::string& path) = 0;

  // The new name takes the place of a file of that name, at once.
  virtual void rename(const std::string& from, const std::string& to) = 0;
  // The directory `from` becomes `to`. A directory `to` that exists is exchanged at once where the file system can,
  // and removed; where it cannot (some network file systems), it is moved aside for that moment.
  virtual void publish(const std::string& from, const std::string& to) = 0;
  // Nothing there is fine.
  virtual void remove_tree(const std::string& path) = 0;

  virtual bool exists(const std::string& path) = 0;
  virtual std::vector<Entry> list(const std::string& directory) = 0;  // by name
  virtual int64_t file_size(const std::string& path) = 0;
  virtual int64_t modified(const std::string& path) = 0;  // seconds since 1970
  virtual int64_t free_bytes(const std::string& directory) = 0;
  // Returns when the directory's entries are on the disk.
  virtual void sync_directory(const std::string& path) = 0;

  // A whole small file. read_file refuses one of more than max_bytes.
  void write_file(const std::string& path, std::span<const std::byte> bytes);
  std::string read_file(const std::string& path, int64_t max_bytes);
};

class PosixStorage : public Storage {
 public:
  void create_directories(const std::string& path) override;
  std::unique_ptr<FileWriter> create(const std::string& path, int64_t bytes) override;
  std::unique_ptr<FileReader> open(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override;
  void publish(const std::string& from, const std::string& to) override;
  void remove_tree(const std::string& path) override;
  bool exists(const std::string& path) override;
  std::vector<Entry> list(const std::string& directory) override;
  int64_t file_size(const std::string& path) override;
  int64_t modified(const std::string& path) override;
  int64_t free_bytes(const std::string& directory) override;
  void sync_directory(const std::string& path) override;
};

}  // namespace tessera
