#include "checkpoint/reread.h"

#include "checkpoint/scan.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

Reread read_again(const std::string& path, int ranks) {
  Reread result;
  run_ranks(ranks, [&](Comm& world) {
    FaultyStorage storage;
    Rereader rereader(world, storage);
    EXPECT_FALSE(rereader.in_flight());
    EXPECT_FALSE(rereader.poll().has_value());
    rereader.start(path);
    EXPECT_TRUE(rereader.in_flight());
    std::optional<Reread> found;
    while (!found) found = rereader.poll();
    EXPECT_FALSE(rereader.in_flight());
    if (world.rank() == world.size() - 1) result = *found;
  });
  return result;
}

TEST(Rereader, MarksWhatIsRight) {
  for (const int ranks : {1, 2, 5}) {
    const std::string directory = fresh_directory();
    save_filled(directory, 1, 1, {.parts = 3});
    const std::string path = directory + "/step-00000001";
    PosixStorage storage;
    EXPECT_FALSE(is_marked_verified(storage, path));
    EXPECT_FALSE(scan(storage, directory)[0].verified);
    const Reread result = read_again(path, ranks);
    EXPECT_TRUE(result.ok()) << result.problem;
    EXPECT_EQ(result.path, path);
    EXPECT_TRUE(is_marked_verified(storage, path));
    EXPECT_TRUE(scan(storage, directory)[0].verified);
    EXPECT_TRUE(verify(storage, path).ok());
  }
}

// Whichever rank reads the file that is damaged.
TEST(Rereader, NamesWhatIsWrong) {
  for (const char* name : {"shard-00000.h5", "shard-00001.h5", "shard-00002.index", "index.h5", "manifest.textproto"}) {
    const std::string directory = fresh_directory();
    save_filled(directory, 1, 1, {.parts = 3});
    const std::string path = directory + "/step-00000001";
    std::string bytes = slurp(path + "/" + name);
    bytes[bytes.size() / 2] ^= 4;
    spill(path + "/" + name, bytes);
    const Reread result = read_again(path, 2);
    EXPECT_FALSE(result.ok());
    EXPECT_NE(result.problem.find(name), std::string::npos) << result.problem;
    PosixStorage storage;
    EXPECT_FALSE(is_marked_verified(storage, path));
  }
}

// The disk, not the memory that still holds what was written.
TEST(Rereader, DropsTheFileFromMemoryFirst) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 1});
  struct Forgetful : PosixStorage {
    struct File : FileReader {
      std::unique_ptr<FileReader> file;
      Forgetful& storage;
      std::string path;
      bool forgotten = false;
      File(std::unique_ptr<FileReader> opened, Forgetful& owner, std::string name)
          : file(std::move(opened)), storage(owner), path(std::move(name)) {}
      int64_t size() const override { return file->size(); }
      void read(int64_t offset, std::span<std::byte> out) override {
        if (path.ends_with(".h5")) (forgotten ? storage.cold : storage.warm)++;
        file->read(offset, out);
      }
      void forget() override {
        forgotten = true;
        file->forget();
      }
    };
    int cold = 0, warm = 0;
    std::unique_ptr<FileReader> open(const std::string& path) override {
      return std::make_unique<File>(PosixStorage::open(path), *this, path);
    }
  } storage;
  EXPECT_TRUE(verify(storage, directory + "/step-00000001").ok());
  EXPECT_GT(storage.cold, 0);
  EXPECT_EQ(storage.warm, 0);
}

TEST(Rereader, AnErrorOfTheDiskIsAProblem) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 2});
  run_ranks(2, [&](Comm& world) {
    FaultyStorage storage;
    storage.before = [&](const std::string& operation, const std::string& path) {
      if (world.rank() == 1 && operation == "read" && path.ends_with("shard-00001.h5")) {
        throw IoError("cannot read " + path + ": Input/output error");
      }
    };
    Rereader rereader(world, storage);
    rereader.start(directory + "/step-00000001");
    const Reread result = rereader.finish();
    EXPECT_NE(result.problem.find("rank 1: cannot read"), std::string::npos) << result.problem;
  });
}

}  // namespace
}  // namespace tessera
