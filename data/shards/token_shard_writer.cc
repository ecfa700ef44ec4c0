#include "data/shards/token_shard_writer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/shards/token_shard_format.h"
#include "tensor/check.h"
#include "tensor/dtype.h"

namespace tessera {
namespace {

using namespace token_shard;

constexpr size_t kBlockBytes = size_t{1} << 20;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw IoError(fmt::format("cannot write token shard {}: {}", path, what));
}

// Bytes appended to an unnamed file and hashed on the way, to be read back once.
class Spool {
 public:
  explicit Spool(const std::string& path) : path_(path) {
    std::string name = path + ".spool-XXXXXX";
    file_ = ::mkstemp(name.data());
    if (file_ < 0) fail(path, std::strerror(errno));
    ::unlink(name.c_str());  // gone with the process, whatever happens
    buffer_.reserve(kBlockBytes);
  }
  ~Spool() { ::close(file_); }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Appends values as T, which holds each of them.
  template <class T, class V>
  void append(std::span<const V> values) {
    while (!values.empty()) {
      const size_t room = (kBlockBytes - buffer_.size()) / sizeof(T), count = std::min(room, values.size());
      if (count == 0) {
        flush();
        continue;
      }
      const size_t begin = buffer_.size();
      buffer_.resize(begin + count * sizeof(T));
      auto* out = reinterpret_cast<T*>(buffer_.data() + begin);  // aligned: the buffer holds nothing but T
      for (size_t i = 0; i < count; ++i) out[i] = static_cast<T>(values[i]);
      values = values.subspan(count);
    }
  }
  template <class T>
  void append(T value) {
    append<T, T>(std::span(&value, 1));
  }

  void flush() {
    hash_.update(buffer_.data(), buffer_.size());
    for (size_t done = 0; done < buffer_.size();) {
      const ssize_t count = ::write(file_, buffer_.data() + done, buffer_.size() - done);
      if (count < 0 && errno != EINTR) fail(path_, std::strerror(errno));
      if (count > 0) done += static_cast<size_t>(count);
    }
    buffer_.clear();
  }

  // Overwrites out with the bytes at `offset`.
  void read(uint64_t offset, std::span<std::byte> out) const {
    for (size_t done = 0; done < out.size();) {
      const ssize_t count = ::pread(file_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (count == 0 || (count < 0 && errno != EINTR)) fail(path_, "its temporary file cannot be read back");
      if (count > 0) done += static_cast<size_t>(count);
    }
  }

  std::string hash() const { return hash_.digest(); }

 private:
  std::string path_;
  int file_ = -1;
  std::vector<std::byte> buffer_;
  StreamingHash hash_;
};

// Checks a return code of HDF5 that is not negative when all is well.
template <class T>
T checked(T result, const std::string& path, const char* what) {
  if (result < 0) fail(path, fmt::format("{}: {}", what, last_hdf5_error()));
  return result;
}

void write_integer(hid_t file, const std::string& path, const char* name, int64_t value) {
  const Handle space(checked(H5Screate(H5S_SCALAR), path, name), H5Sclose);
  const Handle attribute(checked(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), path, name),
                         H5Aclose);
  checked(H5Awrite(attribute, H5T_NATIVE_INT64, &value), path, name);
}

void write_string(hid_t file, const std::string& path, const char* name, const std::string& value) {
  const Handle space(checked(H5Screate(H5S_SCALAR), path, name), H5Sclose);
  const Handle type(checked(H5Tcopy(H5T_C_S1), path, name), H5Tclose);
  checked(H5Tset_size(type, value.size()), path, name);
  checked(H5Tset_strpad(type, H5T_STR_NULLPAD), path, name);
  const Handle attribute(checked(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), path, name), H5Aclose);
  checked(H5Awrite(attribute, type, value.data()), path, name);
}

// A contiguous dataset of `count` elements, copied from the spool block by block.
void write_dataset(hid_t file, const std::string& path, const char* name, hid_t type, uint64_t count,
                   const Spool& spool) {
  const uint64_t width = H5Tget_size(type);
  const hsize_t extent = count;
  const Handle space(checked(H5Screate_simple(1, &extent, nullptr), path, name), H5Sclose);
  const Handle creation(checked(H5Pcreate(H5P_DATASET_CREATE), path, name), H5Pclose);
  checked(H5Pset_layout(creation, H5D_CONTIGUOUS), path, name);
  checked(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), path, name);
  checked(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), path, name);
  checked(H5Pset_obj_track_times(creation, false), path, name);
  Handle dataset(checked(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), path, name),
                 H5Dclose);
  std::vector<std::byte> block(std::min(kBlockBytes, count * width));
  StreamingHash hash;
  for (hsize_t begin = 0; begin < count;) {
    const hsize_t part = std::min<hsize_t>(count - begin, kBlockBytes / width);
    const auto bytes = std::span(block).first(part * width);
    spool.read(begin * width, bytes);
    hash.update(bytes.data(), bytes.size());
    const Handle memory(checked(H5Screate_simple(1, &part, nullptr), path, name), H5Sclose);
    checked(H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &part, nullptr), path, name);
    checked(H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, block.data()), path, name);
    begin += part;
  }
  if (hash.digest() != spool.hash()) fail(path, "its temporary file was damaged");
  if (!dataset.close()) fail(path, fmt::format("{}: {}", name, last_hdf5_error()));
}

void sync_path(const std::string& path, int flags) {
  const int file = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file < 0) fail(path, std::strerror(errno));
  const int result = ::fsync(file), error = errno;
  ::close(file);
  if (result != 0) fail(path, fmt::format("fsync: {}", std::strerror(error)));
}

}  // namespace

struct TokenShardWriter::Parts {
  Parts(const std::string& p, const TokenShardFormat& f)
      : path(p), format(f), dtype(f.vocab_size <= 65536 ? DType::U16 : DType::U32), token_spool(p), offset_spool(p) {}

  void write(const std::string& name);

  std::string path;
  TokenShardFormat format;
  DType dtype;
  Spool token_spool, offset_spool;
  int64_t tokens = 0, documents = 0;
};

TokenShardWriter::TokenShardWriter(const std::string& path, const TokenShardFormat& format) {
  TESSERA_CHECK(format.vocab_size >= 1 && format.vocab_size <= INT32_MAX, "a vocabulary of 31-bit tokens");
  TESSERA_CHECK(format.end_of_text >= 0 && format.end_of_text < format.vocab_size, "end-of-text in the vocabulary");
  TESSERA_CHECK(!format.tokenizer_fingerprint.empty(), "a tokenizer's fingerprint");
  parts_ = std::make_unique<Parts>(path, format);
  parts_->offset_spool.append(uint64_t{0});
}

TokenShardWriter::~TokenShardWriter() = default;

int64_t TokenShardWriter::tokens() const { return parts_->tokens; }
int64_t TokenShardWriter::documents() const { return parts_->documents; }

void TokenShardWriter::append(std::span<const int32_t> tokens) {
  Parts& parts = *parts_;
  for (const int32_t token : tokens)
    if (token < 0 || token >= parts.format.vocab_size)
      throw DataError(fmt::format("token shard {}: token {} of document {} is outside the vocabulary of {}", parts.path,
                                  token, parts.documents, parts.format.vocab_size));
  for (const auto part : {tokens, std::span<const int32_t>(&parts.format.end_of_text, 1)}) {
    if (parts.dtype == DType::U16)
      parts.token_spool.append<uint16_t>(part);
    else
      parts.token_spool.append<uint32_t>(part);
  }
  parts.tokens += std::ssize(tokens) + 1;
  ++parts.documents;
  parts.offset_spool.append(static_cast<uint64_t>(parts.tokens));
}

void TokenShardWriter::Parts::write(const std::string& name) {
  const QuietHdf5 quiet;
  const Handle access(checked(H5Pcreate(H5P_FILE_ACCESS), path, "access"), H5Pclose);
  // Version 1.10 of the format checksums its metadata and marks a file that was not closed.
  checked(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), path, "format version");
  checked(H5Pset_alignment(access, 1, kAlignment), path, "alignment");
  checked(H5Pset_file_locking(access, false, true), path, "locking");
  const Handle creation(checked(H5Pcreate(H5P_FILE_CREATE), path, "creation"), H5Pclose);
  checked(H5Pset_obj_track_times(creation, false), path, "object times");
  constexpr unsigned kMostCompact = 64, kLeastDense = 32;  // keeps all attributes in the root group's header
  checked(H5Pset_attr_phase_change(creation, kMostCompact, kLeastDense), path, "attributes");

  Handle file(checked(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation, access), path, "create"), H5Fclose);
  write_integer(file, path, kVersionAttribute, kFormatVersion);
  write_string(file, path, kFingerprintAttribute, format.tokenizer_fingerprint);
  write_integer(file, path, kVocabAttribute, format.vocab_size);
  write_integer(file, path, kEndOfTextAttribute, format.end_of_text);
  write_integer(file, path, kTokenCountAttribute, tokens);
  write_integer(file, path, kDocumentCountAttribute, documents);
  write_string(file, path, kTokensHashAttribute, token_spool.hash());
  write_string(file, path, kOffsetsHashAttribute, offset_spool.hash());
  write_dataset(file, path, kTokens, dtype == DType::U16 ? H5T_STD_U16LE : H5T_STD_U32LE, static_cast<uint64_t>(tokens),
                token_spool);
  write_dataset(file, path, kOffsets, H5T_STD_U64LE, static_cast<uint64_t>(documents) + 1, offset_spool);
  if (!file.close()) fail(path, fmt::format("close: {}", last_hdf5_error()));
  sync_path(name, O_RDONLY);
}

void TokenShardWriter::finish() {
  Parts& parts = *parts_;
  TESSERA_CHECK(parts.documents > 0, "a shard holds at least one document");
  parts.token_spool.flush();
  parts.offset_spool.flush();
  const std::string temporary = parts.path + ".tmp";
  try {
    parts.write(temporary);
    if (::rename(temporary.c_str(), parts.path.c_str()) != 0) fail(parts.path, std::strerror(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const std::string directory = std::filesystem::path(parts.path).parent_path().string();
  sync_path(directory.empty() ? "." : directory, O_RDONLY | O_DIRECTORY);
}

TokenShardSequence::TokenShardSequence(std::string directory, TokenShardFormat format, int64_t shard_tokens)
    : directory_(std::move(directory)), format_(std::move(format)), shard_tokens_(shard_tokens) {
  TESSERA_CHECK(shard_tokens_ > 0, "tokens of a shard");
}

TokenShardSequence::~TokenShardSequence() = default;

void TokenShardSequence::append(std::span<const int32_t> tokens) {
  if (!writer_) {
    paths_.push_back(fmt::format("{}/shard-{:06}.h5", directory_, paths_.size()));
    writer_ = std::make_unique<TokenShardWriter>(paths_.back(), format_);
  }
  writer_->append(tokens);
  tokens_ += std::ssize(tokens) + 1;
  ++documents_;
  if (writer_->tokens() >= shard_tokens_) close_shard();
}

void TokenShardSequence::close_shard() {
  writer_->finish();
  writer_.reset();
}

void TokenShardSequence::finish() {
  if (writer_) close_shard();
}

}  // namespace tessera
