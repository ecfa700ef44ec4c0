// HDF5 as a layout engine: a file that exists in memory only and that the library fills with its own structures.
//
// The library is told where datasets lie and never sees their bytes, so what it touches is small however big the
// tensors are. The caller reads the structures back and writes the file through Storage, in order, in one pass; so
// every byte of it passes the seam and the hashes. Files are made in the 1.10 format (superblock 3: checksummed
// structures), without object times, so that equal content is equal bytes. Headers of this folder only: needs hdf5.h.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace tessera {

// Owner of one HDF5 identifier.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  // Throws IoError with `what` and the library's own words when id is negative.
  Hdf5Handle(hid_t id, Close close, const std::string& what);
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = H5I_INVALID_HID; }
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  ~Hdf5Handle();
  hid_t get() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

// Throws IoError with `what` and the library's own words when status is negative.
void hdf5_check(herr_t status, const std::string& what);

// The type in files for a dtype: little-endian IEEE and integers; BF16 as a float of 1-8-7 bits.
Hdf5Handle hdf5_type(DType dtype);
Hdf5Handle hdf5_space(const Shape& shape);
// Creation properties of datasets: contiguous, no times, no fill, allocated at once.
Hdf5Handle hdf5_dataset_properties();

class Hdf5Image {
 public:
  static constexpr int64_t kAlignment = 4096;  // of every dataset

  Hdf5Image();
  ~Hdf5Image();
  Hdf5Image(const Hdf5Image&) = delete;
  Hdf5Image& operator=(const Hdf5Image&) = delete;

  hid_t file() const;
  // Makes the groups that `path` ("master/x") lies in.
  void create_groups(const std::string& path);

  // Completes the structures; afterwards bytes may be read, and nothing more be added.
  void close();
  int64_t size() const;
  // Bytes that the library never wrote read as zero.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
