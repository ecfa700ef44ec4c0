#include "checkpoint/format/shard_file.h"

#include "checkpoint/format/hdf5_image.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

const std::vector<TestTensor> kTensors = {{"big", {1500000}, DType::F64},  // 12 MB: three blocks
                                          {"group/odd", {3, 5}, DType::BF16},
                                          {"group/one", {1}, DType::U16},
                                          {"hollow", {4, 0}, DType::F32}};

// All rows of all slices.
std::vector<Piece> whole(const State& state) {
  std::vector<std::vector<Interval>> shares;
  for (const StateSlice& slice : state.slices) shares.push_back({slice.rows});
  return pieces_to_write(state, shares);
}

WrittenShard write_pieces(Storage& storage, const std::string& directory, int rank, const std::vector<Piece>& pieces) {
  const ShardLayout layout(pieces);
  return write_shard(storage, directory, rank, layout,
                     [&](const ShardLayout::Block& block) { return bytes_of(pieces[block.piece], block); });
}

TEST(ShardFile, HoldsTheBytesWhereTheIndexSaysThem) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  RankState rank(kTensors, {}, 0);
  rank.fill(1);
  const auto pieces = whole(rank.state);
  const WrittenShard written = write_pieces(storage, directory, 3, pieces);
  EXPECT_EQ(written.data.name, "shard-00003.h5");
  EXPECT_EQ(written.index.name, "shard-00003.index");

  const std::string file = slurp(directory + "/shard-00003.h5");
  EXPECT_EQ(static_cast<int64_t>(file.size()), written.data.bytes);
  EXPECT_EQ(hash128(file), written.data.hash);
  const std::string index = slurp(directory + "/shard-00003.index");
  EXPECT_EQ(index, written.index_bytes);
  EXPECT_EQ(hash128(index), written.index.hash);

  const auto boxes = decode_index(index, "i", written.data.bytes);
  ASSERT_EQ(boxes.size(), pieces.size());
  for (size_t i = 0; i < boxes.size(); ++i) {
    EXPECT_EQ(boxes[i].tensor, kTensors[i].name);
    EXPECT_EQ(boxes[i].offset % 4096, 0);
    ASSERT_EQ(boxes[i].bytes, pieces[i].data.bytes());
    const char* const data = static_cast<const char*>(pieces[i].data.data());
    EXPECT_TRUE(std::equal(data, data + boxes[i].bytes, file.data() + boxes[i].offset)) << boxes[i].tensor;
    for (size_t b = 0; b < boxes[i].blocks.size(); ++b) {
      const int64_t begin = static_cast<int64_t>(b) * kBlockBytes;
      const int64_t size = std::min(kBlockBytes, boxes[i].bytes - begin);
      EXPECT_EQ(hash128(std::string_view(file).substr(boxes[i].offset + begin, size)), boxes[i].blocks[b]);
    }
  }
  EXPECT_EQ(boxes[0].blocks.size(), 3u);
}

// The library lays out structures only: what they take does not grow with the tensors.
TEST(ShardFile, TakesLittleMoreThanTheTensors) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  RankState rank(kTensors, {}, 0);
  const auto pieces = whole(rank.state);
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.data.bytes();
  const WrittenShard written = write_pieces(storage, directory, 0, pieces);
  EXPECT_LT(written.data.bytes, bytes + 64 * 1024);
}

TEST(ShardFile, ARankWithNothingWritesAFileToo) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  const WrittenShard written = write_pieces(storage, directory, 0, {});
  EXPECT_TRUE(decode_index(written.index_bytes, "i", written.data.bytes).empty());
  EXPECT_GT(written.data.bytes, 0);
}

// HDF5's own view: superblock version 3, closed, and datasets that its library finds.
TEST(ShardFile, IsAnHdf5FileOfTheFormatThatChecksItself) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  RankState rank(kTensors, {}, 0);
  rank.fill(2);
  write_pieces(storage, directory, 0, whole(rank.state));
  const std::string path = directory + "/shard-00000.h5";
  const std::string head = slurp(path).substr(0, 12);
  EXPECT_EQ(head.substr(0, 8), "\x89HDF\r\n\x1a\n");
  EXPECT_EQ(head[8], 3);
  EXPECT_EQ(head[11], 0) << "open for writing";
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "open");
  const Hdf5Handle dataset(H5Dopen2(file.get(), "big.rows-0-1500000", H5P_DEFAULT), H5Dclose, "open the dataset");
  std::vector<double> values(1500000);
  hdf5_check(H5Dread(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "read");
  EXPECT_EQ(std::memcmp(values.data(), rank.state.slices[0].data.data(), values.size() * 8), 0);
}

TEST(ShardFile, SharesOfASliceAreBoxesOfTheirOwn) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  RankState rank({kTensors[1]}, {}, 0);
  rank.fill(3);
  const auto pieces = pieces_to_write(rank.state, {{{0, 1}, {2, 3}}});
  ASSERT_EQ(pieces.size(), 2u);
  const WrittenShard written = write_pieces(storage, directory, 0, pieces);
  const auto boxes = decode_index(written.index_bytes, "i", written.data.bytes);
  ASSERT_EQ(boxes.size(), 2u);
  EXPECT_EQ(boxes[0].rows, (Interval{0, 1}));
  EXPECT_EQ(boxes[1].rows, (Interval{2, 3}));
  EXPECT_EQ(slurp(directory + "/shard-00000.h5").substr(static_cast<size_t>(boxes[1].offset), 10),
            std::string(static_cast<const char*>(rank.state.slices[0].data.data()) + 20, 10));
}

TEST(ShardFile, SlicesThatContradictThemselvesAreRefused) {
  RankState rank(kTensors, {}, 0);
  State state = rank.state;
  state.slices[0].rows = {1, 1500001};
  EXPECT_THROW(whole(state), InternalError);
  state = rank.state;
  state.slices[1].data = state.slices[0].data;
  EXPECT_THROW(whole(state), InternalError);
}

TEST(Hdf5Image, ALayoutOfTerabytesTakesNoMemory) {
  Hdf5Image image;
  {
    const auto properties = hdf5_dataset_properties();
    const auto type = hdf5_type(DType::F32);
    const auto space = hdf5_space(Shape{int64_t{1} << 40});
    const Hdf5Handle dataset(
        H5Dcreate2(image.file(), "w", type.get(), space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Dclose,
        "make a dataset");
  }
  image.close();
  EXPECT_GT(image.size(), int64_t{4} << 40);
}

TEST(Hdf5Image, SaysWhatTheLibraryRefuses) {
  Hdf5Image image;
  const auto space = hdf5_space(Shape{3});
  const auto type = hdf5_type(DType::F32);
  const std::string message = message_of<IoError>([&] {
    const Hdf5Handle dataset(
        H5Dcreate2(image.file(), "no/such/group", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
        H5Dclose, "make a dataset");
  });
  EXPECT_NE(message.find("HDF5: cannot make a dataset: "), std::string::npos) << message;
  EXPECT_EQ(message.find("no reason given"), std::string::npos) << message;
}

}  // namespace
}  // namespace tessera
