#include "data/shards/byte_stream.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr size_t kBufferBytes = 128 << 10;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::string& path) : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) throw IoError(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  ~PlainStream() override { ::close(file_); }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;

  size_t read(std::span<char> out) override {
    while (true) {
      const ssize_t count = ::read(file_, out.data(), out.size());
      if (count >= 0) return static_cast<size_t>(count);
      if (errno != EINTR) throw IoError(fmt::format("cannot read {}: {}", path_, std::strerror(errno)));
    }
  }

 private:
  std::string path_;
  int file_;
};

// What both decompressors share: compressed input in a buffer, refilled from the file.
class CompressedInput {
 public:
  explicit CompressedInput(const std::string& path) : path_(path), file_(path), buffer_(kBufferBytes) {}

  // False when the file has ended and the buffer is empty.
  bool refill() {
    if (begin_ < end_) return true;
    begin_ = 0;
    end_ = file_.read(buffer_);
    return end_ > 0;
  }
  std::span<char> rest() { return std::span(buffer_).subspan(begin_, end_ - begin_); }
  void take(size_t bytes) { begin_ += bytes; }

  [[noreturn]] void fail(const std::string& problem) const { throw DataError(fmt::format("{}: {}", path_, problem)); }

 private:
  std::string path_;
  PlainStream file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
};

class GzipStream : public ByteStream {
 public:
  explicit GzipStream(const std::string& path) : input_(path) {
    constexpr int kGzipWindow = 15 + 16;  // the largest window; + 16: a gzip header and trailer, nothing else
    if (inflateInit2(&stream_, kGzipWindow) != Z_OK) throw IoError("zlib cannot start a decompressor");
  }
  ~GzipStream() override { inflateEnd(&stream_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  size_t read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    const size_t room = std::min<size_t>(out.size(), std::numeric_limits<uInt>::max());
    stream_.avail_out = static_cast<uInt>(room);
    while (stream_.avail_out == room) {
      if (!input_.refill()) {
        if (inside_) input_.fail("the gzip data are cut off");
        return 0;
      }
      const std::span<char> in = input_.rest();
      stream_.next_in = reinterpret_cast<Bytef*>(in.data());
      stream_.avail_in = static_cast<uInt>(in.size());
      inside_ = true;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      input_.take(in.size() - stream_.avail_in);
      if (result == Z_STREAM_END) {
        inflateReset(&stream_);
        inside_ = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        input_.fail(fmt::format("damaged gzip data: {}", stream_.msg ? stream_.msg : zError(result)));
      }
    }
    return room - stream_.avail_out;
  }

 private:
  CompressedInput input_;
  z_stream stream_{};
  bool inside_ = true;  // of a member: a file holds at least one
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(const std::string& path) : input_(path), stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    if (!stream_) throw IoError("zstd cannot start a decompressor");
  }

  size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0) {
      // A frame may hold more output than fitted: ask again before looking for input.
      const bool more = input_.refill();
      if (!more && !inside_) return 0;
      const std::span<char> in = more ? input_.rest() : std::span<char>();
      ZSTD_inBuffer input{in.data(), in.size(), 0};
      const size_t hint = ZSTD_decompressStream(stream_.get(), &output, &input);
      input_.take(input.pos);
      if (ZSTD_isError(hint)) input_.fail(fmt::format("damaged zstd data: {}", ZSTD_getErrorName(hint)));
      inside_ = hint != 0;
      if (!more && inside_ && output.pos == 0) input_.fail("the zstd data are cut off");
    }
    return output.pos;
  }

 private:
  CompressedInput input_;
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool inside_ = true;  // of a frame: a file holds at least one
};

}  // namespace

std::string without_compression_suffix(const std::string& path) {
  for (const std::string suffix : {".gz", ".zst"})
    if (path.ends_with(suffix)) return path.substr(0, path.size() - suffix.size());
  return path;
}

std::unique_ptr<ByteStream> ByteStream::open(const std::string& path) {
  if (path.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (path.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace tessera
