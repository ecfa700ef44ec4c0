#include "data/shards/token_shard.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>

#include "tensor/check.h"
#include "tests/data/shards/shards.h"
#include "tests/data/spoil.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

using namespace testing_data;

std::vector<int32_t> read_tokens(const TokenShard& shard) {
  std::vector<int32_t> tokens(shard.tokens());
  shard.read(0, tokens);
  return tokens;
}

// Opens a shard for writing with HDF5's own calls, so as to spoil it.
void edit(const std::string& path, const std::function<void(hid_t)>& change) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, access);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
  H5Pclose(access);
}

void replace_dataset(hid_t file, const char* name, hid_t type, const std::vector<hsize_t>& dims, hid_t creation) {
  H5Ldelete(file, name, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  hsize_t count = 1;
  for (const hsize_t dim : dims) count *= dim;
  const std::vector<uint64_t> zeros(count);
  H5Dwrite(dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data());
  H5Dclose(dataset);
  H5Sclose(space);
}

void set_integer(hid_t file, const char* name, int64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
}

TEST(TokenShard, GivesBackWhatWasWritten) {
  const TempDirectory dir;
  std::mt19937 random(1);
  for (const int64_t vocab_size : {1000, 65536, 65537, 200000}) {
    const TokenShardFormat format{"fedcba9876543210fedcba9876543210", vocab_size, 999};
    Documents documents = random_documents(random, 300, 40);
    documents[7] = {static_cast<int32_t>(vocab_size) - 1, 0};
    write_shard(dir / "a.h5", documents, format);
    const TokenShard shard(dir / "a.h5");
    EXPECT_EQ(shard.info().dtype, vocab_size <= 65536 ? DType::U16 : DType::U32);
    EXPECT_EQ(shard.info().vocab_size, vocab_size);
    EXPECT_EQ(shard.info().end_of_text, 999);
    EXPECT_EQ(shard.info().tokenizer_fingerprint, format.tokenizer_fingerprint);
    EXPECT_EQ(shard.documents(), 300);
    const std::vector<int32_t> stream = concatenate(documents);
    EXPECT_EQ(read_tokens(shard), stream);
    int64_t end = 0;
    for (int64_t d = 0; d < std::ssize(documents); ++d) {
      const Interval expected{end, end + std::ssize(documents[d]) + 1};
      ASSERT_EQ(shard.document(d), expected);
      for (int64_t t = expected.begin; t < expected.end; ++t) ASSERT_EQ(shard.document_of(t), d);
      end = expected.end;
    }
    EXPECT_EQ(end, std::ssize(stream));
    EXPECT_EQ(dataset_offset(dir / "a.h5", "tokens") % 4096, 0);
    EXPECT_EQ(dataset_offset(dir / "a.h5", "document_offsets") % 4096, 0);
    shard.prefetch(0, shard.tokens());
    shard.verify();
  }
}

TEST(TokenShard, HoldsMoreThanABlock) {
  const TempDirectory dir;
  std::mt19937 random(2);
  const Documents documents = random_documents(random, 500, 8000);  // 2 million tokens, 4 MB
  write_shard(dir / "a.h5", documents);
  const TokenShard shard(dir / "a.h5");
  EXPECT_EQ(read_tokens(shard), concatenate(documents));
  shard.verify();
}

TEST(TokenShard, EqualDocumentsGiveEqualBytes) {
  const TempDirectory dir;
  std::mt19937 random(3);
  const Documents documents = random_documents(random, 50, 40);
  write_shard(dir / "a.h5", documents);
  ::usleep(1'100'000);  // HDF5's times are in seconds
  write_shard(dir / "b.h5", documents);
  EXPECT_TRUE(read_file(dir / "a.h5") == read_file(dir / "b.h5"));
}

TEST(TokenShard, AWriterThatDoesNotFinishLeavesNothing) {
  const TempDirectory dir;
  {
    TokenShardWriter writer(dir / "a.h5", kFormat);
    writer.append(std::vector<int32_t>{1, 2, 3});
    EXPECT_THROW(writer.append(std::vector<int32_t>{1000}), DataError);
    EXPECT_THROW(writer.append(std::vector<int32_t>{-1}), DataError);
    EXPECT_EQ(writer.tokens(), 4) << "a refused document is not half written";
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_THROW(TokenShardWriter(dir / "absent/a.h5", kFormat), IoError);
}

// Every length a shard can be cut off at: an error that names the file, never a crash or a short read.
TEST(TokenShard, RefusesACutOffFileAtEveryLength) {
  const TempDirectory dir;
  write_shard(dir / "a.h5", {{1, 2, 3}, {4}});
  const std::string whole = read_file(dir / "a.h5");
  for (size_t length = 0; length < whole.size(); length += length < 4200 ? 37 : 511) {
    write_file(dir / "cut.h5", whole.substr(0, length));
    const std::string message = message_of<DataError>([&] { TokenShard shard(dir / "cut.h5"); });
    EXPECT_NE(message.find(dir / "cut.h5"), std::string::npos) << message;
    if (length < 48) continue;
    EXPECT_NE(message.find("cut off: " + std::to_string(whole.size()) + " bytes are expected, the file has " +
                           std::to_string(length)),
              std::string::npos)
        << message;
  }
}

// A memory map would end the process with a signal, or give other tokens without a word.
TEST(TokenShard, SaysThatItWasCutOffOrWrittenToWhileItIsOpen) {
  const TempDirectory dir;
  std::mt19937 random(3);
  for (const std::string name : {"cut", "written"}) {
    const std::string path = dir / (name + ".h5");
    write_shard(path, random_documents(random, 2000, 20));
    const TokenShard shard(path);
    std::vector<int32_t> tokens(10);
    shard.read(shard.tokens() - 10, tokens);
    if (name == "cut") {
      std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    } else {
      ::usleep(20'000);  // the file system's clock ticks
      corrupt(path, dataset_offset(path, "tokens"));
    }
    const std::string words = path + (name == "cut" ? ": cut off while it was read" : ": written to while it was read");
    for (const auto& use : std::vector<std::function<void()>>{[&] { shard.read(shard.tokens() - 10, tokens); },
                                                              [&] { shard.document_of(5); },
                                                              [&] { shard.check_end(3); }, [&] { shard.verify(); }}) {
      const std::string message = message_of<DataError>(use);
      EXPECT_NE(message.find(words), std::string::npos) << message;
    }
  }
}

TEST(TokenShard, RefusesWhatIsNoShard) {
  const TempDirectory dir;
  write_file(dir / "text.h5", std::string(5000, 'x'));
  EXPECT_NE(message_of<DataError>([&] { TokenShard shard(dir / "text.h5"); }).find("not an HDF5 file"),
            std::string::npos);
  EXPECT_THROW(TokenShard(dir / "absent.h5"), IoError);
  EXPECT_THROW(TokenShard{dir.path()}, DataError);
  const hid_t file = H5Fcreate((dir / "old.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  EXPECT_NE(message_of<DataError>([&] { TokenShard shard(dir / "old.h5"); }).find("superblock version 0"),
            std::string::npos);
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  const hid_t other = H5Fcreate((dir / "other.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  const std::string open = message_of<DataError>([&] {
    H5Fflush(other, H5F_SCOPE_GLOBAL);
    TokenShard shard(dir / "other.h5");
  });
  EXPECT_NE(open.find("never closed"), std::string::npos) << open;
  H5Fclose(other);
  H5Pclose(access);
  EXPECT_NE(message_of<DataError>([&] { TokenShard shard(dir / "other.h5"); }).find("not a token shard"),
            std::string::npos);
}

struct Spoiled {
  const char* name;
  const char* words;
  std::function<void(hid_t)> change;
};

TEST(TokenShard, RefusesDatasetsThatAreNotPlain) {
  const TempDirectory dir;
  const hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), compact = H5Pcreate(H5P_DATASET_CREATE),
              external = H5Pcreate(H5P_DATASET_CREATE), plain = H5Pcreate(H5P_DATASET_CREATE),
              mapped = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk = 2, count = 6, two = 2;
  H5Pset_chunk(chunked, 1, &chunk);
  H5Pset_layout(compact, H5D_COMPACT);
  H5Pset_external(external, (dir / "outside.raw").c_str(), 0, 12);
  const hid_t space = H5Screate_simple(1, &count, nullptr);
  H5Pset_virtual(mapped, space, "elsewhere.h5", "tokens", space);
  H5Sclose(space);
  const std::vector<Spoiled> cases = {
      {"chunked", "dataset tokens is chunked",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_U16LE, {count}, chunked); }},
      {"compact", "dataset tokens is compact",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_U16LE, {count}, compact); }},
      {"virtual", "dataset tokens is virtual",
       [&](hid_t f) {
         H5Ldelete(f, "tokens", H5P_DEFAULT);
         const hid_t s = H5Screate_simple(1, &count, nullptr);
         H5Dclose(H5Dcreate2(f, "tokens", H5T_STD_U16LE, s, H5P_DEFAULT, mapped, H5P_DEFAULT));
         H5Sclose(s);
       }},
      {"external", "dataset tokens lies in another file",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_U16LE, {count}, external); }},
      {"type", "dataset tokens is not of type u16 or u32",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_I16LE, {count}, plain); }},
      {"endian", "dataset tokens is not of type u16 or u32",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_U16BE, {count}, plain); }},
      {"offsets type", "dataset document_offsets is not of type u64",
       [&](hid_t f) { replace_dataset(f, "document_offsets", H5T_STD_U32LE, {3}, plain); }},
      {"rank", "dataset tokens is not one-dimensional",
       [&](hid_t f) {
         replace_dataset(f, "tokens", H5T_STD_U16LE, {3, two}, plain);
       }},
      {"count", "2 tokens in the dataset, 6 in attribute token_count",
       [&](hid_t f) { replace_dataset(f, "tokens", H5T_STD_U16LE, {two}, plain); }},
      {"zeros", "document offsets run from 0 to 0",
       [&](hid_t f) { replace_dataset(f, "document_offsets", H5T_STD_U64LE, {3}, plain); }},
      {"no offsets", "no dataset document_offsets", [&](hid_t f) { H5Ldelete(f, "document_offsets", H5P_DEFAULT); }},
      {"offsets count", "document offsets, but 2 documents",
       [&](hid_t f) { replace_dataset(f, "document_offsets", H5T_STD_U64LE, {2}, plain); }},
      {"soft link", "tokens is a link",
       [&](hid_t f) {
         H5Lmove(f, "tokens", f, "moved", H5P_DEFAULT, H5P_DEFAULT);
         H5Lcreate_soft("/moved", f, "tokens", H5P_DEFAULT, H5P_DEFAULT);
       }},
      {"external link", "tokens is a link",
       [&](hid_t f) {
         H5Ldelete(f, "tokens", H5P_DEFAULT);
         H5Lcreate_external("other.h5", "/tokens", f, "tokens", H5P_DEFAULT, H5P_DEFAULT);
       }},
      {"version", "format version 2; this program reads version 1",
       [&](hid_t f) { set_integer(f, "token_shard_version", 2); }},
      {"vocabulary", "attribute vocab_size is 0", [&](hid_t f) { set_integer(f, "vocab_size", 0); }},
      {"end", "attribute end_of_text is 1000", [&](hid_t f) { set_integer(f, "end_of_text", 1000); }},
      {"attribute", "no attribute vocab_size", [&](hid_t f) { H5Adelete(f, "vocab_size"); }},
  };
  for (const Spoiled& spoiled : cases) {
    write_shard(dir / "a.h5", {{1, 2, 3}, {4}});
    edit(dir / "a.h5", spoiled.change);
    const std::string message = message_of<DataError>([&] { TokenShard shard(dir / "a.h5"); });
    EXPECT_NE(message.find(spoiled.words), std::string::npos) << spoiled.name << ": " << message;
    EXPECT_NE(message.find(dir / "a.h5"), std::string::npos) << spoiled.name << ": " << message;
  }
  for (const hid_t list : {chunked, compact, external, plain, mapped}) H5Pclose(list);
}

TEST(TokenShard, VerifyFindsDamage) {
  const TempDirectory dir;
  const auto damaged = [&](const char* dataset, int64_t byte) {
    write_shard(dir / "a.h5", {{1, 2, 3}, {4}, {5, 6}});
    corrupt(dir / "a.h5", dataset_offset(dir / "a.h5", dataset) + byte);
    const TokenShard shard(dir / "a.h5");
    return message_of<DataError>([&] { shard.verify(); });
  };
  EXPECT_NE(damaged("tokens", 4).find("tokens are damaged"), std::string::npos);
  EXPECT_NE(damaged("document_offsets", 8).find("document offsets are damaged"), std::string::npos);
}

// Wrong content under right hashes: what verify checks besides them.
TEST(TokenShard, VerifyChecksWhatTheFormatPromises) {
  const TempDirectory dir;
  write_shard(dir / "a.h5", {{1, 2, 3}, {4}, {5, 6}});
  edit(dir / "a.h5", [](hid_t file) { set_integer(file, "end_of_text", 998); });
  EXPECT_NE(message_of<DataError>([&] {
              TokenShard(dir / "a.h5").verify();
            }).find("document 0 ends with token 999, not with end-of-text 998"),
            std::string::npos);
  write_shard(dir / "a.h5", {{1, 2, 3}, {4}, {5, 6}});
  edit(dir / "a.h5", [](hid_t file) {
    set_integer(file, "end_of_text", 5);
    set_integer(file, "vocab_size", 999);
  });
  const TokenShard shard(dir / "a.h5");
  EXPECT_NE(message_of<DataError>([&] { shard.verify(); }).find("outside the vocabulary of 999"), std::string::npos);
  EXPECT_THROW(read_tokens(shard), DataError) << "training, too, must not see a token that it has no row for";
}

TEST(TokenShard, HDF5StaysQuietAndItsSettingsStay) {
  const TempDirectory dir;
  write_shard(dir / "a.h5", {{1}});
  edit(dir / "a.h5", [](hid_t file) { H5Adelete(file, "vocab_size"); });
  H5E_auto2_t before = nullptr, after = nullptr;
  void *data_before = nullptr, *data_after = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &before, &data_before);
  ::testing::internal::CaptureStderr();
  EXPECT_THROW(TokenShard(dir / "a.h5"), DataError);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  H5Eget_auto2(H5E_DEFAULT, &after, &data_after);
  EXPECT_EQ(before, after);
}

TEST(TokenShardSequence, ClosesShardsAtDocumentEnds) {
  const TempDirectory dir;
  std::mt19937 random(4);
  const Documents documents = random_documents(random, 200, 30);
  TokenShardSequence sequence(dir.path(), kFormat, 500);
  for (const auto& document : documents) sequence.append(document);
  sequence.finish();
  std::vector<int32_t> stream;
  ASSERT_GT(sequence.paths().size(), 3u);
  for (size_t s = 0; s < sequence.paths().size(); ++s) {
    const TokenShard shard(sequence.paths()[s]);
    if (s + 1 < sequence.paths().size()) {
      EXPECT_GE(shard.tokens(), 500);
      EXPECT_LT(shard.tokens(), 500 + 31);
    }
    const auto tokens = read_tokens(shard);
    stream.insert(stream.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(stream, concatenate(documents));
  EXPECT_EQ(sequence.tokens(), std::ssize(stream));
  EXPECT_EQ(sequence.documents(), 200);
  EXPECT_TRUE(sequence.paths()[1].ends_with("/shard-000001.h5"));
}

// h5py, a reader that shares no code with ours, sees the same shard.
TEST(TokenShard, H5pyReadsIt) {
  const std::string python = "/usr/bin/python3";
  if (std::system((python + " -c 'import h5py' 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << python << " cannot import h5py (Debian package python3-h5py)";
  const TempDirectory dir;
  std::mt19937 random(5);
  for (const int64_t vocab_size : {1000, 70000}) {
    const Documents documents = random_documents(random, 30, 40);
    write_shard(dir / "a.h5", documents, {kFormat.tokenizer_fingerprint, vocab_size, 999});
    std::string expected;
    for (const auto& document : documents) {
      for (const int32_t token : document) expected += std::to_string(token) + " ";
      expected += "999\n";
    }
    const std::string command = python + " " + testing::source_dir() + "/tests/data/shards/shard_h5py.py " +
                                dir / "a.h5" + " > " + dir / "out.txt";
    ASSERT_EQ(std::system(command.c_str()), 0);
    EXPECT_EQ(read_file(dir / "out.txt"), expected);
  }
}

}  // namespace
}  // namespace tessera
