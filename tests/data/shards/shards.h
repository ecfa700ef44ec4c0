// Small token shards for tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "data/shards/token_shard_writer.h"
#include "tests/support/message_of.h"

namespace tessera::testing_data {

using Documents = std::vector<std::vector<int32_t>>;  // without end-of-text

// A directory that goes away with the object.
class TempDirectory {
 public:
  TempDirectory() {
    static std::atomic<int> next{0};
    path_ = ::testing::TempDir() + "tessera-data-" + std::to_string(::getpid()) + "-" + std::to_string(next++);
    std::filesystem::create_directories(path_);
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_file(const std::string& path, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline const TokenShardFormat kFormat{"0123456789abcdef0123456789abcdef", 1000, 999};

inline void write_shard(const std::string& path, const Documents& documents, const TokenShardFormat& format = kFormat) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  TokenShardWriter writer(path, format);
  for (const auto& document : documents) writer.append(document);
  writer.finish();
}

// Documents of 0 .. most tokens below 999.
inline Documents random_documents(std::mt19937& random, int count, int most) {
  Documents documents(count);
  for (auto& document : documents) {
    document.resize(std::uniform_int_distribution<int>(0, most)(random));
    for (int32_t& token : document) token = std::uniform_int_distribution<int32_t>(0, 998)(random);
  }
  return documents;
}

// The stream that the documents make.
inline std::vector<int32_t> concatenate(const Documents& documents, int32_t end_of_text = kFormat.end_of_text) {
  std::vector<int32_t> stream;
  for (const auto& document : documents) {
    stream.insert(stream.end(), document.begin(), document.end());
    stream.push_back(end_of_text);
  }
  return stream;
}

using testing::message_of;

}  // namespace tessera::testing_data
