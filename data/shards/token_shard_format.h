// What the writer and the reader of token shards agree on, and how they hold HDF5's objects (for .cc files in data/).
#pragma once

#include <hdf5.h>
#include <xxhash.h>

#include <cstdint>
#include <string>
#include <utility>

namespace tessera::token_shard {

inline constexpr int64_t kFormatVersion = 1;
inline constexpr int64_t kAlignment = 4096;  // of datasets within the file

inline constexpr const char* kTokens = "tokens";
inline constexpr const char* kOffsets = "document_offsets";

inline constexpr const char* kVersionAttribute = "token_shard_version";
inline constexpr const char* kFingerprintAttribute = "tokenizer_fingerprint";
inline constexpr const char* kVocabAttribute = "vocab_size";
inline constexpr const char* kEndOfTextAttribute = "end_of_text";
inline constexpr const char* kTokenCountAttribute = "token_count";
inline constexpr const char* kDocumentCountAttribute = "document_count";
inline constexpr const char* kTokensHashAttribute = "tokens_xxh3_128";
inline constexpr const char* kOffsetsHashAttribute = "document_offsets_xxh3_128";

// Owns one HDF5 identifier.
class Handle {
 public:
  Handle(hid_t id, herr_t (*closer)(hid_t)) : id_(id), close_(closer) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&&) = delete;

  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  // Closes now; false when that failed (a write may come only then).
  bool close() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// While it lives HDF5 prints nothing for this thread: return codes are turned into exceptions instead.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// The innermost message on HDF5's error stack of this thread; what the operating system said, if it did.
std::string last_hdf5_error();

// The canonical (big-endian) form of the hash, as 32 hex digits: what xxhsum -H2 prints.
std::string hex(XXH128_hash_t hash);

// XXH3-128 of bytes that come in pieces.
class StreamingHash {
 public:
  StreamingHash();
  ~StreamingHash();
  StreamingHash(const StreamingHash&) = delete;
  StreamingHash& operator=(const StreamingHash&) = delete;

  void update(const void* data, size_t bytes);
  std::string digest() const;

 private:
  XXH3_state_t* state_;
};

}  // namespace tessera::token_shard
