#include "data/shards/published_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tensor/check.h"

namespace tessera {

PublishedFile::PublishedFile(std::string kind, std::string path) : kind_(std::move(kind)), path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0)
    throw IoError(fmt::format("cannot open {} {}: {}{}", kind_, path_, std::strerror(errno),
                              errno == EMFILE ? "; raise the limit (ulimit -n), or build fewer, larger ones" : ""));
  struct stat status {};
  if (::fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(file_);
    throw DataError(fmt::format("{} {}: not a file", kind_, path_));
  }
  bytes_ = status.st_size;
  modified_ = status.st_mtim;
  // Training jumps about and says what it will need (prefetch); the kernel's guess would read much and use little.
  ::posix_fadvise(file_, 0, 0, POSIX_FADV_RANDOM);
}

PublishedFile::~PublishedFile() {
  if (file_ >= 0) ::close(file_);
}

PublishedFile::PublishedFile(PublishedFile&& other) noexcept
    : kind_(std::move(other.kind_)),
      path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      bytes_(other.bytes_),
      modified_(other.modified_) {}

void PublishedFile::read(int64_t offset, std::span<std::byte> out) const {
  for (size_t done = 0; done < out.size();) {
    const ssize_t count =
        ::pread(file_, out.data() + done, out.size() - done, static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw IoError(fmt::format("cannot read {} {}: {}", kind_, path_, std::strerror(errno)));
    if (count == 0) break;  // what follows says what the file has become
    done += static_cast<size_t>(count);
    if (done == out.size()) return check_unchanged();
  }
  if (out.empty()) return;
  check_unchanged();
  throw DataError(fmt::format("{} {}: cut off while it was read: {} bytes are expected", kind_, path_, bytes_));
}

void PublishedFile::check_unchanged() const {
  struct stat status {};
  if (::fstat(file_, &status) != 0)
    throw IoError(fmt::format("cannot read {} {}: {}", kind_, path_, std::strerror(errno)));
  if (status.st_size < bytes_)
    throw DataError(fmt::format("{} {}: cut off while it was read: {} bytes are expected, the file has {}", kind_,
                                path_, bytes_, status.st_size));
  if (status.st_size != bytes_ || status.st_mtim.tv_sec != modified_.tv_sec ||
      status.st_mtim.tv_nsec != modified_.tv_nsec)
    throw DataError(
        fmt::format("{} {}: written to while it was read; put new data beside it, under another name", kind_, path_));
}

void PublishedFile::prefetch(int64_t offset, int64_t bytes) const {
  ::posix_fadvise(file_, offset, bytes, POSIX_FADV_WILLNEED);
}

}  // namespace tessera
