#include "data/shards/token_shard.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <vector>

#include "data/shards/token_shard_format.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using namespace token_shard;

[[noreturn]] void fail(const std::string& path, const std::string& problem) {
  throw DataError(fmt::format("token shard {}: {}", path, problem));
}

[[noreturn]] void fail_cut_off(const std::string& path, uint64_t expected, uint64_t actual) {
  fail(path, fmt::format("cut off: {} bytes are expected, the file has {}; copy or build it again", expected, actual));
}

uint64_t little_endian(const unsigned char* bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// Looks at the superblock (HDF5 file format specification 3.0, II.A) before HDF5 does: its own refusal of a file that
// was cut off or never closed says neither in words for users nor how many bytes there should be.
void check_superblock(const PublishedFile& file) {
  constexpr std::array<unsigned char, 8> kSignature = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  constexpr size_t kSuperblockBytes = 48;  // of versions 2 and 3 with 8-byte addresses
  const std::string& path = file.path();
  const auto file_bytes = static_cast<uint64_t>(file.bytes());
  std::array<unsigned char, kSuperblockBytes> block{};
  const size_t count = std::min<size_t>(block.size(), file_bytes);
  file.read(0, std::as_writable_bytes(std::span(block).first(count)));
  if (!std::equal(kSignature.begin(), kSignature.end(), block.begin()))
    fail(path, fmt::format("not an HDF5 file ({} bytes)", file_bytes));
  if (count < block.size()) fail_cut_off(path, kSuperblockBytes, file_bytes);
  const int version = block[8], address_bytes = block[9], flags = block[11];
  if (version < 2 || address_bytes != 8)
    fail(path, fmt::format("HDF5 superblock version {}; token shards are written by HDF5 1.10 or later", version));
  const uint64_t end_of_file = little_endian(block.data() + 28, 8);
  if (file_bytes < end_of_file) fail_cut_off(path, end_of_file, file_bytes);
  if (version == 3 && (flags & 1)) fail(path, "its writer never closed it");
}

int64_t read_integer(hid_t file, const std::string& path, const char* name, int64_t least, int64_t most) {
  const Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  if (!attribute.valid()) fail(path, fmt::format("no attribute {}: not a token shard", name));
  const Handle type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_type(space) != H5S_SCALAR)
    fail(path, fmt::format("attribute {} is not an integer", name));
  int64_t value = 0;
  if (H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
    fail(path, fmt::format("cannot read attribute {}: {}", name, last_hdf5_error()));
  if (value < least || value > most)
    fail(path, fmt::format("attribute {} is {}, outside [{}, {}]", name, value, least, most));
  return value;
}

std::string read_string(hid_t file, const std::string& path, const char* name) {
  const Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  if (!attribute.valid()) fail(path, fmt::format("no attribute {}: not a token shard", name));
  const Handle type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  constexpr size_t kLongest = 4096;
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || H5Tget_size(type) > kLongest ||
      H5Sget_simple_extent_type(space) != H5S_SCALAR)
    fail(path, fmt::format("attribute {} is not a string of fixed length", name));
  std::string value(H5Tget_size(type), '\0');
  if (H5Aread(attribute, type, value.data()) < 0)
    fail(path, fmt::format("cannot read attribute {}: {}", name, last_hdf5_error()));
  value.resize(std::min(value.size(), value.find('\0')));
  return value;
}

const char* layout_name(H5D_layout_t layout) {
  return layout == H5D_CHUNKED   ? "chunked"
         : layout == H5D_VIRTUAL ? "virtual"
         : layout == H5D_COMPACT ? "compact"
                                 : "?";
}

// Where a dataset lies, after all checks that make it safe to read it without HDF5.
struct Extent {
  DType dtype;
  uint64_t offset, count;
};

Extent locate(hid_t file, const std::string& path, const char* name) {
  // Links and storage outside this file make HDF5 open other paths.
  H5L_info_t link;
  if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0) fail(path, fmt::format("no dataset {}", name));
  if (link.type != H5L_TYPE_HARD) fail(path, fmt::format("{} is a link, not a dataset of this file", name));
  const Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  if (!dataset.valid()) fail(path, fmt::format("cannot open dataset {}: {}", name, last_hdf5_error()));

  const Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(creation);
  if (layout != H5D_CONTIGUOUS)
    fail(path, fmt::format("dataset {} is {}; token shards have contiguous datasets", name, layout_name(layout)));
  if (H5Pget_external_count(creation) != 0) fail(path, fmt::format("dataset {} lies in another file", name));

  const Handle type(H5Dget_type(dataset), H5Tclose);
  const bool is_u16 = H5Tequal(type, H5T_STD_U16LE) > 0, is_u32 = H5Tequal(type, H5T_STD_U32LE) > 0;
  const bool is_u64 = H5Tequal(type, H5T_STD_U64LE) > 0;
  const bool is_offsets = std::strcmp(name, kOffsets) == 0;
  if (is_offsets ? !is_u64 : !is_u16 && !is_u32)
    fail(path, fmt::format("dataset {} is not of type {} (little-endian)", name, is_offsets ? "u64" : "u16 or u32"));

  const Handle space(H5Dget_space(dataset), H5Sclose);
  hsize_t count = 0;
  if (H5Sget_simple_extent_ndims(space) != 1 || H5Sget_simple_extent_dims(space, &count, nullptr) != 1)
    fail(path, fmt::format("dataset {} is not one-dimensional", name));
  const haddr_t offset = H5Dget_offset(dataset);
  if (count == 0 || offset == HADDR_UNDEF) fail(path, fmt::format("dataset {} is empty", name));
  return {is_u16 ? DType::U16 : DType::U32, offset, count};
}

void check_inside(const std::string& path, const char* name, const Extent& extent, uint64_t width,
                  uint64_t file_bytes) {
  if (extent.offset > file_bytes || extent.count > (file_bytes - extent.offset) / width)
    fail_cut_off(path, extent.offset + extent.count * width, file_bytes);
  if (extent.offset % width != 0)
    fail(path, fmt::format("dataset {} begins at byte {}, not a multiple of {}", name, extent.offset, width));
}

}  // namespace

TokenShard::TokenShard(const std::string& path) : file_("token shard", path) {
  check_superblock(file_);
  const auto file_bytes = static_cast<uint64_t>(file_.bytes());
  const QuietHdf5 quiet;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Published shards are never written again, and file systems without locks must not make the open fail.
  H5Pset_file_locking(access, false, true);
  const Handle hdf5(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!hdf5.valid()) fail(path, fmt::format("HDF5 cannot open it: {}", last_hdf5_error()));

  constexpr int64_t kMost = std::numeric_limits<int64_t>::max(), kMostIds = std::numeric_limits<int32_t>::max();
  const int64_t version = read_integer(hdf5, path, kVersionAttribute, 0, kMost);
  if (version != kFormatVersion)
    fail(path, fmt::format("format version {}; this program reads version {}", version, kFormatVersion));
  info_.path = path;
  info_.file_bytes = static_cast<int64_t>(file_bytes);
  info_.vocab_size = read_integer(hdf5, path, kVocabAttribute, 1, kMostIds);
  info_.end_of_text = static_cast<int32_t>(read_integer(hdf5, path, kEndOfTextAttribute, 0, info_.vocab_size - 1));
  info_.tokens = read_integer(hdf5, path, kTokenCountAttribute, 1, kMost);
  info_.documents = read_integer(hdf5, path, kDocumentCountAttribute, 1, info_.tokens);
  info_.tokenizer_fingerprint = read_string(hdf5, path, kFingerprintAttribute);
  info_.tokens_hash = read_string(hdf5, path, kTokensHashAttribute);
  info_.offsets_hash = read_string(hdf5, path, kOffsetsHashAttribute);

  const Extent tokens = locate(hdf5, path, kTokens), offsets = locate(hdf5, path, kOffsets);
  info_.dtype = tokens.dtype;
  if (tokens.count != static_cast<uint64_t>(info_.tokens))
    fail(path,
         fmt::format("{} tokens in the dataset, {} in attribute {}", tokens.count, info_.tokens, kTokenCountAttribute));
  if (offsets.count != static_cast<uint64_t>(info_.documents) + 1)
    fail(path,
         fmt::format("{} document offsets, but {} documents need one more than that", offsets.count, info_.documents));
  check_inside(path, kTokens, tokens, size_of(tokens.dtype), file_bytes);
  check_inside(path, kOffsets, offsets, sizeof(uint64_t), file_bytes);

  tokens_at_ = static_cast<int64_t>(tokens.offset);
  offsets_at_ = static_cast<int64_t>(offsets.offset);
  uint64_t first = 0, last = 0;
  read_offsets(0, {&first, 1});
  read_offsets(info_.documents, {&last, 1});
  if (first != 0 || last != tokens.count)
    fail(path, fmt::format("document offsets run from {} to {}, not from 0 to {}", first, last, tokens.count));
}

void TokenShard::read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  TESSERA_CHECK(begin >= 0 && count <= info_.tokens - begin,
                fmt::format("tokens {} to {} are read of a shard of {}", begin, begin + count, info_.tokens));
  // 16-bit tokens are read into the back half of the memory that they fill, and widened from the front on: a token is
  // written at or before the place where it stood, behind which lie those that come later.
  const size_t width = size_of(info_.dtype);
  const auto memory = std::as_writable_bytes(out);
  const auto stored = memory.last(static_cast<size_t>(count) * width);
  file_.read(tokens_at_ + begin * static_cast<int64_t>(width), stored);
  uint32_t largest = 0;
  const auto widen = [&]<class T>(T token) {
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(&token, stored.data() + static_cast<size_t>(i) * sizeof(T), sizeof(T));
      largest = std::max<uint32_t>(largest, token);
      out[i] = static_cast<int32_t>(token);
    }
  };
  if (info_.dtype == DType::U16)
    widen(uint16_t{0});
  else
    widen(uint32_t{0});
  if (largest >= info_.vocab_size)
    fail(info_.path, fmt::format("token {} between tokens {} and {} is outside the vocabulary of {}", largest, begin,
                                 begin + count, info_.vocab_size));
}

void TokenShard::read_offsets(int64_t first, std::span<uint64_t> out) const {
  file_.read(offsets_at_ + first * static_cast<int64_t>(sizeof(uint64_t)), std::as_writable_bytes(out));
}

Interval TokenShard::document(int64_t d) const {
  TESSERA_CHECK(d >= 0 && d < info_.documents, fmt::format("document {} of {} is asked for", d, info_.documents));
  // The document's two offsets, and their neighbours: a damaged offset may still be larger than the one before it; then
  // it is not smaller than the one after it.
  const int64_t first = std::max<int64_t>(d - 1, 0), last = std::min(d + 2, info_.documents);
  std::array<uint64_t, 4> offsets{};
  read_offsets(first, std::span(offsets).first(static_cast<size_t>(last - first + 1)));
  const auto at = [&](int64_t i) { return offsets[static_cast<size_t>(i - first)]; };
  const uint64_t begin = at(d), end = at(d + 1), before = at(first), after = at(last);
  if (begin >= end || end > static_cast<uint64_t>(info_.tokens) || (d > 0 && before >= begin) ||
      (d + 1 < info_.documents && after <= end))
    fail(info_.path, fmt::format("document offsets are damaged: document {} begins at token {} and ends at {} of {}; "
                                 "the one before begins at {}, the one after ends at {}",
                                 d, begin, end, info_.tokens, before, after));
  return {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
}

int64_t TokenShard::document_of(int64_t token) const {
  TESSERA_CHECK(token >= 0 && token < info_.tokens, fmt::format("token {} of {} is asked for", token, info_.tokens));
  // The first offset is 0 and the last the number of tokens; between them a damaged one may mislead the search.
  int64_t d = 0;
  for (int64_t end = info_.documents; end - d > 1;) {
    const int64_t middle = d + (end - d) / 2;
    uint64_t begin = 0;
    read_offsets(middle, {&begin, 1});
    (begin <= static_cast<uint64_t>(token) ? d : end) = middle;
  }
  const Interval found = document(d);
  if (!found.contains(token))
    fail(info_.path, fmt::format("document offsets are damaged: they lead from token {} to document {}, which is "
                                 "tokens {} to {}",
                                 token, d, found.begin, found.end - 1));
  return d;
}

void TokenShard::check_end(int64_t d) const {
  int32_t last = 0;
  read(document(d).end - 1, {&last, 1});
  if (last != info_.end_of_text)
    fail(info_.path,
         fmt::format("document {} ends with token {}, not with end-of-text {}", d, last, info_.end_of_text));
}

void TokenShard::prefetch(int64_t begin, int64_t count) const {
  const auto width = static_cast<int64_t>(size_of(info_.dtype));
  file_.prefetch(tokens_at_ + begin * width, std::min(count, info_.tokens - begin) * width);
}

void TokenShard::check_hashes() const {
  std::vector<std::byte> block(size_t{1} << 20);
  const auto hash_of = [&](int64_t offset, int64_t bytes) {
    StreamingHash hash;
    for (int64_t done = 0; done < bytes;) {
      const auto part = std::span(block).first(static_cast<size_t>(std::min<int64_t>(std::ssize(block), bytes - done)));
      file_.prefetch(offset + done + std::ssize(part), std::ssize(block));
      file_.read(offset + done, part);
      hash.update(part.data(), part.size());
      done += std::ssize(part);
    }
    return hash.digest();
  };
  const std::string tokens = hash_of(tokens_at_, info_.tokens * static_cast<int64_t>(size_of(info_.dtype)));
  if (tokens != info_.tokens_hash)
    fail(info_.path, fmt::format("tokens are damaged: XXH3-128 {}, written was {}", tokens, info_.tokens_hash));
  const std::string offsets = hash_of(offsets_at_, (info_.documents + 1) * static_cast<int64_t>(sizeof(uint64_t)));
  if (offsets != info_.offsets_hash)
    fail(info_.path,
         fmt::format("document offsets are damaged: XXH3-128 {}, written was {}", offsets, info_.offsets_hash));
}

void TokenShard::check_documents() const {
  // Tokens and offsets go by once, side by side: `block` holds the tokens from `begin` on, all of them in turn.
  constexpr int64_t kBlock = 1 << 16;
  std::vector<int32_t> block;
  std::vector<uint64_t> offsets;
  int64_t begin = 0;
  for (int64_t first = 0; first < info_.documents; first += kBlock) {
    offsets.resize(static_cast<size_t>(std::min(kBlock, info_.documents - first) + 1));
    read_offsets(first, offsets);
    for (size_t i = 1; i < offsets.size(); ++i) {
      const int64_t d = first + static_cast<int64_t>(i) - 1;
      if (offsets[i - 1] >= offsets[i] || offsets[i] > static_cast<uint64_t>(info_.tokens))
        (void)document(d);  // throws
      const int64_t last = static_cast<int64_t>(offsets[i]) - 1;
      while (last >= begin + std::ssize(block)) {
        begin += std::ssize(block);
        block.resize(static_cast<size_t>(std::min(kBlock, info_.tokens - begin)));
        read(begin, block);
      }
      if (block[static_cast<size_t>(last - begin)] != info_.end_of_text) check_end(d);  // throws
    }
  }
}

void TokenShard::verify() const {
  check_hashes();
  check_documents();
}

}  // namespace tessera
