#include "checkpoint/format/storage.h"

#include <fmt/core.h>
#include <unistd.h>

#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(Storage, WritesInPiecesAndReadsAnyRange) {
  const std::string path = fresh_directory() + "/file";
  PosixStorage storage;
  const auto file = storage.create(path, 100);  // more than come: the length is what was written
  const std::string first = "abc", second = "defgh";
  file->append(std::as_bytes(std::span(first)));
  file->append({});
  file->append(std::as_bytes(std::span(second)));
  file->finish();
  EXPECT_EQ(storage.read_file(path, 8), "abcdefgh");
  EXPECT_EQ(storage.file_size(path), 8);
  const auto reader = storage.open(path);
  std::string part(4, ' ');
  reader->read(2, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, "cdef");
  const std::string message = message_of<IoError>([&] { reader->read(6, std::as_writable_bytes(std::span(part))); });
  EXPECT_NE(message.find("it ends at byte 8, 2 more were wanted"), std::string::npos) << message;
}

TEST(Storage, NamesThePathAndTheReason) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  const auto expect = [&](const std::string& part, const std::function<void()>& body) {
    const std::string message = message_of<IoError>(body);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect("cannot open " + directory + "/none: No such file", [&] { storage.open(directory + "/none"); });
  expect("cannot create " + directory + "/none/x: No such file", [&] { storage.create(directory + "/none/x", 1); });
  expect("cannot list " + directory + "/none: No such file", [&] { storage.list(directory + "/none"); });
  expect("cannot rename", [&] { storage.rename(directory + "/none", directory + "/other"); });
  expect("cannot rename", [&] { storage.publish(directory + "/none", directory + "/other"); });
  expect("it is not a file", [&] { storage.open(directory); });
  expect("No such file", [&] { storage.file_size(directory + "/none"); });
  spill(directory + "/big", "123456789");
  expect("it has 9 bytes, and such a file has at most 8", [&] { storage.read_file(directory + "/big", 8); });
  expect("cannot create the directory", [&] { storage.create_directories(directory + "/big/below"); });
}

TEST(Storage, AFullDiskIsNoticed) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this machine has no /dev/full";
  PosixStorage storage;
  const std::string bytes(100, 'x');
  const std::string message =
      message_of<IoError>([&] { storage.write_file("/dev/full", std::as_bytes(std::span(bytes))); });
  EXPECT_NE(message.find("cannot write /dev/full: No space left"), std::string::npos) << message;
}

TEST(Storage, ADiskWithoutRoomIsNoticedBeforeAnythingIsWritten) {
  const std::string path = fresh_directory() + "/file";
  PosixStorage storage;
  const int64_t too_much = int64_t{1} << 62;  // more than any file may have: nothing is taken from the disk
  const std::string message = message_of<IoError>([&] { storage.create(path, too_much); });
  EXPECT_NE(message.find(fmt::format("cannot write {}: no room for {} bytes", path, too_much)), std::string::npos)
      << message;
}

TEST(Storage, PublishesOverADirectoryThatIsThere) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  for (const char* content : {"first", "second"}) {
    storage.create_directories(directory + "/new");
    spill(directory + "/new/file", content);
    storage.publish(directory + "/new", directory + "/published");
    EXPECT_EQ(slurp(directory + "/published/file"), content);
    EXPECT_FALSE(storage.exists(directory + "/new"));
  }
  ASSERT_EQ(storage.list(directory).size(), 1u);
  EXPECT_TRUE(storage.list(directory)[0].directory);
  storage.remove_tree(directory + "/published");
  storage.remove_tree(directory + "/published");
  EXPECT_TRUE(storage.list(directory).empty());
  EXPECT_GT(storage.free_bytes(directory), 0);
}

}  // namespace
}  // namespace tessera
