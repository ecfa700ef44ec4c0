#include "checkpoint/format/storage.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tensor/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
  throw IoError(fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}
[[noreturn]] void fail(const char* what, const std::string& path, const std::error_code& error) {
  throw IoError(fmt::format("cannot {} {}: {}", what, path, error.message()));
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, const char* what) : path_(path) {
    do {
      fd_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EINTR);
    if (fd_ < 0) fail(what, path, errno);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  const std::string& path() const { return path_; }
  void sync() const {
    if (::fsync(fd_) != 0) fail("write to the disk (fsync)", path_, errno);
  }
  void discard() const { static_cast<void>(::ftruncate(fd_, 0) == 0); }
  // Some file systems report a failed write only here.
  void close() {
    if (::close(std::exchange(fd_, -1)) != 0) fail("close", path_, errno);
  }

 private:
  std::string path_;
  int fd_ = -1;
};

class PosixWriter : public FileWriter {
 public:
  PosixWriter(const std::string& path, int64_t bytes) : file_(path, O_WRONLY | O_CREAT | O_TRUNC, "create") {
    // The file's length stays what was written: what a crash leaves is seen to be short. File systems that cannot do
    // this say so, and then writing finds out.
    if (bytes > 0 && ::fallocate(file_.get(), FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
      const int error = errno;
      file_.discard();  // some file systems keep what they could give
      throw IoError(fmt::format("cannot write {}: no room for {} bytes: {}", path, bytes, std::strerror(error)));
    }
  }

  void append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write", file_.path(), errno);
      bytes = bytes.subspan(static_cast<size_t>(written));
      size_ += written;
    }
    start_writing_out();
  }

  void finish() override {
    file_.sync();
    forget(size_);
    file_.close();
  }

 private:
  static constexpr int64_t kWriteOut = int64_t{16} << 20;
  static constexpr int64_t kUnderWay = 4 * kWriteOut;

  // The disk begins with what is there, instead of with everything at the end; and what it has taken leaves the page
  // cache, so that a save takes little of the machine's memory and pushes nothing out that others read. Advice: fsync
  // says whether it worked.
  void start_writing_out() {
    if (size_ - sent_ < kWriteOut) return;
    ::sync_file_range(file_.get(), sent_, size_ - sent_, SYNC_FILE_RANGE_WRITE);
    sent_ = size_;
    if (sent_ - forgotten_ <= kUnderWay) return;
    const int64_t end = sent_ - kUnderWay;
    ::sync_file_range(file_.get(), forgotten_, end - forgotten_,
                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    forget(end);
  }

  void forget(int64_t end) {
    ::posix_fadvise(file_.get(), forgotten_, end - forgotten_, POSIX_FADV_DONTNEED);
    forgotten_ = end;
  }

  Descriptor file_;
  int64_t size_ = 0;
  int64_t sent_ = 0;       // bytes that the disk was told to write
  int64_t forgotten_ = 0;  // bytes that left the page cache
};

class PosixReader : public FileReader {
 public:
  explicit PosixReader(const std::string& path) : file_(path, O_RDONLY, "open") {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) fail("look at", path, errno);
    if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("cannot read {}: it is not a file", path));
    size_ = status.st_size;
    // Files are read nearly from front to back. The kernel then reads twice as far ahead by itself; asking it for the
    // next blocks explicitly was measured to be slower.
    ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }

  int64_t size() const override { return size_; }

  void read(int64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      const ssize_t got = ::pread(file_.get(), out.data(), out.size(), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("read", file_.path(), errno);
      if (got == 0) {
        throw IoError(
            fmt::format("cannot read {}: it ends at byte {}, {} more were wanted", file_.path(), offset, out.size()));
      }
      offset += got;
      out = out.subspan(static_cast<size_t>(got));
    }
  }

  void forget() override { ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED); }

 private:
  Descriptor file_;
  int64_t size_ = 0;
};

struct stat look_at(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail("look at", path, errno);
  return status;
}

}  // namespace

void Storage::write_file(const std::string& path, std::span<const std::byte> bytes) {
  const auto file = create(path, static_cast<int64_t>(bytes.size()));
  file->append(bytes);
  file->finish();
}

std::string Storage::read_file(const std::string& path, int64_t max_bytes) {
  const auto file = open(path);
  if (file->size() > max_bytes) {
    throw IoError(
        fmt::format("cannot read {}: it has {} bytes, and such a file has at most {}", path, file->size(), max_bytes));
  }
  std::string bytes(static_cast<size_t>(file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

void PosixStorage::create_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail("create the directory", path, error);
}

std::unique_ptr<FileWriter> PosixStorage::create(const std::string& path, int64_t bytes) {
  return std::make_unique<PosixWriter>(path, bytes);
}

std::unique_ptr<FileReader> PosixStorage::open(const std::string& path) { return std::make_unique<PosixReader>(path); }

void PosixStorage::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail("rename", from + " to " + to, errno);
}

void PosixStorage::publish(const std::string& from, const std::string& to) {
  // rename() takes the place of nothing or of an empty directory only.
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST) fail("rename", from + " to " + to, errno);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return remove_tree(from);
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) fail("exchange", from + " and " + to, errno);
  const std::string aside = from + "-replaced";
  rename(to, aside);
  rename(from, to);
  remove_tree(aside);
}

void PosixStorage::remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail("remove", path, error);
}

bool PosixStorage::exists(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail("look at", path, errno);
}

std::vector<Storage::Entry> PosixStorage::list(const std::string& directory) {
  std::error_code error;
  std::vector<Entry> entries;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    std::error_code gone;  // removed since
    entries.push_back({it->path().filename().string(), it->is_directory(gone)});
  }
  if (error) fail("list", directory, error);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

int64_t PosixStorage::file_size(const std::string& path) { return look_at(path).st_size; }

int64_t PosixStorage::modified(const std::string& path) { return look_at(path).st_mtime; }

int64_t PosixStorage::free_bytes(const std::string& directory) {
  struct statvfs status {};
  if (::statvfs(directory.c_str(), &status) != 0) fail("look at the file system of", directory, errno);
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

void PosixStorage::sync_directory(const std::string& path) {
  Descriptor directory(path, O_RDONLY | O_DIRECTORY, "open");
  directory.sync();
}

}  // namespace tessera
