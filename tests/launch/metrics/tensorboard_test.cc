#include "launch/metrics/tensorboard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "tensor/check.h"

namespace tessera {
namespace {

// An independent reader: bit by bit CRC, a recursive decoder of protocol buffers, no code shared with the writer.
uint32_t slow_crc32c(const std::string& bytes) {
  uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      const bool one = ((crc ^ (static_cast<unsigned char>(byte) >> bit)) & 1) != 0;
      crc >>= 1;
      if (one) crc ^= 0x82f63b78;
    }
  }
  return crc ^ 0xffffffff;
}

uint64_t little_endian(const std::string& bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
  return value;
}

uint32_t unmasked(uint64_t masked) {
  const uint32_t rotated = static_cast<uint32_t>(masked) - 0xa282ead8;
  return rotated >> 17 | rotated << 15;
}

std::vector<std::string> read_records(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::string> records;
  for (size_t at = 0; at < file.size();) {
    const uint64_t size = little_endian(file, at, 8);
    if (unmasked(little_endian(file, at + 8, 4)) != slow_crc32c(file.substr(at, 8))) {
      throw std::runtime_error("length CRC");
    }
    const std::string record = file.substr(at + 12, size);
    if (unmasked(little_endian(file, at + 12 + size, 4)) != slow_crc32c(record)) throw std::runtime_error("data CRC");
    records.push_back(record);
    at += 16 + size;
  }
  return records;
}

struct Field {
  uint64_t number = 0;
  uint64_t integer = 0;  // varint, fixed32, fixed64
  std::string bytes;
};

std::vector<Field> decode(const std::string& message) {
  std::vector<Field> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    Field field;
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.integer = varint();
        break;
      case 1:
        field.integer = little_endian(message, at, 8);
        at += 8;
        break;
      case 5:
        field.integer = little_endian(message, at, 4);
        at += 4;
        break;
      case 2: {
        const uint64_t size = varint();
        field.bytes = message.substr(at, size);
        if (field.bytes.size() != size) throw std::runtime_error("short field");
        at += size;
        break;
      }
      default:
        throw std::runtime_error("wire type");
    }
    fields.push_back(field);
  }
  return fields;
}

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  std::optional<uint64_t> session_status;
};

Event decode_event(const std::string& record) {
  Event event;
  for (const Field& field : decode(record)) {
    if (field.number == 1) std::memcpy(&event.wall_time, &field.integer, 8);
    if (field.number == 2) event.step = static_cast<int64_t>(field.integer);
    if (field.number == 3) event.file_version = field.bytes;
    if (field.number == 7) event.session_status = decode(field.bytes).at(0).integer;
    if (field.number != 5) continue;
    for (const Field& value : decode(field.bytes)) {
      EXPECT_EQ(value.number, 1u);
      std::string tag;
      float number = 0;
      for (const Field& part : decode(value.bytes)) {
        if (part.number == 1) tag = part.bytes;
        const auto bits = static_cast<uint32_t>(part.integer);
        if (part.number == 2) std::memcpy(&number, &bits, 4);
      }
      event.scalars[tag] = number;
    }
  }
  return event;
}

std::string fresh_directory(const std::string& name) {
  const std::string directory = ::testing::TempDir() + name;
  std::filesystem::remove_all(directory);
  return directory;
}

TEST(Crc32c, KnownValues) {  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Tensorboard, AnotherReaderReadsWhatIsWritten) {
  const std::string directory = fresh_directory("tensorboard_reads");
  TensorboardWriter writer(directory, -1);
  const std::string long_tag(300, 't');  // its length takes a varint of two bytes
  const std::vector<Scalar> first = {{"train/loss", 8.25}, {"train/learning_rate", 3e-4}, {long_tag, -1}};
  writer.write(1, first);
  const std::vector<Scalar> second = {{"train/loss", 1e30}};
  writer.write(int64_t{1} << 40, second);

  const std::vector<std::string> records = read_records(writer.path());
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(decode_event(records[0]).file_version, "brain.Event:2");
  const Event event = decode_event(records[1]);
  EXPECT_EQ(event.step, 1);
  EXPECT_EQ(event.scalars,
            (std::map<std::string, float>{{"train/loss", 8.25f}, {"train/learning_rate", 3e-4f}, {long_tag, -1.f}}));
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_NEAR(event.wall_time, now, 60);
  EXPECT_EQ(decode_event(records[2]).step, int64_t{1} << 40);
  EXPECT_EQ(decode_event(records[2]).scalars, (std::map<std::string, float>{{"train/loss", 1e30f}}));
}

TEST(Tensorboard, AResumeIsALaterFileThatStartsASession) {
  const std::string directory = fresh_directory("tensorboard_resume");
  std::vector<std::string> paths;
  for (const int64_t resumed : {-1, 20, 40}) paths.push_back(TensorboardWriter(directory, resumed).path());
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 3);
  EXPECT_EQ(read_records(paths[0]).size(), 1u);
  const std::vector<std::string> records = read_records(paths[2]);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(decode_event(records[0]).file_version, "brain.Event:2");
  EXPECT_EQ(decode_event(records[1]).session_status, 1u);
  EXPECT_EQ(decode_event(records[1]).step, 41);
}

TEST(Tensorboard, AResumedRunReplacesItsLaterSteps) {  // read by tests/launch/metrics/tensorboard_reads.py
  const std::string directory = fresh_directory("tensorboard_replaces");
  const auto write = [&](int64_t resumed, int64_t first, int64_t last, double offset) {
    TensorboardWriter writer(directory, resumed);
    for (int64_t step = first; step <= last; ++step) {
      const std::vector<Scalar> loss = {{"train/loss", static_cast<double>(step) + offset}};
      writer.write(step, loss);
    }
    return writer.path();
  };
  write(-1, 1, 6, 0);
  const std::vector<std::string> records = read_records(write(4, 5, 8, 100));
  ASSERT_EQ(records.size(), 6u);
  EXPECT_EQ(decode_event(records[1]).step, 5);
  EXPECT_EQ(decode_event(records[2]).scalars, (std::map<std::string, float>{{"train/loss", 105.f}}));
}

TEST(Tensorboard, NamesADirectoryThatCannotBeMade) { EXPECT_THROW(TensorboardWriter("/proc/events", -1), IoError); }

}  // namespace
}  // namespace tessera
