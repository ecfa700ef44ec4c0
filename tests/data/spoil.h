// Damages token shards behind the library's back.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace tessera::testing_data {

// Flips bits of one byte of a file.
inline void corrupt(const std::string& path, int64_t offset, char bits = 1) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const int byte = file.get();
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ bits));
}

// Where a dataset's bytes lie.
inline int64_t dataset_offset(const std::string& path, const char* name) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  const auto offset = static_cast<int64_t>(H5Dget_offset(dataset));
  H5Dclose(dataset);
  H5Fclose(file);
  return offset;
}

// Overwrites element `index` of a shard's document offsets.
inline void set_document_offset(const std::string& path, int64_t index, uint64_t value) {
  const int64_t begin = dataset_offset(path, "document_offsets");
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(begin + index * static_cast<int64_t>(sizeof(value)));
  file.write(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace tessera::testing_data
